"""Every built page in a real browser, at three widths, in light and in dark. Messages name the page and the element."""

import functools
import re
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from visits import HTML, PAGES, PICTURES, SCHEMES, WIDTHS, open_page, soup

COLOURS = ["color-contrast", "link-in-text-block"]
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# what is otherwise on a phone: sizes, what scrolls, and the buttons and links that stand in for the folded columns
OF_LAYOUT = ["target-size", "scrollable-region-focusable", "aria-hidden-focus", "aria-allowed-attr", "button-name",
             "link-name", "label", "nested-interactive", "bypass"]
# axe's time grows with the elements. MathJax hides its thousands of boxes from readers of screens, who get MathML in
# their place; of the blocks of code and their coloured words, of rows, items and the entries of the reference, which
# a program writes, a few of each kind are enough: the others become plain text or go.
THIN_OUT = """() => {
    for (const box of document.querySelectorAll("mjx-container")) {
        const width = box.getBoundingClientRect().width, formula = document.createElement("span");
        formula.style.cssText = `display: inline-block; width: ${width}px`;
        formula.textContent = "formula";
        box.replaceWith(formula);
    }
    const seen = {};
    const enough = (kind, most) => (seen[kind] = (seen[kind] ?? 0) + 1) > most;
    for (const word of [...document.querySelectorAll(".highlight pre span, .sig span")])
        if (!word.className || enough(`word ${word.className}`, 1)) word.replaceWith(...word.childNodes);
    const shape = element => [...element.querySelectorAll("*")].map(part => `${part.tagName}.${part.className}`).join();
    for (const row of [...document.querySelectorAll("article tbody tr, li")])
        if (enough(`row ${row.className} ${shape(row)}`, 3)) row.remove();
    for (const block of [...document.querySelectorAll("article div[class*=highlight-]")])
        if (enough(`code ${block.className}`, 4)) block.remove();
    for (const entry of [...document.querySelectorAll("dl.py")].reverse())  // those within others first
        if (enough(`entry ${entry.className}`, 3)) entry.remove();
    document.body.normalize();
}"""
KEPT = {("light", WIDTHS[0]), ("light", WIDTHS[-1]), ("dark", WIDTHS[-1])}  # pictures
TALLEST = 16_000  # pixels of a picture; the longest chapters and the reference go on
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


def said(name: str, found: list[str]) -> str:
    return f"{name}:\n  " + "\n  ".join(found)


def refuse_noise(visit) -> None:
    found = [*visit.messages, *(f"asks for {url}" for url in visit.outside), *(f"lacks {url}" for url in visit.missing)]
    assert not found, said(visit.name, found)


def test_opened_in_dark_a_page_is_dark(visit):
    """No message, no request that leaves the machine and none that fails."""
    visit.shown_in("dark")
    refuse_noise(visit)


def test_formulas_are_set(visit):
    source = [math for math in soup(visit.name).select(".math") if math.get_text(strip=True)]
    visit.page.evaluate("async () => { await window.MathJax?.startup?.promise; }")  # on a busy machine it comes later
    containers = visit.page.evaluate("() => document.querySelectorAll('mjx-container').length")
    wrong = visit.page.evaluate("() => [...document.querySelectorAll('mjx-merror, mjx-mtext[style*=red]')]"
                                ".map(e => e.textContent)")
    assert containers >= len(source) and not wrong, said(visit.name, [f"{containers} of {len(source)} set", *wrong])


def test_nothing_is_wider_than_the_window_and_a_picture_is_kept(visit):
    """At three widths in light and dark; pictures of phone and desk in light, of a desk in dark. Nor is there a message
    or request that fails as the page changes."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    found = []
    for width in WIDTHS:
        visit.at(width)
        for scheme in SCHEMES:
            visit.shown_in(scheme)
            found += [f"at {width} px in {scheme}: {line}" for line in visit.page.evaluate(TOO_WIDE)]
            if (scheme, width) in KEPT:
                path = keep_picture(visit, width, scheme)
                assert path.stat().st_size > 5_000, f"{visit.name}: an empty page at {width} px"
    assert not found, said(visit.name, found)
    refuse_noise(visit)


def keep_picture(visit, width: int, scheme: str) -> Path:
    path = PICTURES / f"{visit.name.replace('/', '-').removesuffix('.html')}-{width}-{scheme}.jpg"
    height = min(visit.page.evaluate("() => document.documentElement.scrollHeight"), TALLEST)
    visit.page.screenshot(path=path, full_page=True, type="jpeg", quality=60,
                          clip={"x": 0, "y": 0, "width": width, "height": height})
    return path


def test_axe_finds_nothing_against_wcag_22_aa(visit):
    """All rules at a desk in light, there those of colours in dark, and those of the layout on a phone.

    The last test of a visit: it changes the page.
    """
    visit.page.evaluate(THIN_OUT)
    found = []
    for scheme, width, kind, rules in (("dark", WIDTHS[-1], "rule", COLOURS), ("light", WIDTHS[-1], "tag", STANDARDS),
                                       ("light", WIDTHS[0], "rule", OF_LAYOUT)):
        visit.shown_in(scheme)
        visit.at(width)
        if scheme == "light":
            visit.page.wait_for_timeout(SETTLED)
        answer = Axe().run(visit.page, options={"runOnly": {"type": kind, "values": rules},
                                                "resultTypes": ["violations"]}).response
        found += [f"at {width} px in {scheme}: {rule['id']} ({rule['help']}): {node['html'][:160]} "
                  f"{' '.join(node['target'])[:120]}" + (f" {node['any'][0]['message'][:200]}" if node["any"] else "")
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


@pytest.mark.parametrize("name", PAGES)
def test_captions_are_set(name):
    captions = [caption.get_text(" ", strip=True) for caption in soup(name).select("figcaption")]
    raw = [text for text in captions if re.search(r"(?<!\w)\*\w|`|\{\w+\}|(?<!\w)_\w+_(?!\w)", text)]
    assert not raw, said(name, [f"markup in a caption: {text[:160]}" for text in raw])


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("book/")])
def test_a_page_says_what_it_is(name):
    head = soup(name).head
    for selector in ('meta[name="description"]', 'meta[property="og:title"]', 'meta[property="og:url"]'):
        assert head.select_one(selector) and len(head.select_one(selector)["content"]) > 5, f"{name}: {selector}"
    assert head.select_one('link[rel="canonical"]')["href"].endswith(name), name
    assert head.select_one('link[rel="icon"]'), name
