"""The API reference: every public name of `mmvm`, found in the package, with its docstring as reST.

`.. api:: mmvm.data mmvm.modality` puts onto a page, one after the other, what these modules define of the public names,
those of an `__all__` anywhere in `mmvm`; Sphinx's autosummary and autodoc do the rest. Docstrings are written for a
terminal (columns of two, `names` in single backticks, letters and asterisks as in mathematics): `to_rst` translates.
In the other pages the first mention of a public name links to its entry.

Settings: `api_source` is the address of a file's line in the repository, with {path} and {line}; empty: files
are named without a link.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mmvm

TORCHS = "Define the computation performed at every call"  # what `forward` says where a network says nothing of its own
ROOT = Path(mmvm.__file__).resolve().parent.parent
ROW = re.compile(r"(\S(?:.{0,60}?\S)?)(  +)(?=\S)")  # a name, two spaces or more, what it is
CODE = re.compile(r"`([^`]+)`")
SPECIAL = re.compile(r"([\\*_|`<>])")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(Path(importlib.import_module(module).__file__).read_text(encoding="utf-8"))


@cache
def home(module: str, name: str) -> str:
    """The module in which `name`, seen in `module`, is defined."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mmvm"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return home(node.module, alias.name)
    return module


@cache
def public() -> dict[str, str]:
    """Every public name once, by its shortest path: mmvm.fit -> the module that defines it, mmvm.training.loop."""
    paths: dict[tuple[str, str], str] = {}
    modules = ["mmvm", *(found.name for found in pkgutil.walk_packages(mmvm.__path__, "mmvm."))]
    for module in modules:
        if module.endswith("__main__"):
            continue
        for name in getattr(importlib.import_module(module), "__all__", ()):
            paths.setdefault((home(module, name), name), f"{module}.{name}")
    return {path: place for (place, _), path in paths.items()}


def get(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def is_value(path: str) -> bool:
    """A constant, not a class or a function: its docstring is the text below its definition."""
    return not (inspect.isclass(get(path)) or inspect.isroutine(get(path)))


def docstring(path: str) -> str:
    if not is_value(path):
        return inspect.cleandoc(get(path).__doc__ or "")
    body, name = tree(public()[path]).body, path.rpartition(".")[2]
    for node, following in zip(body, body[1:]):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                return inspect.cleandoc(str(following.value.value))
    return ""


def among(modules: list[str]) -> list[str]:
    """The public names that one of `modules`, or a module below it, defines, in the order of `modules` and of the
    definitions."""
    def belongs(place: str) -> int | None:
        fitting = [m for m in modules if f"{place}.".startswith(f"{m}.")]
        return modules.index(max(fitting, key=len)) if fitting else None
    found = [(belongs(place), place, line_of(path), path) for path, place in public().items()
             if belongs(place) is not None]
    return [path for *_, path in sorted(found)]


def line_of(path: str) -> int:
    name = path.rpartition(".")[2]
    for node in tree(public()[path]).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if getattr(node, "name", None) == name or any(getattr(target, "id", None) == name for target in targets):
            return node.lineno
    return 1


# docstrings ----------------------------------------------------------------------------------------------------------

@cache
def known() -> dict[str, str]:
    """What prose calls a public name, or a method of one -> its path: `fit`, `mmvm.fit`, `MultimodalVAE.impute`.
    A name that two modules have is meant as the one with the shorter path."""
    found: dict[str, str] = {}
    for path in sorted(public(), key=lambda path: (path.count("."), path)):
        words = path.split(".")
        for start in range(len(words)):
            found.setdefault(".".join(words[start:]), path)
        if inspect.isclass(get(path)):
            own = [name for name, value in vars(get(path)).items() if not name.startswith("_") and value.__doc__
                   and (inspect.isroutine(value) or isinstance(value, property | classmethod))]
            for name in own:
                found.setdefault(f"{words[-1]}.{name}", f"{path}.{name}")
                found.setdefault(f"{path}.{name}", f"{path}.{name}")
    return found


def to_rst(lines: list[str]) -> list[str]:
    """A docstring of this house as reST."""
    out: list[str] = []
    for block in _blocks(lines):
        if block[0].startswith(">>>"):
            out += [line.partition("  # doctest:")[0] for line in block]  # tests read that, people need not
        elif block[0].startswith("    "):
            out += [".. code-block:: none", "", *block]
        else:
            out += list(_block(block))
        out.append("")
    return out


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line.rstrip())
        elif block:
            yield block
            block = []


def _block(lines: list[str]) -> Iterator[str]:
    """Paragraphs, and rows of two columns as a definition list, whose right side may have rows itself."""
    prose: list[str] = []
    i = column = 0
    while i < len(lines):
        # the longest name of a column may fill it, with one space behind it
        row = ROW.match(lines[i]) or column and re.match(rf"(\S{{{column - 1}}})( )(?=\S)", lines[i])
        i += 1
        if not row:
            prose.append(lines[i - 1].strip())
            continue
        if prose:
            yield from (_inline(" ".join(prose)), "")
            prose = []
        column = row.end()
        content, indent = [lines[i - 1][column:]], " " * column
        while i < len(lines) and lines[i].startswith(indent):
            content.append(lines[i][column:])
            i += 1
        yield _term(row[1])
        yield from (f"    {line}" for line in _block(content))
        yield ""
    if prose:
        yield _inline(" ".join(prose))


def _term(text: str) -> str:
    return _inline(text) if "`" in text else f"``{text}``"


def _inline(text: str) -> str:
    parts = CODE.split(text)
    for i, part in enumerate(parts):
        target = known().get(part.removesuffix("()"))
        parts[i] = (SPECIAL.sub(r"\\\1", part) if i % 2 == 0 else
                    f":py:obj:`{part} <{target}>`" if target else f"``{part}``")
    # inline markup ends where a space or a mark follows
    return "".join(part + ("\\ " if i % 2 and i + 1 < len(parts) and re.match(r"\w", parts[i + 1]) else "")
                   for i, part in enumerate(parts))


# Sphinx --------------------------------------------------------------------------------------------------------------

def setup(app) -> dict:
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx import addnodes
    from sphinx.util.docutils import SphinxDirective

    class Api(SphinxDirective):
        """`.. api:: module ...`: all that these modules define of the public names."""

        required_arguments, optional_arguments, has_content = 1, 99, False
        final_argument_whitespace = False

        def run(self):
            names = among(self.arguments)
            lines = [".. autosummary::", "   :nosignatures:", "", *(f"   ~{path}" for path in names), ""]
            for path in names:
                kind = "data" if is_value(path) else "class" if inspect.isclass(get(path)) else "function"
                if inspect.isclass(get(path)) and issubclass(get(path), BaseException):
                    kind = "exception"
                lines += [f".. auto{kind}:: {path}", *["   :members:"] * (kind == "class"),
                          *["   :no-value:"] * (kind == "data"), ""]
            node = nodes.section()
            node.document = self.state.document
            self.state.nested_parse(StringList(lines, source=self.env.doc2path(self.env.docname)), 0, node)
            return node.children

    def translate(app, what, name, obj, options, lines):
        if lines and lines[0].startswith(TORCHS):
            lines.clear()  # the signature stays
        text = docstring(name).splitlines() if name in public() else lines
        lines[:] = to_rst(list(text))
        if name in public():
            place = public()[name]
            file = Path(importlib.import_module(place).__file__).relative_to(ROOT).as_posix()
            address = app.config.api_source.format(path=file, line=line_of(name))
            lines += [f"Source: `{file} <{address}>`__" if address else f"Source: ``{file}``, line {line_of(name)}", ""]

    def link(app, doctree):
        """The first mention of each public name on a page, in backticks, leads to its entry; of `mmvm` to the page."""
        if app.env.docname == app.config.api_page:
            return
        seen = set()
        for literal in list(doctree.findall(nodes.literal)):
            text = literal.astext()
            path = "mmvm" if text == "mmvm" else known().get(text.removesuffix("()"))
            if path is None or path in seen or isinstance(literal.parent, (nodes.reference, addnodes.pending_xref)):
                continue
            seen.add(path)
            domain, kind, target = ("std", "doc", f"/{app.config.api_page}") if path == "mmvm" else ("py", "obj", path)
            reference = addnodes.pending_xref("", refdomain=domain, reftype=kind, reftarget=target, refexplicit=True,
                                              refdoc=app.env.docname, refwarn=True)
            literal.replace_self(reference)
            reference += literal

    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.autosummary")
    app.add_config_value("api_source", "", "env")
    app.add_config_value("api_page", "book/api", "env")
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", translate)
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True}
