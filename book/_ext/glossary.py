"""Definitions beside their terms: what book/glossary.md says goes with each page that links to it.

The links are Sphinx's own ({term}) and work without a script and in print. A page carries the definitions of its terms
as JSON, so that glossary.js shows them without a network and from the disk. Where only definitions have formulas, the
page says where MathJax lies: it is loaded with the first of them that is seen, and not with the page (1.2 MB).
"""

import json

from docutils import nodes
from sphinx.addnodes import glossary
from sphinx.application import Sphinx

PAGE = "book/glossary"


def definitions(app: Sphinx) -> dict[str, nodes.definition]:
    """Every entry's definition by its place on the page."""
    doctree = app.env.get_doctree(PAGE)
    return {term["ids"][0]: item[-1] for entries in doctree.findall(glossary)
            for item in entries.findall(nodes.definition_list_item) for term in item.findall(nodes.term)}


def carry(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    if doctree is None or PAGE not in app.env.found_docs:
        return
    start = app.builder.get_relative_uri(pagename, PAGE) + "#"
    places = {link["refuri"].removeprefix(start) for link in doctree.findall(nodes.reference)
              if link.get("refuri", "").startswith(start + "term-")}
    if pagename == PAGE or not places:
        return
    own = {place: item for place, item in definitions(app).items() if place in places}
    late = ""
    # what is written says it: a doctree also holds what the page leaves out
    if "math notranslate" not in context["body"] and any(
            True for item in own.values() for _ in item.findall(nodes.math)):
        late = f' data-mathjax="{context["pathto"]("_static/" + app.config.mathjax_path, resource=True)}"'
    # no "</" within: it would end the script
    said = json.dumps({place: "".join(app.builder.render_partial(child)["fragment"] for child in item.children)
                       for place, item in own.items()}, ensure_ascii=False).replace("</", "<\\/")
    context["body"] += f'<script type="application/json" id="glossary-definitions"{late}>{said}</script>'
    app.add_js_file("glossary.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", carry)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
