"""The chapter on one's own data is copied from section by section: each section runs in a new process, after those
earlier cells alone that define what it uses."""

import ast
import multiprocessing
import os
import runpy
import symtable
from pathlib import Path

import jupytext
import pytest

pytestmark = pytest.mark.slow

CHAPTER = Path(__file__).parents[2] / "book" / "text" / "your-data.md"
# few epochs: what is tested is that the code runs, its numbers are the notebook's
FEW = "import matplotlib; matplotlib.use('Agg')\nepochs, patience = 2, 2\n"


def sections() -> dict[str, list[str]]:
    """The code of each section by its heading; the first, without one, is the chapter's beginning."""
    found: dict[str, list[str]] = {}
    heading = "begin"
    for cell in jupytext.read(CHAPTER).cells:
        if cell.cell_type == "markdown":
            heading = next((line[3:] for line in cell.source.splitlines() if line.startswith("## ")), heading)
        elif "remove-cell" not in cell.metadata.get("tags", ()):  # claims are about trained models
            found.setdefault(heading, []).append(cell.source)
    return found


def names(code: str) -> tuple[set[str], set[str]]:
    """Names that a cell makes or changes at its top, and names that it takes from elsewhere, also inside functions."""
    top, made, used = symtable.symtable(code, "cell", "exec"), set(), set()
    first = {}  # of each name: whether it is read before it is bound
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name | ast.FunctionDef | ast.ClassDef)]
    for node in sorted(nodes, key=lambda node: (node.lineno, not isinstance(getattr(node, "ctx", None), ast.Load))):
        first.setdefault(getattr(node, "id", None) or node.name, isinstance(getattr(node, "ctx", None), ast.Load))
    for symbol in top.get_symbols():
        name = symbol.get_name()
        if symbol.is_assigned() or symbol.is_imported():
            made.add(name)
        if symbol.is_referenced() and (name not in made or (first.get(name) and not symbol.is_imported())):
            used.add(name)
    inside = list(top.get_children())
    for table in inside:
        inside += table.get_children()
        used |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()} - made
    for node in ast.walk(ast.parse(code)):  # x[i] = ... changes what another cell made
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            made.add(node.value.id)
    return made, used


def needed(heading: str) -> str:
    """The section's code, after each earlier cell that makes or changes a name which this code uses."""
    found, taken, wanted = sections(), [], set()
    earlier = [code for other in list(found)[:list(found).index(heading)] for code in found[other]]
    for own, code in [*((True, code) for code in reversed(found[heading])), *((False, code) for code in
                                                                             reversed(earlier))]:
        made, used = names(code)
        if own or made & wanted:
            taken.insert(0, code)
            wanted = (wanted - made) | used
    return "\n\n".join([FEW, *taken])


HEADINGS = [heading for heading in sections() if heading != "begin"]


def test_every_section_of_the_chapter_is_here():
    assert len(HEADINGS) >= 10 and HEADINGS[0] == "What do I have?" and "How do I keep it?" in HEADINGS


def test_a_section_takes_what_it_uses_and_no_more():
    kept = needed("How do I keep it?")
    assert "def trained(" in kept and "sweep(" not in kept and "load_breast_cancer" not in kept
    assert "PictureEncoder" not in needed("Do my pairs belong together?")
    assert names("x[0] = y\nz = x") == ({"x", "z"}, {"x", "y"})
    assert names("def f(a):\n    b = a\n    return b + c\n\nd = f(e)") == ({"f", "d"}, {"c", "e"})
    assert names("x = g(x)\ny = 1\nz = y")[1] == {"x", "g"}


# every process comes new from a server that has imported the libraries and nothing else: importing them takes longer
# than a section does
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["matplotlib.pyplot", "mmvm.study.chapter", "sklearn.linear_model", "torch"])


def run(path: Path, said: Path) -> None:
    with open(said, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(path.parent)
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_section_runs_in_a_process_of_its_own(heading, tmp_path):
    (tmp_path / "snippet.py").write_text(needed(heading))
    process = CONTEXT.Process(target=run, args=(tmp_path / "snippet.py", tmp_path / "said.txt"))
    process.start()
    process.join()
    assert process.exitcode == 0, (tmp_path / "said.txt").read_text()[-2_000:]
