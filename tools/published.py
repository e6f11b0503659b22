"""Sphinx extension: what a published book has besides its pages (`local_extensions` in _config.yml).

- On top of every chapter a box, "Rerun this page": papermill's lines, Colab and Binder, notebook and script.
- A picture for those who link to a page that has none of its own, from the landing page's figure.
- sitemap.xml, and changes.xml, the sections of CHANGELOG.md as a feed.

Addresses are those of tools/address.py.
"""

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as xml

import address as public
import jupytext
import nbformat
from docutils import nodes
from markdown_it import MarkdownIt
from PIL import Image, ImageDraw, ImageFont
from sphinx.application import Sphinx

from studies.pages import status

ROOT = public.ROOT
LANDING, FIGURE = "book/intro", "fig-idea"
CARD, CARD_SIZE = "_static/card.png", (1200, 630)  # the size that Open Graph's readers show uncut
TITLE, SUBTITLE = "The MMVM VAE", "Every modality keeps its own latent; their mixture draws them together."
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
IN_COLAB = "!git clone -q {repository} /content/{name}\n%cd /content/{name}\n!pip install -q -e ."


# --- rerun this page ---

def commands(chapter: str, parameters: str, root: Path = ROOT) -> str:
    """The lines that repeat a chapter, those of its profiles among them."""
    run = f"papermill book/{chapter}.ipynb runs/{chapter}.ipynb"
    lines = ["# as on this page", run]
    if re.search(r"^seed: int", parameters, re.MULTILINE):
        lines += ["# with another seed", f"{run} -p seed 1"]
    for profile, said in (("laptop", "the settings of the committed rows"),
                          ("paper", "the paper's settings, for a GPU")):
        if (root / "book" / "params" / f"{chapter}-{profile}.yaml").is_file():
            lines += [f"# {said}", f"{run} -f book/params/{chapter}-{profile}.yaml"]
    return "\n".join(lines)


def links(chapter: str, ours: public.Address) -> dict[str, str]:
    """Where a chapter runs or comes from: what it is called, the address, from the folder of the pages."""
    notebook = f"book/{chapter}.ipynb"
    elsewhere = {"Open in Colab": ours.colab(notebook), "Open in Binder": ours.binder(notebook)}
    return {"Notebook": f"../_sources/{notebook}", "Script": f"../_sources/book/{chapter}.py",
            **(elsewhere if ours.somebodys else {})}


def times(chapter: str) -> str:
    """How long that takes, as the chapter itself says, and where the times of whole runs stand."""
    said = status.runtime(chapter)
    return (f"{f'The live part takes {said}. ' if said else ''}Times of the committed runs: "
            '<a href="status.html">status</a>; time and cost on a GPU: <a href="cost.html">cost</a>.')


def box(chapter: str, parameters: str, ours: public.Address) -> list[nodes.Node]:
    def code(text: str, language: str) -> nodes.literal_block:
        return nodes.literal_block(text, text, language=language)

    def raw(text: str) -> nodes.raw:
        return nodes.raw("", text, format="html")

    items = "\n".join(f'<li><a href="{where}"{" download" * where.startswith("..")}>{name}</a></li>'
                      for name, where in links(chapter, ours).items())
    in_colab = [raw("<p>Colab has no copy of the repository: put this into a cell above the others.</p>"),
                code(IN_COLAB.format(repository=ours.repository, name=ours.name), "ipython3")]
    return [raw('<details class="rerun"><summary>Rerun this page</summary>\n<p>In a clone, in its environment:</p>'),
            code(commands(chapter, parameters), "bash"), raw(f"<p>{times(chapter)}</p>"),
            raw(f'<ul class="rerun-links">\n{items}\n</ul>'),
            *(in_colab if ours.somebodys else []), raw("</details>")]


def offer(app: Sphinx, doctree: nodes.document) -> None:
    """Below the admonition or the paragraph with which a chapter opens; the landing page has a section of its own."""
    name = app.env.docname
    source = Path(app.env.doc2path(name))
    if source.suffix != ".ipynb" or name == LANDING:
        return
    cells = [cell for cell in nbformat.read(source, as_version=4).cells
             if "parameters" in cell.metadata.get("tags", [])]
    opening = next(doctree.findall(nodes.Admonition), None) or next(doctree.findall(nodes.paragraph))
    below = opening.parent.index(opening) + 1
    opening.parent[below:below] = box(source.stem, cells[0].source if cells else "", public.address())


def write_scripts(app: Sphinx) -> None:
    """Beside the notebooks that the theme offers to download."""
    for name in sorted(app.env.found_docs):
        source = Path(app.env.doc2path(name))
        if source.suffix == ".ipynb":
            script = Path(app.outdir) / "_sources" / f"{name}.py"
            script.parent.mkdir(parents=True, exist_ok=True)
            notebook = nbformat.read(source, as_version=4)
            notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
            script.write_text(jupytext.writes(notebook, fmt="py:percent"), encoding="utf-8")


# --- for those who link here ---

def font(size: int) -> ImageFont.FreeTypeFont:
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def card(figure: Path | None, path: Path) -> None:
    """The picture of a link: title, one sentence, the figure below."""
    picture = Image.new("RGB", CARD_SIZE, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((60, 48), TITLE, fill="#1a1a1a", font=font(76))
    draw.text((60, 156), SUBTITLE, fill="#444444", font=font(28))
    if figure is not None:
        with Image.open(figure) as image:
            image = image.convert("RGB")
            scale = min((CARD_SIZE[0] - 120) / image.width, (CARD_SIZE[1] - 250) / image.height)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        picture.paste(image, ((CARD_SIZE[0] - image.width) // 2, 230))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128).save(path, optimize=True)


def write_card(app: Sphinx) -> None:
    figures = [figure for figure in app.env.get_doctree(LANDING).findall(nodes.figure)
               if FIGURE in figure["ids"] + figure["names"]] if LANDING in app.env.found_docs else []
    uris = [image["uri"] for figure in figures for image in figure.findall(nodes.image)]
    card(Path(app.srcdir) / uris[0] if uris else None, Path(app.outdir) / CARD)


# --- sitemap and feed ---

def sitemap(addresses: list[str]) -> bytes:
    root = xml.Element("urlset", xmlns="http://www.sitemaps.org/schemas/sitemap/0.9")
    for address in addresses:
        xml.SubElement(xml.SubElement(root, "url"), "loc").text = address
    return xml.tostring(root, encoding="utf-8", xml_declaration=True)


def today(root: Path = ROOT) -> datetime:
    """The date of what is built: SOURCE_DATE_EPOCH, or the last commit's, or now."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=root, capture_output=True, text=True).stdout.strip()
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else datetime.now(UTC)


def sections(changelog: str) -> list[tuple[str, str]]:
    """The sections of CHANGELOG.md: heading, text."""
    parts = SECTION.split(changelog)
    return [(heading.strip(), text.strip()) for heading, text in zip(parts[1::2], parts[2::2])]


def feed(changelog: str, pages: str, now: datetime) -> bytes:
    """An entry a section; its date is the heading's, or of the build while it says `unreleased`."""
    root = xml.Element("feed", xmlns="http://www.w3.org/2005/Atom")

    def add(parent: xml.Element, tag: str, text: str = "", **attributes: str) -> xml.Element:
        element = xml.SubElement(parent, tag, attributes)
        element.text = text or None
        return element

    add(root, "title", f"{TITLE}: changes")
    add(root, "id", f"{pages}/changes.xml")
    add(root, "link", rel="self", href=f"{pages}/changes.xml")
    add(root, "link", rel="alternate", href=f"{pages}/")
    add(add(root, "author"), "name", "The MMVM VAE compendium")
    built = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    dated = [(heading, text, f"{found[0]}T00:00:00Z" if (found := DATE.search(heading)) else built)
             for heading, text in sections(changelog)]
    add(root, "updated", max((date for *_, date in dated), default=built))
    for heading, text, date in dated:
        entry = add(root, "entry")
        add(entry, "title", heading)
        add(entry, "id", f"{pages}/changes.xml#{heading.split()[0]}")
        add(entry, "link", rel="alternate", href=f"{pages}/")
        add(entry, "updated", date)
        add(entry, "content", MarkdownIt().render(text), type="html")
    return xml.tostring(root, encoding="utf-8", xml_declaration=True)


def write_lists(app: Sphinx) -> None:
    pages, out = public.address().pages, Path(app.outdir)
    names = [LANDING, *(name for name in sorted(app.env.found_docs) if name != LANDING)]
    there = [name for name in names if (out / f"{name}.html").is_file()]
    (out / "sitemap.xml").write_bytes(sitemap([f"{pages}/{name}.html" for name in there]))
    (out / "changes.xml").write_bytes(feed((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), pages, today()))


def front(html: Path) -> None:
    """index.html, which sends readers on to the landing page, says to those who link to it what is there."""
    landing = (html / f"{LANDING}.html").read_text(encoding="utf-8")
    tags = re.findall(r'<meta (?:name|property)="(?:description|og:[a-z_]+|twitter:card)"[^>]*>|'
                      r'<link rel="canonical"[^>]*>', landing)
    (html / "index.html").write_text("\n".join([
        f'<!doctype html>\n<html lang="en"><head><meta http-equiv="Refresh" content="0; url={LANDING}.html" />',
        '<meta charset="utf-8" />', f"<title>{TITLE}</title>", *tags,
        f'</head><body><p><a href="{LANDING}.html">{TITLE}</a></p></body></html>\n']), encoding="utf-8")


def finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        write_scripts(app)
        write_card(app)
        write_lists(app)


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", offer)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
