"""A study of one's own, from the files in `template`: `python -m mmvm new-study NAME`."""

import keyword
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from mmvm import paths
from mmvm.errors import UserError
from mmvm.study.registry import STUDIES

TEMPLATE = Path(__file__).parent / "template"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
WORDS = ("new-study", "newstudy", "NewStudy", "New study")  # of the template: the study, its package, class and title


def write(name: str, into: str = "") -> Path:
    """Writes the folder `<into>/<name>`: a package that is installed as it is, with data, networks, study, figures, a
    profile, a chapter and a test; returns it. Raises `UserError` where the name or the place is taken."""
    package = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(package):
        raise UserError(f"{name!r} cannot be a study's name: write small letters, numbers and single hyphens, a letter "
                        "first, as in my-study")
    if name in STUDIES:
        raise UserError(f"a study {name!r} is installed already: choose another name")
    if package in sys.stdlib_module_names or find_spec(package):
        raise UserError(f"Python has a module {package!r} already: choose another name, as in {name}-study")
    folder = paths.home(into) / name
    if folder.exists():
        raise UserError(f"{folder} is there already: choose another name, or another folder with --into")
    words = dict(zip(WORDS, (name, package, "".join(map(str.capitalize, name.split("-"))),
                             name.replace("-", " ").capitalize())))
    pattern = re.compile("|".join(map(re.escape, words)))

    def own(text: str) -> str:
        return pattern.sub(lambda found: words[found[0]], text)
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            target = folder / own(str(source.relative_to(TEMPLATE)))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(own(source.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    return folder
