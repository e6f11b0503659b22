"""In dark, what is drawn in lines and points on white gets a dark ground; photographs, X-rays and maps of colours stay
as they are, on a dimmed white one. Told apart by how much of a picture is white."""

import functools
from pathlib import Path

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

MOSTLY = 0.82  # share of white; a page of photographs with captions beside them has up to .80


@functools.cache
def drawn(path: Path) -> bool:
    if path.suffix not in (".png", ".jpg", ".jpeg") or not path.is_file():
        return False
    with Image.open(path) as picture:
        return float((np.asarray(picture.convert("RGB")).min(-1) > 250).mean()) > MOSTLY


def mark(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for image in doctree.findall(nodes.image):
        if drawn(Path(app.srcdir) / image["uri"]):
            image["classes"] = [*image["classes"], "drawn", "dark-light"]  # the theme leaves those of the latter alone


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", mark, priority=900)  # after excerpt has put its pictures
    return {"parallel_read_safe": True, "parallel_write_safe": True}
