"""The built book as one PDF, _build/pdf/mmvm.pdf, printed by Chromium (`make pdf`).

The articles of all pages, in the order of _toc.yml, become one document with its own names of places: references
between chapters work in the PDF too. Folded code and the boxes "Rerun this page" are left out, other folded things
are open; playgrounds and explorer are the still pictures that stand in for them without JavaScript. The rest is the
print style of book/_static/book.css. Pages have numbers, the PDF has bookmarks.

    python tools/pdf.py [page ...]     all pages, or those named: method, api
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import address as public
import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parent.parent
HTML, OUT = ROOT / "_build" / "html", ROOT / "_build" / "pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LEFT_OUT = ("script", "iframe", "details.rerun", "details.hide.above-input", "a.headerlink", "[data-gaussians]",
            ".explorer", "button")
NUMBER = '<div style="font-size: 8px; width: 100%; text-align: center"><span class="pageNumber"></span></div>'
MINUTES = 5  # formulas of all pages are set in one of them on two cores


def pages(root: Path = ROOT) -> list[str]:
    """book/intro.html and so on, in the book's order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    files = [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    return [str(Path(file).with_suffix(".html")) for file in files]


def place(page: str, name: str = "") -> str:
    """What a place of a page is called in the one document."""
    return Path(page).stem + (f"--{name}" if name else "")


def article(page: str, html: str, known: list[str], up: str = "../html/") -> Tag:
    """A page's text for a folder beside that of the pages; places renamed, and links to them."""
    text = BeautifulSoup(html, "html.parser").select_one("article.bd-article")
    for element in text.select(", ".join(LEFT_OUT)):
        element.decompose()
    for element in text.select("details"):
        element["open"] = ""
    for element in text.find_all(id=True):
        element["id"] = place(page, element["id"])
    for element in text.find_all(True):
        element.attrs.pop("loading", None)
        for attribute in ("href", "src"):
            value = element.get(attribute)
            if value is None or urlsplit(value).scheme:
                continue
            target = urlsplit(urljoin(f"http://book/{page}", value))
            path = target.path.lstrip("/")
            inside = f"#{place(path, target.fragment)}" if path in known else None
            # a picture is taken from the disk; a link leads to where readers of the PDF find the file
            element[attribute] = inside or (f"{public.address().pages}/{path}" if element.name == "a" else up + path)
    text.name = "section"
    text["class"], text["id"] = ["bd-article", "printed"], place(page)
    return text


def join(found: dict[str, str]) -> str:
    """One document of all pages; its styles and its MathJax are those of the pages."""
    head = max(found.values(), key=lambda html: html.count("mathjax"))
    head = BeautifulSoup(head, "html.parser").head
    kept = [element for element in head.find_all(["link", "script"]) if "stylesheet" in element.get("rel", [])
            or "mathjax" in str(element).lower()]
    for element in kept:
        for attribute in ("href", "src"):
            if element.get(attribute):
                element[attribute] = element[attribute].replace("../", "../html/", 1)
    return "\n".join(['<!doctype html>\n<html lang="en" data-theme="light" data-mode="light"><head>',
                      '<meta charset="utf-8">',
                      "<title>The MMVM VAE</title>", *map(str, kept), '</head><body class="printed-book">',
                      *(str(article(page, html, list(found))) for page, html in found.items()), "</body></html>"])


def browser() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found or not shutil.which(found):
        raise SystemExit(f"error: no Chromium was found{f' at {found}' if found else ''}, which prints the PDF: "
                         "`apt-get install chromium`, or name one with CHROMIUM=/path/to/it")
    return found


def print_to(source: Path, target: Path, binary: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.set_default_timeout(MINUTES * 60_000)
        page.goto(source.as_uri(), wait_until="load")
        page.emulate_media(media="print", color_scheme="light")
        page.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")
        page.evaluate("() => document.fonts.ready.then(() => true)")
        page.pdf(path=target, format="A4", print_background=True, outline=True, tagged=True,
                 display_header_footer=True, header_template="<span></span>", footer_template=NUMBER,
                 margin={"top": "16mm", "bottom": "18mm", "left": "18mm", "right": "18mm"})
        chromium.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the built book to _build/pdf/mmvm.pdf.")
    parser.add_argument("pages", nargs="*", help="names of pages; all by default")
    asked = parser.parse_args().pages
    names = [page for page in pages() if not asked or Path(page).stem in asked]
    unknown = sorted(set(asked) - {Path(page).stem for page in names})
    missing = [page for page in names if not (HTML / page).is_file()]
    if unknown or missing:
        print(f"error: no page {unknown[0]} in _toc.yml" if unknown else
              f"error: _build/html/{missing[0]} is missing: `make html` renders it", file=sys.stderr)
        return 1
    binary = browser()
    OUT.mkdir(parents=True, exist_ok=True)
    source, target = OUT / "mmvm.html", OUT / "mmvm.pdf"
    source.write_text(join({page: (HTML / page).read_text(encoding="utf-8") for page in names}), encoding="utf-8")
    print_to(source, target, binary)
    size = target.stat().st_size / 1e6
    print(f"Printed {len(names)} pages of the book to {target.relative_to(ROOT)}, {size:.1f} MB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
