"""Make the committed notebooks from their text twins: book/text/<chapter>.md -> book/<chapter>.ipynb, with outputs.

    python tools/notebooks.py [chapter ...]      all chapters, or those named
    python tools/notebooks.py --prose chapter    without running it: code is as it was, words and captions are not
    python tools/notebooks.py --check            only say which notebooks differ from their twins

The twin is what people edit. A notebook is made from it anew each time, executed from top to bottom in book/, and
stripped of everything that a second run on the same machine would change: times, host names, random cell ids.
"""

import argparse
import base64
import hashlib
import io
import os
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbstripout import strip_output
from PIL import Image, ImageChops, ImageStat

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
TEXT = BOOK / "text"
CELL_TIMEOUT = 1800  # seconds
COLOUR = re.compile(r"\x1b\[[\d;]*m")
VOLATILE = ["metadata.papermill", "metadata.widgets", "metadata.language_info.version",
            "metadata.language_info.codemirror_mode", "metadata.language_info.nbconvert_exporter",
            "cell.metadata.papermill", "cell.metadata.execution"]


def chapters() -> list[str]:
    """The chapters that have a text twin, by name."""
    return sorted(path.stem for path in TEXT.glob("*.md"))


def from_twin(chapter: str) -> nbformat.NotebookNode:
    """The unexecuted notebook of book/text/<chapter>.md, with cell ids that depend on the cells alone."""
    notebook = jupytext.read(TEXT / f"{chapter}.md", fmt="md:myst")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def inputs(notebook: nbformat.NotebookNode) -> list[tuple]:
    """What a notebook and its twin must share: per cell its id, kind, source, tags and figure settings."""
    return [(cell.id, cell.cell_type, cell.source.strip(), cell.metadata.get("tags", []),
             cell.metadata.get("mystnb", {}))
            for cell in notebook.cells]


def differs(chapter: str) -> str | None:
    """One sentence on how the committed notebook differs from its twin; None where it does not."""
    path = BOOK / f"{chapter}.ipynb"
    if not path.exists():
        return f"book/{chapter}.ipynb is missing: run `make notebooks CHAPTERS={chapter}`"
    twin, committed = inputs(from_twin(chapter)), inputs(nbformat.read(path, as_version=4))
    if twin == committed:
        return None
    cell = next((i for i, pair in enumerate(zip(twin, committed)) if pair[0] != pair[1]),
                min(len(twin), len(committed)))
    return (f"book/{chapter}.ipynb is not what book/text/{chapter}.md says (first at cell {cell + 1}): "
            f"run `make notebooks CHAPTERS={chapter}`")


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run every cell in book/ with a fresh kernel of this very Python, then strip what is volatile."""
    NotebookClient(notebook, timeout=CELL_TIMEOUT, kernel_name="python3", record_timing=False, coalesce_streams=True,
                   resources={"metadata": {"path": str(BOOK)}}).execute()
    shrink_figures(notebook)
    return strip_output(notebook, keep_output=True, keep_count=True, keep_id=True, extra_keys=VOLATILE)


def with_outputs(notebook: nbformat.NotebookNode, chapter: str) -> nbformat.NotebookNode:
    """The notebook of a twin with the outputs of the committed one, whose code must be the same, cell by cell."""
    committed = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4)
    new, old = ([cell for cell in of.cells if cell.cell_type == "code"] for of in (notebook, committed))
    if [cell.source for cell in new] != [cell.source for cell in old]:
        raise ValueError(f"the code of book/text/{chapter}.md is not that of book/{chapter}.ipynb: leave --prose out")
    for cell, run in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = run.outputs, run.execution_count
    notebook.metadata = committed.metadata
    return notebook


def shrink_figures(notebook: nbformat.NotebookNode) -> None:
    """Figures with 64 colours, or 128 or 256 where fewer would move a channel by 0.3 of 255 in the mean, as in
    photographs: a third of the bytes, and nothing that one sees."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        png = output.get("data", {}).get("image/png")
        if png:
            with Image.open(io.BytesIO(base64.b64decode(png))) as figure:
                full = figure.convert("RGB")
            for colours in (64, 128, 256):
                few = full.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
                if sum(ImageStat.Stat(ImageChops.difference(full, few.convert("RGB"))).mean) / 3 < 0.3:
                    break
            file = io.BytesIO()
            few.save(file, "png", optimize=True)
            output["data"]["image/png"] = base64.b64encode(file.getvalue()).decode()


def write(notebook: nbformat.NotebookNode, path: Path) -> bool:
    """Write atomically; False where the file already said exactly this."""
    text = nbformat.writes(notebook) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    part = path.with_suffix(".ipynb.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the committed notebooks from their text twins.")
    parser.add_argument("chapters", nargs="*", help="chapters to make; all by default")
    parser.add_argument("--prose", action="store_true", help="keep outputs, where nothing but words has changed")
    parser.add_argument("--check", action="store_true", help="only say which notebooks differ from their twins")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.chapters) - set(chapters()))
    if unknown:
        print(f"error: no chapter named {', '.join(unknown)}; there are: {', '.join(chapters())}", file=sys.stderr)
        return 2
    names = arguments.chapters or chapters()
    # kernels run in book/: they import this checkout, whichever one the environment was made for
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if arguments.check:
        problems = [problem for problem in map(differs, names) if problem]
        print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
        return 1 if problems else 0
    if arguments.prose:
        try:
            for name in names:
                write(with_outputs(from_twin(name), name), BOOK / f"{name}.ipynb")
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0
    for name in names:
        start = time.monotonic()
        print(f"book/{name}.ipynb: executing ...", flush=True)
        try:
            changed = write(execute(from_twin(name)), BOOK / f"{name}.ipynb")
        except CellExecutionError as error:
            print(COLOUR.sub("", str(error)), file=sys.stderr)
            print(f"error: book/text/{name}.md failed as shown; book/{name}.ipynb is as it was", file=sys.stderr)
            return 1
        print(f"book/{name}.ipynb: {'written' if changed else 'unchanged'} ({time.monotonic() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
