"""The glossary and its links: every term is defined, used, and linked where a chapter first uses it."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

ROLE = re.compile(r"\{term\}`([^`<]+?)(?:\s+<([^>`]+)>)?`")  # a role may go over a line
LINK = re.compile("⟦(.*?)⟧⟦(.*?)⟧")  # what stands for it in `prose`: the text and the entry
# the landing page has pictures and doors in place of explanations
CHAPTERS = [name for name in notebooks.chapters() if name != "intro"]
# words of other meanings, too: how often a unit fires, how fast one learns
AMBIGUOUS = {"rate": {"beyond", "cost", "cub", "hippocampus", "mimic-cxr", "polymnist"}}
# headings, tables, code, formulas, other roles and links: no place for a link of this kind
NO_PROSE = re.compile(r"^```(?!\{admonition\}|\{margin\}).+?^```|^#.*?$|^\|.*?$|^\([\w-]+\)=$|^`{3}.*?$|^:{3}.*?$"
                      r"|^:class:.*?$|\{[a-z:]+\}`[^`]*`|\[[^\]]*\]\([^)]*\)|`[^`]*`|<[^>]+>|\$[^$]*\$",
                      re.DOTALL | re.MULTILINE)


def entries() -> list[str]:
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    inside = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE).group(1)
    return [line for line in inside.splitlines() if line and line[0] not in " :"]


def test_definitions_are_indented_alike():
    """Sphinx cuts every line of a definition at the first one's indent."""
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    inside = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE).group(1)
    assert {len(line) - len(line.lstrip()) for line in inside.splitlines() if line.startswith(" ")} == {2}


def plain(text: str) -> str:
    return NO_PROSE.sub(" ", ROLE.sub(lambda role: f"⟦{role[1]}⟧⟦{role[2] or role[1]}⟧", text))


def prose(chapter: str) -> str:
    cells = [cell for cell in notebooks.from_twin(chapter).cells if cell.cell_type == "markdown"]
    return "\n\n".join(plain(cell.source) for cell in cells)


def used(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}s?(?![\w-])", text, re.IGNORECASE) is not None


def test_every_entry_is_defined_once_and_linked_by_a_chapter():
    linked = {entry for chapter in CHAPTERS for _, entry in LINK.findall(prose(chapter))}
    assert len(entries()) == len(set(entries())) and linked == set(entries()), linked ^ set(entries())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_links_a_term_once_at_its_first_use(chapter):
    text = prose(chapter)
    links = [(link[2], link[1], link.start()) for link in LINK.finditer(text)]
    names = [entry for entry, *_ in links]
    assert len(names) == len(set(names)), f"{chapter} links twice: {[name for name in names if names.count(name) > 1]}"
    for entry, shown, start in links:
        before = LINK.sub(" ", text[:start])
        early = [word for word in (entry, shown) if used(word, before) and chapter not in AMBIGUOUS.get(entry, ())]
        assert not early, f"{chapter} uses {early[0]!r} before it links it"
    rest = LINK.sub(" ", text)
    bare = [entry for entry in entries() if entry not in names and used(entry, rest)
            and chapter not in AMBIGUOUS.get(entry, ())]
    assert not bare, f"{chapter} uses without a link: {bare}"


def test_the_check_finds_what_it_looks_for():
    assert used("probe", "two probes of") and not used("rate", "accurate") and not used("prior", "prior-free")
    text = "# A probe\n| a probe |\n`probe` $probe$ [a probe](x) {doc}`probe`\n{term}`probes\n<probe>`"
    assert plain(text).split() == ["⟦probes⟧⟦probe⟧"]
