"""The rows and the script of the results explorer, on its page alone (`local_extensions` in _config.yml)."""

from pathlib import Path

from sphinx.application import Sphinx

PAGE = "book/scoreboard"
ROWS = "explorer-rows.js"


def write(app: Sphinx) -> None:
    """Before the pages are written: their links to the script carry its checksum."""
    from studies.pages import explorer

    path = Path(app.outdir) / "_static" / ROWS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(explorer.script(), encoding="utf-8")


def load(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    if pagename == PAGE:
        app.add_js_file(ROWS, loading_method="defer")
        app.add_js_file("explorer.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
