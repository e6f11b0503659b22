"""The page `information`: lines from rows, scores worked out by hand, estimates where the answer is known."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from mmvm import Modality, MultimodalData, Normal
from mmvm.study import results
from studies.pages import information, information_figures as figures

M, H = 3, math.log(10)
NAMES = [f"m{m}" for m in range(M)]


def rows_of(method="mmvm", beta=1.0, seed=0, own_error=1000.0, scale=1.0, **values):
    """Rows of one run: of single modalities `value` + m, of pairs the same everywhere."""
    single = {"information": 9.0, "information_upper": 30.0, "aggregate_kl": 5.0, "probe": 0.5}
    single |= {f"factor_{name}_{kind}": 0.2 * (i + 1) / 2 for i, name in enumerate(information.FACTORS)
               for kind in information.PROBES} | values
    found = [(metric, "", name, value + scale * m / 10) for metric, value in single.items()
             for m, name in enumerate(NAMES)]
    found += [(metric, "", "mean", value + scale / 10) for metric, value in single.items()]
    pairs = {"information_shared": 1.5, "information_private": 7.5}
    found += [(metric, a, b, value) for metric, value in pairs.items() for a in NAMES for b in NAMES if a != b]
    found += [(metric, "", "cross", value) for metric, value in pairs.items()]
    found += [("imputation", "", "self", own_error), ("imputation", "", "cross", 1300.0),
              ("total_correlation", "", "mean", 3.0)]
    notes = {"information": "ceiling=9.21", "information_shared": "ceiling=8.52"}
    return pd.DataFrame([{"experiment": "polymnist", "method": method, "beta": beta, "seed": seed, "profile": "laptop",
                          "metric": metric, "source": source, "target": target, "value": value,
                          "note": notes.get(metric, ""), "run": f"{method}{beta}{seed}"}
                         for metric, source, target, value in found])


def test_a_ceiling_is_found_beside_the_settings_in_a_note():
    table = rows_of()
    table["note"] = "information=True; " + table["note"]
    assert information.ceilings(table, "information") == 9.21
    assert information.ceilings(table, "information_shared") == 8.52


def table_of(*methods, betas=(1.0,), seeds=(0,), **given):
    return pd.concat([rows_of(method, beta, seed, **given) for method in methods for beta in betas for seed in seeds],
                     ignore_index=True)


# lines from rows

def test_a_line_is_the_mean_over_seeds_and_the_order_is_the_books():
    table = pd.concat([table_of("independent", information.EXACT, "mmvm", betas=(1.0, 0.0625)),
                       rows_of("mmvm", seed=1, own_error=1100.0)])
    board = information.board(table, {}, H)
    assert list(zip(board["method"], board["beta"])) == [
        (method, beta) for method in ("mmvm", information.EXACT, "independent") for beta in (0.0625, 1.0)]
    assert board["seeds"].tolist() == [1, 2, 1, 1, 1, 1]
    assert board["own error"].tolist()[:2] == [1000.0, 1050.0]
    assert not board.drop(columns=["method", "private sd", "shared sd"]).isna().any().any()
    assert board["private sd"].notna().tolist() == board["shared sd"].notna().tolist() == [False, True, *[False] * 4]


def test_the_deviation_is_over_seeds_not_over_modalities():
    table = pd.concat([rows_of("mmvm"), rows_of("mmvm", seed=1, **{f"factor_{name}_nonlinear": 0.5
                                                                 for name in information.PRIVATE})])
    board = information.board(table, {}, H)
    by_seed = information.private_by_modality(table, {}).groupby("seed").mean()
    assert by_seed[1] > by_seed[0] + 0.01
    assert board["private sd"].tolist() == pytest.approx([abs(by_seed[1] - by_seed[0]) / 2**0.5])
    claims = information.table_of_claim(board, information.private_by_modality(table, {}))
    assert claims["private read"].tolist() == [f"{board['private'][0]:.2f} ± {board['private sd'][0]:.2f}"]


def test_private_nats_lie_between_what_the_data_share_and_what_is_told():
    line = information.board(rows_of(), {}, H).iloc[0]
    assert line["low"] == pytest.approx(9.1) and line["most"] == pytest.approx(9.1 + 5.1), "mean KL is the smaller here"
    assert line["rest least"] == pytest.approx(9.1 - H) and line["rest most"] == pytest.approx(14.2 - 1.5)
    other = information.board(rows_of(information=1.0, information_upper=1.1, aggregate_kl=90.0), {}, H).iloc[0]
    assert other["most"] == pytest.approx(1.2) and other["rest least"] == 0


def test_the_smaller_upper_estimate_is_chosen_for_each_modality():
    table = rows_of(scale=0.0)
    high = (table["metric"] == "information_upper") & (table["target"] == "m1")
    table.loc[high, "value"] = 10.0
    assert information.from_above(table).tolist() == [14.0, 10.0, 14.0]


def test_what_the_digit_tells_does_not_count_as_private():
    scores = pd.DataFrame({f"{name} nonlinear": [0.3, 0.65, 1.0, 0.1] for name in information.PRIVATE})
    found = information.beyond_digit(scores, dict.fromkeys(information.PRIVATE, 0.3))
    np.testing.assert_allclose(found, [0, 0.5, 1, 0])
    found = information.beyond_digit(scores, {"ink": 0.3})
    np.testing.assert_allclose(found, [0.9 / 4, (0.5 + 3 * 0.65) / 4, 1, 0.3 / 4])


def test_private_by_modality_averages_to_the_line():
    table = rows_of()
    table.loc[(table["metric"] == "factor_crop_x_nonlinear") & (table["target"] == "m0"), "value"] = -0.5
    single = information.private_by_modality(table, {})
    assert len(single) == M
    assert single.mean() == pytest.approx(information.board(table, {}, H)["private"].iloc[0])
    scores = table[(table["target"] == "m0") & table["metric"].str.startswith("factor_") & table["metric"].str.endswith(
        "_nonlinear") & ~table["metric"].str.contains("digit")].set_index("metric")["value"]
    assert single.xs("m0", level="target").iloc[0] == pytest.approx(scores.clip(lower=0).mean())


def test_ceilings_and_pairs():
    table = table_of("mmvm", "poe")
    assert information.ceilings(table, "information") == 9.21
    assert information.ceilings(table, "information_shared") == 8.52
    table.loc[(table["metric"] == "information_shared") & (table["source"] == "m0") & (table["method"] == "poe"),
              "value"] = 0.25
    assert information.pairs(table).loc["poe", 1.0].tolist() == [0.25, 1.5]


# factors

def test_a_run_is_lost_that_guesses_the_digit_where_another_reads_it():
    rows = [rows_of(seed=seed, factor_digit_nonlinear=0.9, scale=0.0) for seed in (0, 1)]
    rows.append(rows_of("poe", factor_digit_nonlinear=0.2, scale=0.0))  # all of its runs do: nothing is lost
    table = pd.concat(rows, ignore_index=True)
    digit = (table["metric"] == "factor_digit_nonlinear") & (table["target"] == "m1") & (table["method"] == "mmvm")
    table.loc[digit & (table["seed"] == 1), "value"] = 0.1
    assert information.lost(table).to_numpy().tolist() == [["mmvm", 1, "m1", 0.1]]


def test_more_seeds_are_runs_that_the_table_lacks():
    more = pd.concat([rows_of(seed=0, probe=0.9), rows_of(seed=1), rows_of("poe", seed=0)])
    found = information.with_more_seeds(rows_of(seed=0), more)
    assert sorted(set(zip(found["method"], found["seed"]))) == [("mmvm", 0), ("mmvm", 1), ("poe", 0)]
    assert len(found) == 3 * len(rows_of()) and found["value"].ne(0.9).all()


def test_what_a_digit_tells():
    rng = np.random.default_rng(0)
    sets = []
    for _ in range(2):
        digit = rng.integers(0, 10, 20_000)
        own = rng.normal(size=(2, len(digit)))
        sets.append({"digit": digit, "ink": np.stack([digit, 3 * digit + 1]), "crop_x": own, "crop_y": 5 + own,
                     "slant": own + digit / np.sqrt(99 / 12)})
    found = information.told_by_digit(*sets)
    assert found["ink"] == pytest.approx(1) and found["slant"] == pytest.approx(0.5, abs=0.02)
    assert abs(found["crop_x"]) < 0.005 and abs(found["crop_y"]) < 0.005


def test_the_entropy_of_classes():
    assert information.entropy(np.arange(10).repeat(7)) == pytest.approx(H)
    assert information.entropy(np.array([0, 0, 3, 3])) == pytest.approx(math.log(2))
    assert information.entropy(np.zeros(5, int)) == 0


# where the answer is known

@pytest.mark.parametrize("known", (2, 12))
def test_a_channel_holds_what_it_is_said_to(known):
    found = information.of_rate(known, 400, seed=0)
    assert found.low < known + 0.15 and found.most > known - 0.15 and found.ceiling == pytest.approx(math.log(400))
    assert found.low <= found.ceiling


def test_two_gaussians_have_in_common_what_they_are_said_to():
    shared, correlation = information.of_gaussians(1.0, 1000, seed=0, width=2)
    assert shared.low == pytest.approx(1.0, abs=0.1) and correlation.low == pytest.approx(1.0, abs=0.1)


def test_classes_far_apart_share_all_and_close_ones_nothing():
    shared, correlation = information.of_classes(20.0, 600, seed=0)
    assert shared.known == pytest.approx(H, abs=1e-3) and 0.85 * H < shared.low < H + 0.02
    assert correlation.low > 2 * H, "what the page warns of"
    assert information.of_classes(0.01, 600, seed=0)[0].known == pytest.approx(0, abs=1e-3)


def test_the_check_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    information.of_rate(2, 200, seed=0)
    assert torch.equal(state, torch.get_rng_state())


# one model

def kept(**values):
    """Rows as `mmvm.evaluation.kept` has them, of one run of `rows_of`."""
    table = rows_of(**values)
    return {metric: list(part[["source", "target", "value"]].itertuples(index=False, name=None))
            for metric, part in table.groupby("metric")}


def test_a_line_a_modality():
    found = information.by_modality(kept())
    assert list(found.index) == NAMES
    assert found["low"].tolist() == pytest.approx([9.0, 9.1, 9.2])
    assert found["most"].tolist() == pytest.approx([14.0, 14.2, 14.4]), "mean KL"
    assert found["told"].tolist() == [[1.5, 1.5]] * M
    assert found["slant linear"].tolist() == found["slant nonlinear"].tolist() == pytest.approx([0.3, 0.4, 0.5])


def data_of(n, seed):
    """Pictures of which 40 of 48 pixels are noise and the others, brighter, show the digit and an own factor."""
    digit = torch.arange(n) % 10
    own, noise = information.normal(2, n, seed=seed), information.normal(2, n, 48, seed=seed + 1)
    noise[..., :4] = 20 * torch.nn.functional.one_hot(digit, 10)[:, :4].float()
    noise[..., 4:8] = 30 * own.unsqueeze(-1)
    specs = tuple(Modality(f"m{m}", (3, 4, 4), Normal()) for m in range(2))
    data = MultimodalData({s.name: x.view(n, 3, 4, 4) for s, x in zip(specs, noise)}, specs, digit)
    return data, {"digit": digit.numpy(), **{name: own.numpy() for name in information.PRIVATE}}


def test_draws_tell_less_than_means():
    """Channels whose noise drowns one latent and leaves the other."""
    digit = np.arange(600) % 10
    z = torch.nn.functional.one_hot(torch.from_numpy(digit), 10).float()
    found = {}
    for var in (1e-4, 4.0):
        model, data = information.channels(z, z, var=var)
        factors = {name: (digit, digit) for name in information.FACTORS}
        found[var] = information.of_draws(model, data, data, factors)["digit linear"]
        assert information.of_draws(model, data, data, factors)["digit linear"].equals(found[var])
    assert (found[1e-4] > 0.99).all() and (found[4.0] < 0.6).all()


def test_components_of_pixels_keep_what_varies_most():
    (train, given), (test, asked) = data_of(500, 0), data_of(300, 5)
    factors = {name: (given[name], asked[name]) for name in given}
    found = information.of_pixels(train, test, factors, width=8)
    assert found["ink linear"].min() > 0.95
    assert 0.3 < found["digit nonlinear"].min() and found["digit nonlinear"].max() < 0.7, "four of ten digits differ"
    assert list(found.index) == ["m0", "m1"]


def test_the_figure_of_one_model_has_all_modalities():
    values = information.by_modality(kept())
    figure = figures.one_model(values, values, {"digit": 0.1}, H)
    figure.canvas.draw()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == NAMES
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == NAMES
    plt.close("all")


# tables and figures, of whatever runs there are

@pytest.mark.parametrize("betas", [(1.0,), (0.0625, 1.0), (0.0625, 1.0, 16.0)], ids=len)
@pytest.mark.parametrize("methods", [("mmvm",), ("mmvm", information.EXACT, "independent", "poe", "mvtcae")], ids=len)
def test_tables_and_figures_take_any_runs(methods, betas):
    table = table_of(*methods, betas=betas)
    board = information.board(table, {}, H)
    n = len(methods) * len(betas)
    assert len(information.table_of_factors(board)) == len(information.table_of_nats(board)) == n
    claims = information.table_of_claim(board, information.private_by_modality(table, {}))
    assert set(claims["of independent"]) == ({"100 %"} if "independent" in methods else {""})
    drawn = [figures.kept_and_shared(board), figures.factors(board, {"digit": 0.1}, information.by_modality(kept())),
             figures.nats(board, information.pairs(table), 9.21, H), figures.rate_against_error(board)]
    for figure in drawn:
        figure.canvas.draw()
    assert [text.get_text() for text in drawn[1].axes[0].get_yticklabels()] == [
        information.NAMES[method] for method in information.NAMES if method in methods]
    plt.close("all")


def test_a_line_may_lack_a_beta_that_others_have():
    table = pd.concat([table_of("mmvm", "poe", betas=(0.0625, 1.0)), rows_of("moe")])
    board = information.board(table, {}, H)
    places = figures.lines_of(board, plt.subplots(1, 2)[1])
    heights = [y for y, _ in places]
    assert len(places) == 5 and heights == sorted(heights, reverse=True) and len(set(heights)) == 5
    plt.close("all")


def test_an_error_beyond_the_axis_is_named_and_not_drawn():
    table = pd.concat([table_of("mmvm", "independent", "moe"), rows_of("poe", own_error=1e6)])
    ax = figures.rate_against_error(information.board(table, {}, H)).axes[1]
    assert ax.get_ylim()[1] < 1e5
    assert "PoE: above the axis" in [text.get_text() for text in ax.texts]
    plt.close("all")


def test_axes_are_for_betas_up_to_one():
    table = pd.concat([table_of("mmvm", "poe", "moe", betas=(0.0625, 1.0)),
                       *(rows_of(method, beta=16.0, own_error=1200.0, **{f"factor_{name}_nonlinear": -0.4 for name in (
                           "ink", "slant", "crop_y")}) for method in ("mmvm", "poe")), rows_of("moe", beta=16.0)])
    board = information.board(table, {}, H)
    low, high = figures.around(board, "private")
    inside = board["private"].between(low, high)
    assert list(inside) == list((board["beta"] <= 1) | (board["method"] == "moe"))
    ax = figures.rate_against_error(board).axes[1]
    assert [text.get_text() for text in ax.texts] == ["$\\beta$ > 1: above, but MoE"]
    plt.close("all")


def test_names_colours_and_markers_are_all_different():
    methods = ["mmvm", information.EXACT, "independent", "poe", "moe", "mopoe", "mmvaeplus", "mvtcae"]
    for of in (information.NAMES, information.COLOURS, information.MARKERS):
        assert len({of[method] for method in methods}) == len(methods)


# what is committed

def test_committed_runs_are_those_of_the_chapter_polymnist_with_more_measured():
    """Another evaluation of the same training: the probe of the same latents, up to another machine's rounding."""
    def probes(name):
        table = results.read(name)
        table = table[(table["metric"] == "probe") & (table["target"] == "mean") & (table["profile"] == "laptop")]
        return table.set_index(["method", "beta", "seed"])["value"]
    shared = pd.concat([probes("information"), probes("polymnist")], axis=1, keys=["here", "there"]).dropna()
    assert len(shared) >= 5
    assert (shared["here"] - shared["there"]).abs().max() < 0.1


def test_of_translated_digits_the_place_is_drawn():
    places = {f"factor_{name}_{kind}": 0.7 for name in ("y", "x") for kind in information.PROBES}
    board = information.board(table_of("mmvm", "independent", **places), {}, H)
    pixels = pd.DataFrame({f"{name} nonlinear": [0.5] for name in information.MOVING})
    figure = figures.factors(board, {"digit": 0.1}, pixels, information.MOVING)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["digit", "place, down", "place, across", "ink", "slant"]
    assert board["y nonlinear"].tolist() == pytest.approx([0.8, 0.8])
    plt.close("all")
