"""Which figures get a dark ground in dark: drawings and bars do, pictures of the data keep their colours."""

import base64
import sys

import nbformat
import pytest

from mmvm.paths import REPOSITORY as ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))

import drawn  # noqa: E402  (book/_ext is not a package)


@pytest.mark.parametrize("page, figure, expected", [
    ("polymnist", "fig-polymnist-tradeoff", True), ("method", "fig-method-pools", True),
    ("hippocampus", "fig-hippocampus-beta", True), ("intro", "fig-intro-bird", False),
    ("cub", "fig-cub-captions", False), ("cub", "fig-cub-data", False), ("polymnist", "fig-polymnist-data", False),
    ("mimic-cxr", "fig-mimic-cxr-imagined", False), ("polymnist", "fig-polymnist-coherence", False),
    ("cost", "fig-cost-steps", True), ("trust", "fig-trust-outcomes", True), ("collapse", "fig-collapse-diagram", True),
    ("mimic-cxr", "fig-mimic-cxr-second-view", True), ("beyond", "fig-beyond-hundred", False),
    ("hippocampus", "fig-hippocampus-transfer", False), ("your-data", "fig-your-halves", False)])
def test_drawings_are_told_from_pictures(page, figure, expected, tmp_path):
    cells = nbformat.read(ROOT / "book" / f"{page}.ipynb", as_version=4).cells
    cell = next(cell for cell in cells if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == figure)
    pictures = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
    path = tmp_path / "figure.png"
    path.write_bytes(base64.b64decode(pictures[0]))
    assert drawn.drawn(path) is expected
    assert not drawn.drawn(tmp_path / "absent.png") and not drawn.drawn(ROOT / "book" / "figures" / "architecture.svg")
