"""The box "Rerun this page", the search, and the files that a published book has besides its pages, as built."""

from xml.etree import ElementTree

import pytest
from visits import HTML, PAGES, open_page, soup

BOXES = [name for name in PAGES if 'class="rerun"' in (HTML / name).read_text(encoding="utf-8")]
LOC = "{http://www.sitemaps.org/schemas/sitemap/0.9}loc"


def test_every_chapter_has_the_box():
    notebooks = {f"book/{path.stem}.html" for path in (HTML / "_sources" / "book").glob("*.ipynb")}
    assert notebooks - set(BOXES) == {"book/intro.html"}, "the landing page has a section of its own"


def test_the_box_opens_by_keyboard_and_is_not_printed(browser, address):
    visit = open_page(browser, address, "book/polymnist.html")
    box = visit.page.locator("details.rerun")
    assert not box.locator("pre").first.is_visible()
    box.locator("summary").focus()
    visit.page.keyboard.press("Enter")
    assert box.locator("pre").first.is_visible()
    assert "papermill book/polymnist.ipynb" in box.locator("pre").first.inner_text()
    visit.page.emulate_media(media="print")
    for hidden in ("details.rerun", ".bd-sidebar-primary", ".bd-header-article", "details.hide.above-input"):
        assert visit.page.locator(hidden).count() and not visit.page.locator(hidden).first.is_visible(), hidden
    assert visit.page.locator("h1:visible").count() == 1
    visit.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_open_box_is_accessible_on_a_phone(browser, address, scheme):
    from axe_playwright_python.sync_playwright import Axe

    visit = open_page(browser, address, min(BOXES, key=lambda name: (HTML / name).stat().st_size), scheme)
    visit.at(390)
    visit.page.evaluate("() => { document.querySelector('details.rerun').open = true; }")
    visit.page.wait_for_timeout(400)
    found = Axe().run(visit.page, context="details.rerun", options={"runOnly": {"type": "tag", "values": [
        "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}).response["violations"]
    assert not found, [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in found]
    assert visit.page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    visit.page.context.close()


@pytest.mark.parametrize("word, page", [("surrogate", "book/method.html"), ("rats", "book/hippocampus.html"),
                                        ("beta", "book/collapse.html")])
def test_the_search_finds(browser, address, word, page):
    visit = open_page(browser, address, f"search.html?q={word}")
    visit.page.wait_for_selector("#search-results ul.search li a", timeout=15_000)
    visit.page.wait_for_function("() => /found/i.test(document.querySelector('#search-results p')?.textContent ?? '')")
    found = visit.page.eval_on_selector_all("#search-results ul.search li a", "links => links.map(link => link.href)")
    assert any(page in link for link in found), found
    visit.page.context.close()


def test_sitemap_feed_and_picture_are_those_of_the_pages():
    places = [loc.text for loc in ElementTree.parse(HTML / "sitemap.xml").iter(LOC)]
    canonical = {name: soup(name).select_one('link[rel="canonical"]')["href"] for name in PAGES
                 if name.startswith("book/")}
    assert sorted(places) == sorted(canonical.values())
    base = canonical["book/intro.html"].removesuffix("book/intro.html")
    for name in canonical:
        head = soup(name).head
        picture = head.select_one('meta[property="og:image"]')["content"]
        assert picture.startswith(base) and 0 < (HTML / picture.removeprefix(base)).stat().st_size < 500_000, name
        assert (HTML / "book" / head.select_one('link[type="application/atom+xml"]')["href"]).is_file()
    assert (HTML / "_static" / "card.png").stat().st_size < 100_000
    assert ElementTree.parse(HTML / "changes.xml").getroot().find("{http://www.w3.org/2005/Atom}entry") is not None
