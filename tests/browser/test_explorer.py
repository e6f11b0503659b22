"""The results explorer in a browser: what it draws is what the rows say, by mouse and by keyboard."""

import functools
import random

import numpy as np
import pytest
from visits import HTML, open_page

from mmvm.study import results

PAGE = "book/scoreboard.html"
SETTINGS = 10
# of one method and beta these profiles have runs of several kinds, which the page tells apart by a note
SEVERAL = {("hippocampus", "control"), ("polymnist_search", "search"), *[(name, name) for name in (
    "ablations", "ablations_translated")]}
POINTS = """() => [...document.querySelectorAll("#explorer svg [data-mean]")].map(point => [
    Number(point.dataset.mean), point.dataset.sd === "" ? null : Number(point.dataset.sd), Number(point.dataset.x),
    Number(point.dataset.seeds)])"""
read = functools.cache(results.read)
OPTIONS = "id => [...document.getElementById(id).options].map(option => option.value)"


@pytest.fixture
def page(request, browser, address):
    """As it opens; from the disk where a test asks for that."""
    visit = open_page(browser, getattr(request, "param", address), PAGE)
    yield visit.page
    assert not visit.messages + visit.outside + visit.missing, visit.messages + visit.outside + visit.missing
    visit.page.context.close()


def expected(name: str, profile: str, measure: str, axis: str) -> list[list[float]]:
    """Mean, deviation, place and seeds of each method, beta and length, from the rows by other code."""
    table = read(name)
    table = table[(table["profile"] == profile) & (table["source"] == "")]

    def of(column):
        metric, _, target = column.partition(" ")
        targets = [target] if target else ["mean", "sum"]
        rows = table[(table["metric"] == metric) & table["target"].isin(targets)]
        return rows.set_index(["method", "beta", "updates", "seed"])["value"]

    both = of(measure).to_frame("value")
    both["x"] = of("reconstruction") if axis == "reconstruction" else both.index.get_level_values("beta")
    groups = both.dropna().groupby(["method", "beta", "updates"])
    found = groups["value"].agg(["mean", "std", "count"]).assign(x=groups["x"].mean())
    return found[["mean", "std", "x", "count"]].to_numpy().tolist()


def same(shown: list, wanted: list) -> bool:
    def ordered(points):
        points = np.array([[np.nan if value is None else value for value in point] for point in points], dtype=float)
        return points[np.lexsort((points[:, 0], points[:, 2].round(6)))]  # equal errors, whatever their last bit
    return len(shown) == len(wanted) and np.allclose(ordered(shown), ordered(wanted), rtol=1e-6, atol=1e-9,
                                                     equal_nan=True)


@pytest.mark.parametrize("page", [HTML.as_uri() + "/"], indirect=True, ids=["disk"])
def test_it_works_from_the_disk(page):
    assert same(page.evaluate(POINTS), expected("polymnist", "laptop", "probe", "beta"))


def test_means_are_those_of_the_rows(page):
    draw = random.Random(0)
    seen = set()
    while len(seen) < SETTINGS:
        setting = []
        for key in ("file", "profile", "measure", "axis"):  # what can be chosen depends on what was chosen before
            value = draw.choice(page.evaluate(OPTIONS, f"explorer-{key}"))
            page.select_option(f"#explorer-{key}", value)
            setting.append(value)
        if tuple(setting[:2]) in SEVERAL or tuple(setting) in seen:
            continue
        seen.add(tuple(setting))
        shown = page.evaluate(POINTS)
        assert shown and same(shown, expected(*setting)), setting
        lines = page.locator("#explorer .explorer-table").first.locator("tbody tr").count()
        assert lines == len(shown), setting


def test_the_comparison_notices_a_wrong_mean(page):
    wanted = expected("polymnist", "laptop", "probe", "beta")
    assert same(page.evaluate(POINTS), wanted)
    assert not same(page.evaluate(POINTS), [[wanted[0][0] + 1e-4, *wanted[0][1:]], *wanted[1:]])


def test_the_mouse_takes_a_method_away_and_back(page):
    drawn = page.locator('#explorer g[data-method="mmvm"]')
    label = page.locator("#explorer .explorer-method label").get_by_text("MMVM", exact=True)
    rows = page.locator("#explorer details tbody tr")
    before = rows.count()
    assert drawn.count() == 1
    label.click()
    assert drawn.count() == 0 and rows.count() < before
    label.click()
    assert drawn.count() == 1 and rows.count() == before


def test_the_keyboard_reaches_and_works_every_control(page):
    before = page.evaluate(POINTS)
    page.focus("#explorer-file")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(POINTS) != before
    reached = []
    for _ in range(4):
        reached.append(page.evaluate("() => document.activeElement.id"))
        page.keyboard.press("Tab")
    assert reached == ["explorer-file", "explorer-profile", "explorer-measure", "explorer-axis"]
    first = page.evaluate("() => document.activeElement.value")
    drawn = page.locator(f'#explorer g[data-method="{first}"]')
    assert drawn.count() == 1
    page.keyboard.press("Space")
    assert drawn.count() == 0
    assert page.evaluate("() => document.activeElement.value") == first, "the focus stays where it was"


def test_the_rows_behind_a_plot_have_their_run(page):
    page.locator("#explorer summary").click()
    heads = page.locator("#explorer details th[scope=col]").all_inner_texts()
    assert heads == ["method", "beta", "seed", "probe", "date", "commit", "training, s"]
    written = read("polymnist")
    written = written[(written["profile"] == "laptop") & (written["metric"] == "probe") & (written["target"] == "mean")]
    cells = page.locator("#explorer details tbody tr").first.locator("td").all_inner_texts()
    own = written[(written["method"] == "mmvm") & (written["beta"] == float(cells[0]))
                  & (written["seed"] == int(cells[1]))]
    assert len(own) == 1 and cells[3:5] == own[["date", "commit"]].iloc[0].tolist()
    assert page.locator("#explorer details tbody tr").count() == len(written)


def test_in_print_and_without_javascript_a_picture_stands_in(page, browser, address):
    still = "#fig-explorer-still"
    assert not page.locator(still).is_visible() and page.locator("#explorer").is_visible()
    page.emulate_media(media="print")
    assert page.locator(still).is_visible() and not page.locator("#explorer").is_visible()
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(address + PAGE)
    assert plain.locator(still).is_visible() and plain.locator("noscript p").is_visible()
    context.close()
