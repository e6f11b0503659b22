"""The API reference: every public name stands on the page once, says what it is, and has an example that runs."""

import doctest
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_what_it_shows(name, before, tmp_path):
    text = reference.docstring(name)
    test = doctest.DocTestParser().get_doctest(text, {**before, "folder": tmp_path}, name, None, None)
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
