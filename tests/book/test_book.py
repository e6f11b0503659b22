"""The committed book: notebooks are what their text twins say, were executed, and carry nothing of one machine.

`make test-all` runs every notebook again and compares the outputs (nbval); here only the files are read.
"""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill import inspect_notebook

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
sys.path.insert(0, str(ROOT / "tools"))

import notebooks  # noqa: E402  (tools/ is not a package)

CHAPTERS = notebooks.chapters()
SHORT = "status"
# absolute paths of somebody's disk; the word characters before the slash exclude URLs and file names
MACHINE_PATH = re.compile(r"(?<![\w.~:/])/(?:home|root|Users|tmp|var|opt|mnt|usr|work|private)/[\w.]|\b[A-Z]:\\\w")
PARAMETER_TYPES = {"int": int, "float": float, "str": str, "bool": bool}


def read(chapter: str) -> nbformat.NotebookNode:
    return nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4)


def code_cells(chapter: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(chapter).cells if cell.cell_type == "code"]


def toc_files() -> set[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return {toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])}


def test_toc_is_complete():
    pages = {f"book/{path.stem}" for path in BOOK.glob("*.md")}
    pages |= {f"book/{path.name}" for kind in ("*.ipynb", "*.rst") for path in BOOK.glob(kind)}
    assert toc_files() == pages, "_toc.yml lists every page in book/, notebooks with their extension, and nothing else"


def test_every_notebook_has_a_twin():
    assert {path.stem for path in BOOK.glob("*.ipynb")} == set(CHAPTERS)
    assert CHAPTERS, "the book has chapters"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_notebook_is_its_twin(chapter):
    assert notebooks.differs(chapter) is None


def test_a_changed_twin_is_noticed(tmp_path, monkeypatch):
    twin = (notebooks.TEXT / f"{CHAPTERS[0]}.md").read_text()
    (tmp_path / f"{CHAPTERS[0]}.md").write_text(twin + "\nOne more sentence.\n")
    monkeypatch.setattr(notebooks, "TEXT", tmp_path)
    assert "make notebooks" in notebooks.differs(CHAPTERS[0])


def test_other_words_leave_the_outputs_and_other_code_does_not(tmp_path, monkeypatch, capsys):
    twin = (notebooks.TEXT / f"{SHORT}.md").read_text()
    committed = nbformat.read(notebooks.BOOK / f"{SHORT}.ipynb", as_version=4)
    for name in ("TEXT", "BOOK"):
        monkeypatch.setattr(notebooks, name, tmp_path)
    nbformat.write(committed, tmp_path / f"{SHORT}.ipynb")
    (tmp_path / f"{SHORT}.md").write_text(twin + "\nA last word.\n")
    monkeypatch.setattr(sys, "argv", ["notebooks.py", "--prose", SHORT])
    assert notebooks.main() == 0 and notebooks.differs(SHORT) is None
    made = nbformat.read(tmp_path / f"{SHORT}.ipynb", as_version=4)
    assert made.cells[-1].source == "A last word." and [cell.outputs for cell in made.cells if "outputs" in cell] == [
        cell.outputs for cell in committed.cells if "outputs" in cell]
    before = (tmp_path / f"{SHORT}.ipynb").read_text()
    (tmp_path / f"{SHORT}.md").write_text(twin.replace("import ", "import  ", 1))
    assert notebooks.main() == 1 and "leave --prose out" in capsys.readouterr().err
    assert (tmp_path / f"{SHORT}.ipynb").read_text() == before


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_notebook_was_executed_in_order_without_errors(chapter):
    cells = [cell for cell in code_cells(chapter) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"
              and "raises-exception" not in cell.metadata.get("tags", [])]
    assert not errors


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_number_in_the_text_is_one(chapter):
    glued = {output.metadata["scrapbook"]["name"]: output.data.get("text/plain", "") for cell in code_cells(chapter)
             for output in cell.outputs if "scrapbook" in output.get("metadata", {})}
    assert not {name: text for name, text in glued.items() if re.search(r"\b(nan|inf)\b", text)}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_notebook_is_small_and_names_no_machine(chapter):
    path = BOOK / f"{chapter}.ipynb"
    assert path.stat().st_size < 500_000, "smaller figures, or fewer"
    for cell in read(chapter).cells:
        text = json.dumps({key: value for key, value in cell.items() if key != "outputs"})
        for output in cell.get("outputs", []):
            readable = {kind: data for kind, data in output.get("data", {}).items() if "image/" not in kind}
            text += json.dumps({**output, "data": readable})
        found = MACHINE_PATH.search(text)
        assert found is None, f"{path.name} names a path of one machine: {found.group(0)}"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_notebook_metadata_holds_nothing_volatile(chapter):
    notebook = read(chapter)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.language_info
    assert all(set(cell.metadata) <= {"tags", "mystnb"} for cell in notebook.cells)
    assert [cell.id for cell in notebook.cells] == [cell.id for cell in notebooks.from_twin(chapter).cells]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_parameters_are_typed_and_explained(chapter):
    cells = [cell for cell in code_cells(chapter) if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1, "one cell tagged `parameters`: papermill replaces what it sets"
    for name, parameter in inspect_notebook(str(BOOK / f"{chapter}.ipynb")).items():
        assert parameter["inferred_type_name"] != "None", f"{name} needs a type, as in `beta: float = 1.0`"
        assert parameter["help"], f"{name} needs a comment that says its unit and meaning"


@pytest.mark.parametrize("path", sorted(BOOK.glob("params/*.yaml")), ids=lambda path: path.name)
def test_parameter_files_agree_with_their_chapter(path):
    chapter = path.stem.rpartition("-")[0]
    assert chapter in CHAPTERS
    known = inspect_notebook(str(BOOK / f"{chapter}.ipynb"))
    for name, value in yaml.safe_load(path.read_text()).items():
        assert name in known, f"{path.name}: {name} is no parameter; there are: {', '.join(known)}"
        expected = PARAMETER_TYPES.get(known[name]["inferred_type_name"])
        if expected is not None:  # 1e-3 is a string in YAML 1.1: write 1.0e-3
            fits = type(value) is expected or (expected is float and type(value) is int)
            assert fits, f"{path.name}: {name} must be {expected.__name__}, it is {value!r}"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_begins_with_one_call_of_few_lines(chapter):
    cells = code_cells(chapter)
    first = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])) + 1
    lines = [line for line in cells[first].source.splitlines() if line.strip()]
    assert len(lines) <= 5 and "p, glue, claim = chapter.begin(" in lines[-1]
    assert not [cell for cell in cells[first + 1:] if "chapter.begin(" in cell.source]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_checks_of_the_prose_are_named_claims(chapter):
    for cell in code_cells(chapter):
        assert not re.search(r"^\s*assert\b", cell.source, re.MULTILINE), "claim(sentence, holds) says what fails"
