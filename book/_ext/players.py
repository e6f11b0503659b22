"""Scripts that play with data of the project, each on its page alone (`local_extensions` in _config.yml)."""

from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx

# page -> (module whose `script()` is the data, the file that it becomes, the script that plays with it)
PLAYERS = {"book/scoreboard": ("studies.pages.explorer", "explorer-rows.js", "explorer.js"),
           "book/polymnist": ("studies.pages.decoder", "decoder-model.js", "decoder.js")}


def write(app: Sphinx) -> None:
    """Before the pages are written: their links to the script carry its checksum."""
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    for module, data, _ in PLAYERS.values():
        (folder / data).write_text(import_module(module).script(), encoding="utf-8")


def load(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    for script in PLAYERS.get(pagename, ())[1:]:
        app.add_js_file(script, loading_method="defer")


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
