"""Pictures of chapters in a second place: the same file, on cards cut to a corner by the page's style.

    ```{excerpt} book/cub fig-cub-images
    :alt: what is seen

    What to see, where a chapter opens with it.
    ```

puts the picture of that figure here, with the caption where one is given, and without a number. It is looked up when
pages are written, so it is always the one that the chapter shows in the same build. A name that the chapter does not
have is a warning.
"""

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator


class place_of_excerpt(nodes.General, nodes.Element):
    """Stands where the picture will be."""


class opening_figure(nodes.figure):
    """Written as a figure and not numbered: its number is the one that it has below."""


class Excerpt(SphinxDirective):
    required_arguments, has_content = 2, True
    option_spec = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        page, name = self.arguments
        node = place_of_excerpt(page=page, figure=name, alt=self.options["alt"])
        self.set_source_info(node)
        if not self.content:
            return [node]
        said = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, said)
        return [opening_figure("", node, nodes.caption("", "", *said[0].children), classes=["opening-figure"])]


def put(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for place in list(doctree.findall(place_of_excerpt)):
        chapter = app.env.get_doctree(place["page"]) if place["page"] in app.env.found_docs else nodes.section()
        images = [image for figure in chapter.findall(nodes.figure)
                  if place["figure"] in figure["ids"] + figure["names"] for image in figure.findall(nodes.image)]
        if not images:
            logging.getLogger(__name__).warning("%s has no figure %s", place["page"], place["figure"], location=place)
            place.replace_self([])
            continue
        image = images[0].deepcopy()
        image["alt"], image["classes"] = place["alt"], ["excerpt"]
        place.replace_self(image)


def open_figure(self: HTML5Translator, node: opening_figure) -> None:
    """A figure that the keyboard reaches: on a phone it keeps its size, to be read, and scrolls in itself."""
    self.body.append(self.starttag(node, "figure", tabindex="0"))


def setup(app: Sphinx) -> dict:
    app.add_node(place_of_excerpt)
    app.add_node(opening_figure, html=(open_figure, HTML5Translator.depart_figure))
    app.add_directive("excerpt", Excerpt)
    app.connect("doctree-resolved", put)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
