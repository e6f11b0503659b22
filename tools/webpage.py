"""Sphinx extension: what makes the rendered pages whole by themselves (`local_extensions` in _config.yml).

- MathJax comes with the build, from the package sphinx-mathjax-offline (MathJax 3.2.2, Apache License 2.0): of its
  files those that the component `tex-chtml` may load, a third of the whole.
- The scripts of Thebe are left out: no page starts a kernel, and they are declared twice, an error in every console.
- A page without a formula does not load MathJax, and none the theme's script of all icons, 1.5 MB: the theme's fonts
  have them, too.
- Long code is folded, one click away.
- A table has the caption that its cell's metadata name, `mystnb: table: "..."`, in MyST, and a number; a line below
  says how many rows a long one has, which scrolls in itself. No line breaks beside its "±".
- The bibliography's roles, which today's standard no longer has, are left out.
- Every page has a description, its address and a picture for those who link to it. The address is
  pyproject.toml's (tools/address.py), as are the buttons' and that of the API reference's sources.
"""

import re
import shutil
from html import escape
from importlib.util import find_spec
from pathlib import Path

import address as public
import published
from docutils import nodes
from docutils.utils import new_document
from myst_parser.mdit_to_docutils.sphinx_ import SphinxRenderer
from myst_parser.parsers.mdit import create_md_parser
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator

PACKAGE = "sphinx-mathjax-offline"  # the module's name, too
COMPONENT = "tex-chtml.js"
LOADED = ("a11y/*.js", "input/tex/extensions/*.js", "output/chtml/fonts/*.js", "output/chtml/fonts/woff-v2/*.woff",
          "sre/mathmaps/base.json", "sre/mathmaps/en.json", "sre/mathmaps/nemeth.json")
ICONS = re.compile(r'<script [^>]*src="[^"]*scripts/fontawesome\.js[^"]*"[^>]*></script>\s*')
FOLDED = 10  # lines of code above which a cell is folded; parameters always are
LONG = 24  # rows of a table of the scoreboard above which it scrolls in itself
DESCRIPTION = 200  # characters; search engines show about 160


def mathjax() -> Path:
    """The folder of MathJax's files."""
    spec = find_spec(PACKAGE)
    if spec is None:
        raise ExtensionError(f"{PACKAGE} is not installed, so formulas would need a network: "
                             "`make install`, or pip install -r requirements.lock")
    return Path(spec.origin).parent / "static" / "mathjax"


def configure(app: Sphinx, config: Config) -> None:
    mathjax()
    config.mathjax_path = f"mathjax/{COMPONENT}"
    config.html_theme_options["navbar_persistent"] = []  # the search is in the sidebar, and once is enough
    address = public.address()
    config.html_baseurl = address.pages + "/"
    there = address.somebodys  # else no button leads to it
    config.html_theme_options |= {"repository_url": address.repository if there else "", "use_issues_button": there,
                                  "repository_branch": public.BRANCH, "use_repository_button": there}
    if there:
        config.api_source = address.source("{path}#L{line}")
    else:
        config.html_theme_options["launch_buttons"] = {}


def fold(app: Sphinx, doctree: nodes.document) -> None:
    """Of a long cell only a line is seen that opens it."""
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code" or not cell.children or cell.get("hide_mode", "input") != "input":
            continue
        source = cell.children[0]
        lines, parameters = len(source.astext().strip().splitlines()), "tag_parameters" in cell["classes"]
        if source.get("nb_element") == "cell_code_source" and (lines > FOLDED or parameters or "hide_mode" in cell):
            what = "parameters" if parameters else "code"
            cell.attributes |= {"hide_mode": "input", "prompt_show": f"Show the {what}, lines: {lines}",
                                "prompt_hide": f"Hide the {what}"}


class Table(nodes.figure):
    """A table of HTML, as pandas writes it, with a caption."""


class TableCaption(nodes.caption):
    """The line above it."""


def caption(node: nodes.Node) -> str:
    return next((child.astext() for child in node.children if isinstance(child, TableCaption)), "")


def open_table(self: HTML5Translator, node: Table) -> None:
    self.body.append(self.starttag(node, "figure", CLASS="align-default"))


def close_table(self: HTML5Translator, node: Table) -> None:
    self.body.append("</figure>\n")


def open_caption(self: HTML5Translator, node: TableCaption) -> None:
    self.body.append("<figcaption>\n<p>")
    self.add_fignumber(node.parent)
    self.body.append('<span class="caption-text">')


def close_caption(self: HTML5Translator, node: TableCaption) -> None:
    self.body.append("</span></p>\n</figcaption>\n")


def inline(app: Sphinx, doctree: nodes.document, text: str) -> list[nodes.Node]:
    """A line of MyST, as in the captions of figures."""
    document = new_document(doctree["source"], doctree.settings)
    parser = create_md_parser(app.env.myst_config, SphinxRenderer)
    parser.options["document"] = document
    parser.render(text)
    return document[0].children


def name_tables(app: Sphinx, doctree: nodes.document) -> None:
    for cell in list(doctree.findall(nodes.container)):
        text = cell.get("cell_metadata", {}).get("mystnb", {}).get("table")
        for bundle in list(cell.findall(nodes.container)) if text else []:
            if bundle.get("nb_element") == "mime_bundle" and "<table" in bundle.astext():
                number = sum(1 for _ in doctree.findall(Table)) + 1
                table = Table("", TableCaption("", "", *inline(app, doctree, text)), ids=[f"table-{number}"])
                bundle.replace_self(table)
                # in a box of the class whose wide contents the theme makes reachable by keyboard
                box = nodes.container("", bundle, classes=["cell_output"])
                table.append(box)
                for html in list(bundle.findall(nodes.raw)):
                    html.replace_self(nodes.raw("", html.astext().replace(" ± ", "\u00a0±\u00a0"), **html.attributes))
                rows = bundle.astext().partition("<tbody")[2].count("<tr")
                if "dataframe scoreboard" in bundle.astext() and rows > LONG:
                    box["classes"].append("rows-many")
                    table.append(nodes.paragraph("", f"{rows} rows; scroll in the table to see them all.",
                                                 classes=["rows-note"]))
                break


def copy_mathjax(app: Sphinx) -> None:
    """Before the pages are written: their links to the script carry its checksum."""
    source, target = mathjax(), Path(app.outdir) / "_static" / "mathjax"
    for path in [source / COMPONENT, *(found for pattern in LOADED for found in sorted(source.glob(pattern)))]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def description(doctree: nodes.document) -> str:
    """The first sentences of a page."""
    first = next(doctree.findall(nodes.paragraph), None)
    text = re.sub(r"\s+", " ", first.astext().replace("\\", "")).strip() if first is not None else ""
    if len(text) <= DESCRIPTION:
        return text
    return text[:DESCRIPTION].rsplit(" ", 1)[0].rstrip(",;:") + " …"


def describe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    context["script_files"] = [script for script in context["script_files"] if "thebe" not in str(script).lower()
                               and "THEBE" not in str(getattr(script, "attributes", {}).get("body", ""))]
    context["css_files"] = [style for style in context["css_files"] if "thebe" not in str(style).lower()]
    if doctree is None:
        return
    # what is written says it: a doctree also holds what the page leaves out; definitions of terms load it when seen
    if "math notranslate" not in context["body"].partition('id="glossary-definitions"')[0]:
        context["script_files"] = [script for script in context["script_files"] if COMPONENT not in str(script)]
    context["body"] = context["body"].replace(' role="doc-biblioentry"', "").replace(
        '<div role="list" class="citation-list">', '<div class="citation-list">')
    picture = next((image["uri"] for image in doctree.findall(nodes.image)), None)
    said = {"description": description(doctree), "og:type": "article", "og:site_name": app.config.html_title,
            "og:title": re.sub("<[^>]+>", "", context.get("title", "")), "og:description": description(doctree),
            "og:url": context.get("pageurl"),
            "og:image": app.config.html_baseurl + (  # the landing page is known by the picture that has its name in it
                f"_images/{Path(picture).name}" if picture and pagename != published.LANDING else published.CARD),
            "twitter:card": "summary_large_image"}
    feed = context["pathto"]("changes.xml", resource=True)
    context["metatags"] = context.get("metatags", "") + (
        f'\n<link rel="alternate" type="application/atom+xml" title="Changes" href="{feed}" />') + "".join(
        f'\n<meta {"property" if name[:3] == "og:" else "name"}="{name}" content="{escape(str(value), quote=True)}" />'
        for name, value in said.items() if value)


def leave_out_icons(app: Sphinx, exception: Exception | None) -> None:
    """Of the theme's template, which offers no way to do so."""
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        if (less := ICONS.sub("", text)) != text:
            path.write_text(less, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", configure)
    app.connect("builder-inited", copy_mathjax)
    app.connect("doctree-read", fold)
    app.connect("doctree-read", name_tables, priority=400)  # before Sphinx counts
    app.add_enumerable_node(Table, "table", caption, html=(open_table, close_table))
    app.add_node(TableCaption, html=(open_caption, close_caption))
    app.connect("html-page-context", describe, priority=900)  # after those who add scripts
    app.connect("build-finished", leave_out_icons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
