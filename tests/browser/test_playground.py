"""The playgrounds answer to mouse and keyboard, their numbers are those of the package, and a still picture stands in
for them in print and without JavaScript."""

import random

import pytest
import torch
from visits import HTML, open_page

from mmvm import DiagonalGaussian
from mmvm.objectives import Pool, mixture_kl_pairwise, mixture_kl_variational

SETTINGS = 10
GRID = torch.linspace(-30, 30, 6_001, dtype=torch.float64)  # of smooth densities with widths of 0.45 and more
NUMBERS = """() => Object.fromEntries([...document.querySelectorAll(".gs-number")].map(
    place => [place.dataset.name, Number(place.dataset.value)]))"""
SET = """settings => {
    for (const [name, value] of Object.entries(settings)) {
        const input = document.querySelector(`input[data-name="${name}"]`);
        input.value = value;
        input.dispatchEvent(new Event("input", {bubbles: true}));
    }
    return Object.fromEntries([...document.querySelectorAll("input[type=range]")].map(
        input => [input.dataset.name, Number(input.value)]));
}"""


@pytest.fixture(scope="module")
def method(browser, address):
    visit = open_page(browser, address, "book/method.html")
    yield visit.page
    assert not visit.messages
    visit.page.context.close()


@pytest.fixture(scope="module")
def intro(browser, address):
    visit = open_page(browser, address, "book/intro.html")
    yield visit.page
    assert not visit.messages
    visit.page.context.close()


def gaussians(means, sds) -> DiagonalGaussian:
    mean, sd = (torch.as_tensor(values, dtype=torch.float64).reshape(3, 1, 1) for values in (means, sds))
    return DiagonalGaussian(mean, 2 * sd.log())


def kl(q: DiagonalGaussian, log_p: torch.Tensor) -> torch.Tensor:
    """KL(q_m || p) of three Gaussians (3, 1, 1), log p on the grid: (3,) nats."""
    log_q = q.log_prob(GRID[:, None, None, None])[..., 0]
    return torch.trapezoid(log_q.exp() * (log_q - log_p[:, None]), GRID, dim=0)


def expected(means, sds) -> dict[str, float]:
    q, z = gaussians(means, sds), GRID[:, None, None]
    log_weights = torch.full((3, 1), 1 / 3, dtype=torch.float64).log()
    to_mixture = kl(q, q.mixture_log_prob(z, log_weights)[:, 0])
    R = to_mixture.sum()
    h = q.mixture_log_prob(z, log_weights)[:, 0].exp()
    entropies = q.logvar.flatten() / 2 + torch.log(torch.tensor(2 * torch.pi * torch.e, dtype=torch.float64)) / 2
    js = -torch.trapezoid(torch.xlogy(h, h), GRID) - entropies.mean()
    to_hellinger = kl(q, Pool(q, log_weights, 0.5).log_prob(z)[:, 0])
    found = {"R": R, "js": js, "pairwise": mixture_kl_pairwise(q, log_weights).sum(),
             "variational": mixture_kl_variational(q, log_weights).sum(), "cost-mixture": R,
             "cost-hellinger": to_hellinger.sum(), "cost-product": q.kl(q.product()).sum(),
             "cost-standard": q.kl_standard_normal().sum(), **{f"kl-{m}": to_mixture[m] for m in range(3)}}
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("seed", range(SETTINGS))
def test_the_numbers_are_those_of_the_package(method, seed):
    draw = random.Random(seed)
    asked = {f"{name}-{m}": draw.uniform(*limits) for m in range(3)
             for name, limits in (("mean", (-5, 5)), ("sd", (0.45, 2)))}
    used = method.evaluate(SET, asked)
    assert all(abs(used[name] - value) < 0.05 for name, value in asked.items())
    wanted = expected([used[f"mean-{m}"] for m in range(3)], [used[f"sd-{m}"] for m in range(3)])
    shown = method.evaluate(NUMBERS)
    assert {name: shown[name] for name in wanted} == pytest.approx(wanted, rel=0, abs=1e-6)


def test_the_three_presets_are_what_they_say(method):
    def R(name):
        method.get_by_role("button", name=name, exact=True).click()
        return method.evaluate(NUMBERS)["R"]
    assert abs(R("agree")) < 1e-9
    assert 0.5 < R("two against one") < 3.2 < R("far apart") < 3 * torch.log(torch.tensor(3.0))


def test_a_gaussian_is_dragged_and_widened_by_mouse(method):
    method.get_by_role("button", name="two against one").click()
    box = method.locator(".gs-handle.gs-q2").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = method.evaluate(SET, {})
    method.mouse.move(x, y)
    method.mouse.down()
    method.mouse.move(x - 60, y + 40, steps=4)
    method.mouse.up()
    after = method.evaluate(SET, {})
    assert after["mean-2"] < before["mean-2"] - 0.5 and after["sd-2"] > before["sd-2"] + 0.1
    assert {name: after[name] for name in after if name[-1] != "2"} == {
        name: before[name] for name in before if name[-1] != "2"}


def test_a_gaussian_is_moved_by_keyboard(method):
    method.get_by_role("button", name="far apart").click()
    before, R = method.evaluate(SET, {}), method.evaluate(NUMBERS)["R"]
    method.get_by_label("mean of q₁").focus()
    for _ in range(40):
        method.keyboard.press("ArrowRight")
    assert method.evaluate(SET, {})["mean-0"] == pytest.approx(before["mean-0"] + 2)
    assert method.evaluate(NUMBERS)["R"] < R
    method.get_by_label("Hellinger pool").focus()
    method.keyboard.press("Space")
    assert method.locator("svg[role=img] path.gs-hellinger").is_visible()


@pytest.mark.parametrize("prior", ["mmvm", "independent", "joint"])
def test_the_toy_comes_to_rest_where_its_gradient_is_zero(intro, prior):
    """Of sum_m KL(q_m || target_m) + beta times the prior's term; a joint posterior is one for all."""
    targets = gaussians([-0.7, 1.2, 2.75], [0.6, 0.45, 0.7])
    intro.locator(f"input[value={prior}]").check()
    intro.evaluate(SET, {"beta": 60})
    beta = 2 ** ((60 - 50) / 12.5)
    stage = intro.locator(".gaussians svg")
    means, sds = ([float(value) for value in stage.get_attribute(name).split()] for name in ("data-means", "data-sds"))
    q = gaussians(means, sds)
    mean, logvar = q.mean.clone().requires_grad_(), q.logvar.clone().requires_grad_()
    q = DiagonalGaussian(mean, logvar)
    if prior == "mmvm":
        log_weights = torch.full((3, 1), 1 / 3, dtype=torch.float64).log()
        cost = kl(q, q.mixture_log_prob(GRID[:, None, None], log_weights)[:, 0]).sum()
    else:
        cost = q.kl_standard_normal().sum() / (3 if prior == "joint" else 1)
    slopes = torch.autograd.grad(q.kl(targets).sum() + beta * cost, (mean, logvar))
    if prior == "joint":
        assert max(means) - min(means) < 1e-3 and max(sds) - min(sds) < 1e-3
        slopes = [slope.mean(0) for slope in slopes]
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-3
    assert intro.evaluate(NUMBERS)["cost"] == pytest.approx(float(cost.detach()), abs=1e-4)


def test_beta_is_turned_by_keyboard(intro):
    intro.locator("input[value=mmvm]").check()
    intro.evaluate(SET, {"beta": 30})
    before = intro.evaluate(NUMBERS)["cost"]
    intro.get_by_label("β", exact=True).focus()
    for _ in range(20):
        intro.keyboard.press("ArrowRight")
    assert intro.evaluate(SET, {})["beta"] == 50
    assert intro.evaluate(NUMBERS)["cost"] < 0.9 * before


def test_beta_is_played_and_stopped(browser, address):
    """With motion: it plays when it is first seen, and the button stops it."""
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.goto(address + "book/intro.html")
    page.get_by_role("button", name="Stop").click()
    held = page.evaluate(SET, {})["beta"]
    assert 0 <= held < 66
    page.wait_for_timeout(300)
    assert page.evaluate(SET, {})["beta"] == held
    context.close()


def test_a_still_picture_stands_in_for_it(browser, intro):
    assert not intro.locator("#fig-idea img").is_visible() and intro.locator(".gaussians svg").is_visible()
    intro.emulate_media(media="print")
    assert intro.locator("#fig-idea img").is_visible() and not intro.locator(".gaussians svg").is_visible()
    intro.emulate_media(media="screen")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(HTML.as_uri() + "/book/intro.html")
    assert page.locator("#fig-idea img").is_visible()
    context.close()


def test_the_landing_page_is_light(browser, address):
    context = browser.new_context(viewport={"width": 1250, "height": 900})
    page, sizes = context.new_page(), {}
    page.on("response", lambda answer: sizes.setdefault(answer.url, len(answer.body())))
    page.goto(address + "book/intro.html", wait_until="networkidle")
    heaviest = sorted(sizes.items(), key=lambda pair: -pair[1])[:5]
    assert len(sizes) > 10 and sum(sizes.values()) < 1_500_000, heaviest
    context.close()
