"""Definitions beside their terms: what is shown is what the glossary says, and it behaves as WCAG 2.2, 1.4.13, asks."""

import json
import re

import pytest
from bs4 import BeautifulSoup
from visits import HTML, PAGES, open_page, soup

GLOSSARY = "book/glossary.html"
TERMS = 'a[href*="glossary.html#term-"]'
BOX = "#glossary-box"
# the box is seen, its formulas set
SET = """() => { const box = document.querySelector("#glossary-box"), count = what => box.querySelectorAll(what).length;
    return !box.hidden && count(".math") === count("mjx-container"); }"""


def places(name: str) -> list[str]:
    """A page's terms, each once: an excerpt may link a term that the text around it links as well."""
    return list(dict.fromkeys(link["href"].partition("#")[2] for link in soup(name).select(TERMS)))


LINKING = {name: found for name in PAGES if name.startswith("book/") and name != GLOSSARY and (found := places(name))}
FIRST = min(LINKING, key=lambda name: (HTML / name).stat().st_size, default="")  # the page that opens soonest


def visits() -> dict[str, list[str]]:
    """Pages on which every linked term is seen once, those with most terms first."""
    chosen, seen = {}, set()
    for name, found in sorted(LINKING.items(), key=lambda item: -len(item[1])):
        if new := [place for place in found if place not in seen]:
            chosen[name] = new
            seen |= set(new)
    return chosen


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@pytest.fixture(scope="module")
def definitions(browser, address) -> dict[str, str]:
    """What the glossary's own page shows, formulas set, by the term's place."""
    visit = open_page(browser, address, GLOSSARY)
    shown = visit.page.evaluate("""() => Object.fromEntries([...document.querySelectorAll("dl.glossary > dt")].map(
        term => [term.id, term.nextElementSibling.innerText]))""")
    visit.page.context.close()
    return {place: words(text) for place, text in shown.items()}


@pytest.mark.parametrize("name, new", visits().items())
def test_the_box_says_what_the_glossary_says(name, new, browser, address, definitions):
    visit = open_page(browser, address, name)
    page = visit.page
    for place in new:
        link = page.locator(f'a[href$="glossary.html#{place}"]').first
        link.hover()
        page.wait_for_function(SET, timeout=5000)
        assert words(page.locator(BOX).inner_text()) == definitions[place], f"{name}: {place}"
        assert link.get_attribute("aria-describedby") == BOX[1:]
        page.keyboard.press("Escape")
    assert not visit.messages + visit.outside, visit.messages + visit.outside
    page.context.close()


@pytest.mark.parametrize("name", LINKING)
def test_a_page_carries_the_definitions_of_its_terms(name):
    said = json.loads(soup(name).select_one("#glossary-definitions").string)
    glossary = soup(GLOSSARY)
    assert set(said) == set(LINKING[name])
    for place, text in said.items():
        term = glossary.find(id=place)
        assert words(BeautifulSoup(text, "html.parser").get_text()) == words(term.find_next_sibling("dd").get_text())
    if any('class="math' in text for text in said.values()):
        late = soup(name).select_one("#glossary-definitions").get("data-mathjax")
        with_page = bool(soup(name).select('script[src*="mathjax"]'))
        assert with_page != bool(late), f"{name}: definitions have formulas, MathJax is loaded never or twice"
        assert with_page or (HTML / name).parent.joinpath(late).is_file(), f"{name}: no {late}"


def test_every_term_of_the_glossary_has_a_page_that_links_to_it(definitions):
    assert {place for found in LINKING.values() for place in found} == set(definitions)


@pytest.mark.parametrize("width", [390, 1440])
def test_the_box_can_be_dismissed_and_hovered_and_stays(browser, address, width):
    visit = open_page(browser, address, FIRST)
    visit.at(width)
    page, box = visit.page, visit.page.locator(BOX)
    link = page.locator(TERMS).first
    assert box.is_hidden()
    link.hover()
    place = box.bounding_box()
    assert place["x"] >= 0 and place["x"] + place["width"] <= width, place
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2, steps=5)  # hoverable
    page.wait_for_timeout(500)
    assert box.is_visible()
    page.keyboard.press("Escape")  # dismissible, and nothing else moves; a term that lay under the box may open its own
    assert link.get_attribute("aria-describedby") is None
    assert box.is_hidden() or page.locator(f"{TERMS}[aria-describedby]:hover").count() == 1
    page.mouse.move(0, 0)
    box.wait_for(state="hidden")
    link.hover()
    assert box.is_visible()
    page.mouse.move(0, 0)
    box.wait_for(state="hidden")
    page.context.close()


def test_the_keyboard_opens_and_closes_the_box(browser, address):
    visit = open_page(browser, address, FIRST)
    page, box = visit.page, visit.page.locator(BOX)
    page.locator(TERMS).first.evaluate("""link => {
        const before = document.createElement("button"); link.before(before); before.focus(); }""")
    page.keyboard.press("Tab")
    assert page.evaluate(f"() => document.activeElement.matches('{TERMS}')") and box.is_visible()
    page.wait_for_timeout(500)
    assert box.is_visible()  # persistent
    page.keyboard.press("Escape")
    assert box.is_hidden() and page.evaluate(f"() => document.activeElement.matches('{TERMS}')")
    page.context.close()


def test_without_a_script_a_term_is_a_link(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + FIRST)
    page.locator(TERMS).first.click()
    assert page.url.startswith(address + GLOSSARY + "#term-")
    context.close()


def test_the_box_meets_wcag_22_aa(browser, address):
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        visit = open_page(browser, address, FIRST, scheme)
        visit.page.locator(TERMS).first.hover()
        found = Axe().run(visit.page, context=BOX, options={"runOnly": {"type": "tag", "values": [
            "wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]}}).response["violations"]
        assert not found, found
        visit.page.context.close()
