"""In dark, what is drawn on white in lines, points and bars gets a dark ground; photographs, X-rays and maps of colours
stay as they are, on a dimmed white one. A drawing is mostly white, or its areas have a few flat colours, none black."""

import functools
from pathlib import Path

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

MOSTLY = 0.83  # share of white; a page of photographs with captions beside them has up to .82
BLOCK = 8      # pixels; areas are looked at in squares
FEW = 8        # colours of bars and regions; a map of colours has more
EVEN = 0.2     # share of the squares within areas that have one colour; a photograph has fewer
BLACK = 0.1    # share of black where there is no white; the grounds of digits and X-rays have more


@functools.cache
def drawn(path: Path) -> bool:
    if path.suffix not in (".png", ".jpg", ".jpeg") or not path.is_file():
        return False
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    white = pixels.min(-1) > 250
    return bool(white.mean() > MOSTLY or (pixels[~white].max(-1) < 60).mean() < BLACK and flat(pixels))


def flat(pixels: np.ndarray) -> bool:
    """Whether areas without white have `FEW` even colours."""
    height, width = (size // BLOCK * BLOCK for size in pixels.shape[:2])
    squares = pixels[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3).swapaxes(1, 2)
    squares = squares.reshape(-1, BLOCK * BLOCK, 3)
    areas = squares[(squares.min(-1) <= 250).all(1)]
    even = areas[np.ptp(areas, axis=1).max(-1) <= 6]
    return len(even) > EVEN * len(areas) and len(np.unique(even.mean(1).round() // 4, axis=0)) <= FEW


def mark(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for image in doctree.findall(nodes.image):
        if drawn(Path(app.srcdir) / image["uri"]):
            image["classes"] = [*image["classes"], "drawn", "dark-light"]  # the theme leaves those of the latter alone


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", mark, priority=900)  # after excerpt has put its pictures
    return {"parallel_read_safe": True, "parallel_write_safe": True}
