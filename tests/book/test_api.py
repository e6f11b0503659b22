"""The API reference: every public name stands on the page once, says what it is, and has an example that runs."""

import doctest
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import reference  # noqa: E402  (book/_ext is not a package)

PAGE = (ROOT / "book" / "api.rst").read_text()
NAMES = sorted(reference.public())


@pytest.fixture(scope="module")
def before() -> dict:
    """What the page says every example begins with."""
    block = re.search(r"\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", PAGE)
    found: dict = {"__name__": "api"}
    torch.manual_seed(0)
    exec("\n".join(line[3:] for line in block[1].splitlines()), found)
    return found


def test_every_public_name_is_on_the_page_once():
    groups = re.findall(r"\.\. api:: (.+)", PAGE)
    shown = [name for group in groups for name in reference.among(group.split())]
    assert sorted(shown) == NAMES


def pictures(folder: Path) -> dict:
    """photos/ and sketches/ with a picture of each of two classes."""
    for path in (folder / root / kind / "1.png" for root in ("photos", "sketches") for kind in ("cat", "dog")):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 32), (9, 90, 200)).save(path)
    return {}


def multiome(folder: Path) -> dict:
    """`cells`, 30 of two modalities with the layer "counts", and multiome.h5mu, which holds them."""
    anndata, mudata = pytest.importorskip("anndata"), pytest.importorskip("mudata")
    counts = np.random.default_rng(0).negative_binomial(1, 0.1, (30, 5)).astype(np.float32)
    cells = mudata.MuData({name: anndata.AnnData(counts, layers={"counts": counts}) for name in ("rna", "atac")})
    cells.write(folder / "multiome.h5mu")
    return {"cells": cells}


# what an example finds besides: name -> what puts it there and gives its names
BESIDES = {"mmvm.bring.from_folders": pictures, "mmvm.bring.from_cells": multiome, "mmvm.bring.latents_into": multiome,
           "mmvm.bring.imputed": lambda folder: {"xarray": pytest.importorskip("xarray")}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_what_it_shows(name, before, tmp_path, monkeypatch):
    text = reference.docstring(name)
    monkeypatch.chdir(tmp_path)
    found = {**before, "folder": tmp_path, **BESIDES.get(name, lambda folder: {})(tmp_path)}
    test = doctest.DocTestParser().get_doctest(text, found, name, None, None)
    assert text.split(">>>")[0].strip(), "say what it is"
    assert test.examples, "add an example of two lines"
    said: list[str] = []
    with warnings.catch_warnings(action="ignore"), torch.random.fork_rng([]):
        torch.manual_seed(0)
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


def test_docstrings_are_translated():
    """Columns of two, also within one another, prose with stars, names that lead to their entries."""
    lines = ["A line of (B, *shape) for q_m.", "", "kind  one of", "      a    the first", "      b    the second,",
             "           in two lines", "rest  see `fit`", "", ">>> 1", "1", "", "    as it stands"]
    assert reference.to_rst(lines) == [
        "A line of (B, \\*shape) for q\\_m.", "",
        "``kind``", "    one of", "    ", "    ``a``", "        the first", "    ", "    ``b``",
        "        the second, in two lines", "    ", "", "``rest``", "    see :py:obj:`fit <mmvm.fit>`", "", "",
        ">>> 1", "1", "", ".. code-block:: none", "", "    as it stands", ""]
