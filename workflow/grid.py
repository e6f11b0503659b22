"""What config.yaml asks for, as runs, and what their results depend on. The Snakefile turns this into jobs.

Snakemake looks at the times of files, and git gives every file it writes the time of the checkout. So what a run
depends on is handed to Snakemake as a parameter of its job, by content: a digest of the code, and one of the settings.
"""

import ast
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mmvm import paths
from mmvm.errors import UserError
from mmvm.study import results
from mmvm.study.registry import STUDIES
from mmvm.study.study import METHOD_OPTIONS, Study

# Files and folders by name, without ".py". Figures and the command line change no number; a new one counts until it is
# listed here.
IN_NO_RUN = {"__main__", "figures", "registry"}
# Modules that only look at trained weights: when they change, a run is evaluated again, not trained again.
EVALUATION = {"evaluation", "results", "alignment", "caption_quality", "deviance", "fid"}
NAME = ["experiment", "profile", "method", "beta", "seed"]
OF_THE_GRID = {"beta": "betas", "seed": "seeds", "out": "the folder, which follows from the other settings"}


@dataclass(frozen=True)
class Run:
    """One point of the grid: its parameters, `out` included, and the command line's words for them."""

    parameters: Study
    profile: str
    settings: tuple[str, ...]

    def train_arguments(self) -> str:
        """Of `python -m mmvm train`."""
        words = [self.parameters.name, "--profile", self.profile]
        for setting in self.settings:
            words += ["--set", setting]
        return shlex.join([*words, "--out", self.parameters.out])

    def papermill_arguments(self) -> str:
        """Every parameter that is not at its default. -r keeps text text, also where it looks like a number."""
        words = []
        for name, value in asdict(self.parameters).items():
            if value != getattr(type(self.parameters), name):
                words += ["-r" if isinstance(value, str) else "-p", name, str(value)]
        return shlex.join(words)

    def values(self) -> str:
        """A digest of all parameters: the same after an edit of the profile's comments."""
        return _digest(asdict(self.parameters))

    def trained_with(self, code: str) -> str:
        """A digest of what the weights depend on. Not the number of epochs: trained weights are trained further."""
        return _digest([code, self.parameters.config()])


def runs(config: Mapping) -> dict[str, Run]:
    """The runs of the grid that `config["experiment"]` and `config["profile"]` name, by folder. Every setting is
    checked before any job starts: raises `UserError`, with the entry at fault."""
    experiment, profile = config["experiment"], config["profile"]
    kind = STUDIES[experiment]
    grids = config["grids"].get(experiment, {})
    if profile not in grids:
        raise UserError(f"there is no grid of {experiment} for profile {profile!r}; there are: {', '.join(grids)}")
    found: dict[str, Run] = {}
    for number, entry in enumerate(grids[profile], 1):
        try:
            for run in _entry(kind, profile, entry):
                folder = run.parameters.out
                if found.setdefault(folder, run).parameters != run.parameters:
                    raise UserError(f"{folder} already belongs to a run with other settings")
        except UserError as error:
            raise UserError(f"grid {experiment}, {profile}, entry {number}: {error}") from None
    return found


def _entry(experiment: type[Study], profile: str, entry: Mapping) -> Iterable[Run]:
    unknown = sorted(set(entry) - {"settings", "betas", "seeds"})
    if unknown:
        raise UserError(f"unknown key {', '.join(unknown)}; an entry has: settings, betas, seeds")
    for name in ("betas", "seeds"):
        if not isinstance(entry.get(name), list):
            raise UserError(f"{name} must be a list, got {entry.get(name)!r}")
    settings = entry.get("settings", {})
    for name, instead in OF_THE_GRID.items():
        if name in settings:
            raise UserError(f"{name} is no setting of an entry: it comes from {instead}")
    for beta in entry["betas"]:
        for seed in entry["seeds"]:
            words = tuple(f"{name}={value}" for name, value in {**settings, "beta": beta, "seed": seed}.items())
            p = experiment.from_profile(profile).with_settings(words)
            yield Run(replace(p, out=_folder(p, settings)), profile, words)


def _folder(p: Study, settings: Mapping) -> str:
    """runs/grid/<experiment>/<profile>/<method>-<other settings>-b<beta>-s<seed>, from the root if it lies there."""
    named = {"objective", *p.not_hashed, *(name for options in METHOD_OPTIONS.values() for name in options)}
    others = [f"{name}={value}" for name, value in settings.items()
              if name not in named and name not in re.split("[/=]", p.method())]
    words = "-".join([p.method(), *others, f"b{p.beta:g}", f"s{p.seed}"])
    return place(paths.runs_root() / "grid" / p.name / p.profile / re.sub(r"[^\w.=-]", "-", words))


def place(path: Path) -> str:
    """The name of a file as seen from the repository's root, where the jobs run: relative if it lies there."""
    path = Path(paths.REPOSITORY, path)
    return str(path.relative_to(paths.REPOSITORY) if path.is_relative_to(paths.REPOSITORY) else path)


# what results depend on ----------------------------------------------------------------------------------------------

def code_digest(study: str, leave_out: Iterable[str] = ()) -> str:
    """A digest of the code that a study's runs depend on: the module and the study's own folder, without the files and
    folders named. Comments, docstrings and layout do not count."""
    own = Path(sys.modules[STUDIES[study].__module__].__file__).parent
    files = [(folder.name, path) for folder in (paths.REPOSITORY / "mmvm", own) for path in sorted(folder.rglob("*.py"))
             if not {Path(part).stem for part in path.relative_to(folder).parts} & set(leave_out)]
    return _digest([[folder, path.name, _tree(ast.parse(path.read_text()))] for folder, path in files])


def notebook_digest(path: str | Path) -> str:
    """A digest of a notebook's code cells: an edit of its prose leaves it as it is."""
    cells = json.loads(Path(path).read_text())["cells"]
    return _digest(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])


def _tree(node):
    """A syntax tree as lists, without docstrings. Empty fields are left out, because Python versions differ in them."""
    if isinstance(node, list):
        return [_tree(child) for child in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    values = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
        values["body"] = node.body[1:]
    return [type(node).__name__, *([name, _tree(value)] for name, value in values.items() if value not in (None, []))]


def _digest(what) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


# collecting ----------------------------------------------------------------------------------------------------------

def lacks(table: Path, files: Iterable[Path]) -> bool:
    """Whether `table` lacks a row of one of the results.csv that exist: all are written by `results.append`, so equal
    rows are equal lines. A checkout of an older `table` looks new to Snakemake, and only this tells."""
    there = set(table.read_text().splitlines()) if table.exists() else set()
    return any(not set(file.read_text().splitlines()) <= there for file in files if file.exists())


def collect(files: Iterable[str], table: Path) -> str:
    """Appends the rows of every file to `table`, in place of older ones of the same run. Says how many, and which other
    runs in `table` have the same name: those of older parameters stay, and tables of the book would average over both.
    """
    lines, names, collected = [], set(), set()
    for file in files:
        rows = results.read(file)
        everything = results.append(rows, table)
        lines.append(f"{len(rows)} rows of {file}")
        collected |= set(rows["run"])
        names |= set(rows[NAME].itertuples(index=False, name=None))
    for name, others in everything[~everything["run"].isin(collected)].groupby(NAME):
        if name in names:
            words = ", ".join(f"{column} {value}" for column, value in zip(NAME, name))
            runs_of_it = ", ".join(others["run"].unique())
            lines.append(f"{place(table)} also has {words} of other parameters: run {runs_of_it}")
    return "\n".join(lines) + "\n"
