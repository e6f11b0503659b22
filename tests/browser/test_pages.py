"""Every built page in a real browser, at three widths, in light and in dark. Messages name the page and the element."""

import functools
import re
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup
from visits import HTML, PAGES, PICTURES, WIDTHS, open_page

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# axe's time grows with the elements. MathJax hides its thousands of boxes from readers of screens, who get MathML in
# their place, and of the coloured words of code one of each kind is enough: the others become plain text.
THIN_OUT = """() => {
    for (const box of document.querySelectorAll("mjx-container")) {
        const width = box.getBoundingClientRect().width, formula = document.createElement("span");
        formula.style.cssText = `display: inline-block; width: ${width}px`;
        formula.textContent = "formula";
        box.replaceWith(formula);
    }
    const seen = new Set();
    for (const word of [...document.querySelectorAll(".highlight pre span")])
        if (!word.className || seen.size === seen.add(word.className).size) word.replaceWith(...word.childNodes);
    document.body.normalize();
}"""
TALLEST = 60_000  # pixels; a JPEG holds little more
SETTLED = 400  # milliseconds after which the theme has made what scrolls now reachable by keyboard
# what is wider than the window, and neither lies in something that scrolls by itself nor is hidden
TOO_WIDE = """() => {
    const width = document.documentElement.clientWidth, found = [];
    const contained = element => {
        for (let box = element.parentElement; box && box !== document.body; box = box.parentElement)
            if (getComputedStyle(box).overflowX !== "visible" && box.getBoundingClientRect().right <= width + 1)
                return true;
        return false;
    };
    for (const element of document.body.querySelectorAll("*")) {
        const box = element.getBoundingClientRect();
        if (box.right <= width + 1 || box.width < 2 || box.height < 2 || box.left >= width) continue;
        if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true}) || contained(element)) continue;
        found.push(`<${element.tagName.toLowerCase()} class="${element.getAttribute("class") ?? ""}"> ends at `
            + `${Math.round(box.right)} px: ${element.textContent.trim().slice(0, 60)}`);
    }
    if (document.documentElement.scrollWidth > width) found.push(
        `the page scrolls sideways, over ${document.documentElement.scrollWidth} px`);
    return found.slice(0, 5);
}"""


@functools.cache
def soup(name: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / name).read_text(encoding="utf-8"), "html.parser")


def said(name: str, found: list[str]) -> str:
    return f"{name}:\n  " + "\n  ".join(found)


def test_the_console_is_silent(visit):
    assert not visit.messages, said(visit.name, visit.messages)


def test_no_request_leaves_the_machine_and_none_fails(visit):
    assert not visit.outside, said(visit.name, visit.outside)
    assert not visit.missing, said(visit.name, visit.missing)


def test_formulas_are_set(visit):
    source = [math for math in soup(visit.name).select(".math") if math.get_text(strip=True)]
    containers = visit.page.evaluate("() => document.querySelectorAll('mjx-container').length")
    wrong = visit.page.evaluate("() => [...document.querySelectorAll('mjx-merror, mjx-mtext[style*=red]')]"
                                ".map(e => e.textContent)")
    assert containers >= len(source) and not wrong, said(visit.name, [f"{containers} of {len(source)} set", *wrong])


def test_nothing_is_wider_than_the_window(visit):
    found = []
    for width in WIDTHS:
        visit.at(width)
        found += [f"at {width} px: {line}" for line in visit.page.evaluate(TOO_WIDE)]
    assert not found, said(visit.name, found)


def test_a_picture_of_the_page_is_kept(visit):
    PICTURES.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        visit.at(width)
        path = PICTURES / f"{visit.name.replace('/', '-').removesuffix('.html')}-{width}-{visit.scheme}.jpg"
        height = min(visit.page.evaluate("() => document.documentElement.scrollHeight"), TALLEST)
        visit.page.screenshot(path=path, full_page=True, type="jpeg", quality=60,
                              clip={"x": 0, "y": 0, "width": width, "height": height})
        assert path.stat().st_size > 5_000, f"{visit.name}: an empty page at {width} px"


def test_axe_finds_nothing_against_wcag_22_aa(visit):
    """All rules on a phone and at a desk in light; in dark, where only colours differ, those of colours.

    The last test of a visit: it changes the page.
    """
    from axe_playwright_python.sync_playwright import Axe

    visit.page.evaluate(THIN_OUT)
    only = {"type": "tag", "values": STANDARDS} if visit.scheme == "light" else {"type": "rule", "values": [
        "color-contrast", "link-in-text-block"]}
    found = []
    for width in WIDTHS[::2] if visit.scheme == "light" else WIDTHS[-1:]:
        visit.at(width)
        visit.page.wait_for_timeout(SETTLED)
        answer = Axe().run(visit.page, options={"runOnly": only, "resultTypes": ["violations"]}).response
        found += [f"at {width} px: {rule['id']} ({rule['help']}): {node['html'][:160]} {' '.join(node['target'])[:120]}"
                  + (f" {node['any'][0]['message'][:200]}" if node["any"] else "")
                  for rule in answer["violations"] for node in rule["nodes"][:4]]
    assert not found, said(visit.name, found)


def test_a_page_opened_from_the_disk_is_whole(browser):
    """As a reader opens it: no server, no network."""
    name = next(name for name in PAGES if soup(name).select(".math"))
    visit = open_page(browser, HTML.as_uri() + "/", name)
    assert visit.page.locator("mjx-container").count() and not visit.messages + visit.outside, said(
        name, visit.messages + visit.outside)
    visit.page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_no_link_or_anchor_is_dead(name):
    page, dead = soup(name), []
    for element in page.find_all(True):
        for value in (element.get(attribute) for attribute in ("href", "src")):
            if value is None or urlsplit(value).scheme:
                continue
            target = urlsplit(urljoin(f"http://book/{name}", value))
            path, anchor = unquote(target.path).lstrip("/"), unquote(target.fragment)
            if not (HTML / path).is_file():
                dead.append(f"{element.name} {value}: there is no such file")
            elif anchor and path.endswith(".html") and anchor not in places(path):
                dead.append(f"{element.name} {value}: there is no such place")
    assert not dead, said(name, dead)


@functools.cache
def places(name: str) -> set[str]:
    return {element["id"] for element in soup(name).find_all(id=True)}


def test_every_picture_has_an_alternative_text_of_its_own():
    seen: dict[str, str] = {}
    wrong = []
    for name in PAGES:
        for image in soup(name).select("article img"):
            text, place = (image.get("alt") or "").strip(), f"{name}: {image.get('src', '')[-40:]}"
            caption = image.find_parent("figure")
            caption = caption.figcaption.get_text(" ", strip=True) if caption and caption.figcaption else ""
            if len(text) < 20 or re.search(r"\.(png|svg|jpe?g|webp)\b|/", text):
                wrong.append(f"{place}: `{text[:60]}` does not say what is seen ({caption[:60]})")
            elif text in seen:
                wrong.append(f"{place}: the same text as {seen[text]}")
            elif text in caption:
                wrong.append(f"{place}: only repeats its caption: `{text[:60]}`")
            seen.setdefault(text, place)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_and_table_says_what_to_see(name):
    bare = [element for element in soup(name).select(".cell_output img, .cell_output table")
            if not (element.find_parent("figure") and element.find_parent("figure").figcaption)]
    assert not bare, said(name, [f"{element.name} has no caption (`mystnb: figure: caption`, `mystnb: table`): "
                                 f"{element.get_text(' ', strip=True)[:80]}" for element in bare])


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("book/")])
def test_a_page_says_what_it_is(name):
    head = soup(name).head
    for selector in ('meta[name="description"]', 'meta[property="og:title"]', 'meta[property="og:url"]'):
        assert head.select_one(selector) and len(head.select_one(selector)["content"]) > 5, f"{name}: {selector}"
    assert head.select_one('link[rel="canonical"]')["href"].endswith(name), name
    assert head.select_one('link[rel="icon"]'), name
