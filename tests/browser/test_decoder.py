"""The live decoder in a browser: it draws what PyTorch draws of the same weights and z, by mouse and by keyboard."""

import random

import numpy as np
import pytest
import torch
from visits import HTML, open_page

from mmvm import pretrained
from studies.pages import decoder

PAGE = "book/polymnist.html"
SETTINGS = 10
SLIDER = "[data-decoder] input[type=range]"
DRAWN = "() => document.querySelector('[data-decoder]').pixels.map(picture => [...picture])"
PAINTED = """m => {
    const {width, height} = document.querySelector("[data-decoder] canvas");
    const copy = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
    copy.drawImage(document.querySelectorAll("[data-decoder] canvas")[m + 1], 0, 0);
    return [...copy.getImageData(0, 0, width, height).data];
}"""
SET = """async ([place, from, to, source]) => {
    for (const id of [`dc-from-${from}`, `dc-to-${to}`, `dc-source-${source}`]) document.getElementById(id).click();
    const slider = document.querySelector("[data-decoder] input[type=range]");
    slider.value = place;
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


@pytest.fixture(scope="module")
def page(browser, address):
    visit = open_page(browser, address, PAGE)
    yield visit.page
    assert not visit.messages + visit.missing
    visit.page.context.close()


@pytest.fixture(scope="module")
def model():
    """The model that ships, in 64 bits, and the posterior means (M, 10, D) of the test digits."""
    model = pretrained(decoder.MODEL)
    return model, decoder.means(model, decoder.digits())


def expected(model, place: int, first: int, last: int, source: int) -> np.ndarray:
    """What each decoder makes of z, (M, 3 x 28 x 28)."""
    model, means = model
    z = means[source, first] + place / 1000 * (means[source, last] - means[source, first])
    with torch.no_grad():
        return torch.stack([network(z[None]).flatten() for network in model.decoders]).numpy()


@pytest.mark.parametrize("seed", range(SETTINGS))
def test_the_pictures_are_those_of_pytorch(page, model, seed):
    draw = random.Random(seed)
    setting = draw.randrange(1001), draw.randrange(10), draw.randrange(10), draw.randrange(3)
    page.evaluate(SET, setting)
    wanted = expected(model, *setting)
    assert np.std(wanted) > 0.05
    np.testing.assert_allclose(np.array(page.evaluate(DRAWN)), wanted, rtol=1e-6, atol=1e-9)
    for m, picture in enumerate(wanted):
        painted = np.array(page.evaluate(PAINTED, m)).reshape(-1, 4)[:, :3].T.ravel()
        assert np.abs(painted - 255 * picture.clip(0, 1)).max() < 0.51


def test_the_comparison_notices_another_z(page, model):
    page.evaluate(SET, (0, 3, 8, 0))
    drawn = np.array(page.evaluate(DRAWN))
    assert np.abs(drawn - expected(model, 0, 3, 8, 0)).max() < 1e-6 < 1e-3 < np.abs(
        drawn - expected(model, 100, 3, 8, 0)).max()


def test_the_keyboard_moves_z_and_chooses(page):
    page.evaluate(SET, (500, 3, 8, 0))
    before = page.evaluate(DRAWN)
    page.focus(SLIDER)
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => document.querySelector('{SLIDER}').getAttribute('aria-valuetext') "
                           "=== '52 percent of the way from three to eight'")
    assert page.evaluate(DRAWN) != before
    page.focus("#dc-from-3")
    page.keyboard.press("ArrowRight")
    assert page.locator("#dc-from-4").is_checked()
    assert page.locator(SLIDER).get_attribute("aria-valuetext") == "52 percent of the way from four to eight"


def test_it_plays_and_stops(page):
    page.evaluate(SET, (0, 3, 8, 0))
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"() => document.querySelector('{SLIDER}').value > 50")
    page.get_by_role("button", name="Stop").click()
    held = page.locator(SLIDER).input_value()
    page.wait_for_timeout(200)
    assert page.locator(SLIDER).input_value() == held


def test_it_runs_from_the_disk_and_its_model_is_on_its_page_alone(browser, address):
    visit = open_page(browser, HTML.as_uri() + "/", PAGE)
    assert visit.page.locator("[data-decoder] canvas").count() == 5 and not visit.messages
    visit.page.context.close()
    assert [path.stem for path in sorted((HTML / "book").glob("*.html"))
            if "decoder-model.js" in path.read_text(encoding="utf-8")] == ["polymnist"]


def test_in_print_and_without_javascript_a_picture_stands_in(page, browser, address):
    still = "#decoder-still img"
    assert not page.locator(still).is_visible() and page.locator("[data-decoder] canvas").first.is_visible()
    page.emulate_media(media="print")
    assert page.locator(still).is_visible() and not page.locator("[data-decoder] canvas").first.is_visible()
    page.emulate_media(media="screen")
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(address + PAGE)
    assert plain.locator(still).is_visible()
    context.close()
