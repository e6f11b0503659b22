"""Render the book to _build/html, every warning an error.

    python tools/book.py              the committed outputs
    python tools/book.py --execute    every chapter run live; the committed notebooks stay as they are

Jupyter Book reads a copy of _config.yml that differs in `execute_notebooks`, and in where the extensions lie.
"""

import argparse
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import notebooks
import published
import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
INDEX = BUILD / "html" / "index.html"


def main() -> int:
    parser = argparse.ArgumentParser(description="Render the book to _build/html, every warning an error.")
    parser.add_argument("--execute", action="store_true", help="run every chapter live")
    arguments = parser.parse_args()
    if not version("jupyter-book").startswith("1."):
        print(f"error: jupyter-book {version('jupyter-book')} cannot read this book: install requirements.lock",
              file=sys.stderr)
        return 1
    stale = [problem for problem in map(notebooks.differs, notebooks.chapters()) if problem]
    if stale:
        print("\n".join("error: " + problem for problem in stale), file=sys.stderr)
        return 1

    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["execute"]["execute_notebooks"] = "force" if arguments.execute else "off"
    # paths of extensions count from the file's folder, and the copy lies in another one
    sphinx = config["sphinx"]
    sphinx["local_extensions"] = {name: str(ROOT / path) for name, path in sphinx["local_extensions"].items()}
    mode = BUILD / "config" / ("execute.yml" if arguments.execute else "render.yml")
    mode.parent.mkdir(parents=True, exist_ok=True)
    mode.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")

    # from nothing, so that no page and no silenced warning of an earlier build remains
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    start = time.monotonic()
    # jupyter-book has no __main__, and the script of that name on PATH may belong to another environment;
    # it colours its messages even where they go to a file
    jupyter_book = [sys.executable, "-c", "from sphinx.util.console import nocolor; nocolor(); "
                                          "from jupyter_book.cli.main import main; main()"]
    status = subprocess.run([*jupyter_book, "build", str(ROOT), "--config", str(mode), "--all", "-W", "-n",
                             "--keep-going", *([] if arguments.execute else ["-q"])], cwd=ROOT).returncode
    if status == 0 and not INDEX.exists():
        status = 1
    if status:
        reports = sorted((BUILD / "html" / "reports").rglob("*.err.log"))
        print("error: the book was not built; see the messages above"
              + "".join(f"\n  {report.relative_to(ROOT)}" for report in reports), file=sys.stderr)
        return status
    published.front(INDEX.parent)
    print(f"Built {INDEX.relative_to(ROOT)} in {time.monotonic() - start:.0f} s. Open it in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
