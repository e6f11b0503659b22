"""The model and the script of the live decoder, on its page alone (`local_extensions` in _config.yml)."""

from pathlib import Path

from sphinx.application import Sphinx

PAGE = "book/polymnist"
MODEL = "decoder-model.js"


def write(app: Sphinx) -> None:
    """Before the pages are written: their links to the script carry its checksum."""
    from studies.pages import decoder

    path = Path(app.outdir) / "_static" / MODEL
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(decoder.script(), encoding="utf-8")


def load(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    if pagename == PAGE:
        app.add_js_file(MODEL, loading_method="defer")
        app.add_js_file("decoder.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
