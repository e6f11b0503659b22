"""The page `ablations`: settings and hashes, effects and intervals, what rows become, the gate's first step."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from mmvm import DiagonalGaussian
from studies.pages import ablations, ablations_figures as figures
from workflow import lists

ALL = [setting for question in ablations.QUESTIONS.values() for setting in question.settings]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def rows_of(setting, seed, probe=0.8, coherence=0.6, error=0.1, nats=9.0, most=None):
    """Rows of one run, as a study writes them; `error` in shares of the grey levels."""
    p = setting.parameters(seed)
    clean = "_clean" * (p.corrupted != "none")
    total = (error / p.likelihood_scale + math.log(2 * p.likelihood_scale)) * p.n_modalities * 3 * 28 * 28
    values = {(f"probe{clean}", "mean"): probe, (f"coherence{clean}", "cross"): coherence,
              ("reconstruction", "sum"): total,
              **{("latent_information", target): nats - less for target, less in (("mean", 0), ("m0", 1), ("m1", -1))}}
    if clean:
        values |= {("probe", "mean"): 0.11, ("coherence", "cross"): 0.12}
    if most is not None:
        values |= {("gate_margin", "mean"): 3.0}
        for m, share in (("m0", (1 - most) / 2), ("m1", most), ("m2", (1 - most) / 2)):
            values |= {("gate_first", m): share, ("gate_weight", m): 0.9 * share}
        if clean:
            values |= {("gate_first_lies", "mean"): most / 2}
    return [{"profile": "ablations", "run": p.run_hash(), "metric": metric, "source": "", "target": target,
             "value": value} for (metric, target), value in values.items()]


@pytest.fixture(scope="module")
def table():
    """Every setting with three seeds, scores that fall with its place in the list."""
    rows, seen = [], set()
    for i, setting in enumerate(ALL):
        if (setting.words, setting.beta) in seen:
            continue
        seen.add((setting.words, setting.beta))
        gate = 0.5 + 0.005 * i if any("gate" in word for word in setting.words) else None
        for seed in ablations.SEEDS:
            rows += rows_of(setting, seed, 0.9 - 0.005 * i + 0.002 * seed, 0.7 - 0.006 * i, 0.08, 9 - 0.1 * i, gate)
    return ablations.measured(pd.DataFrame(rows))


def test_settings_are_the_runs_of_the_list():
    named = {run.parameters.run_hash() for run in lists.read("workflow/lists/ablations.yaml").values()}
    assert named == set(ablations.run_hashes(ALL))


def test_what_is_asked_of_translated_digits_are_the_runs_of_its_list_and_known_settings():
    named = {run.parameters.run_hash() for run in lists.read("workflow/lists/ablations-translated.yaml").values()}
    asked = {one.parameters(0, ablations.TRANSLATED).run_hash() for one in ablations.ON_TRANSLATED.settings}
    assert named == asked <= set(ablations.run_hashes(ALL, ablations.TRANSLATED))
    assert ablations.same(ablations.ON_TRANSLATED.settings[0], ablations.STANDARD)


def test_the_table_of_translated_digits_has_the_settings_that_have_rows(table):
    base, other = ablations.ON_TRANSLATED.settings[:2]
    some = pd.concat([ablations.of(table, one).reset_index() for one in (base, other)])
    shown = ablations.translated_table(some)
    assert shown[""].tolist() == [base.name, other.name]
    assert shown["cross coherence"].tolist()[0] == f"{ablations.of(table, base)['coherence'].mean():.2f}"


def test_every_question_compares_with_its_first_setting():
    for key, question in ablations.QUESTIONS.items():
        names = [setting.name for setting in question.settings]
        assert len(set(names)) == len(names) and 3 <= len(names) <= 16, key
        if key.startswith("corrupted"):
            assert names[0] == "equal weights"
        elif key != "provoked":
            assert sum(ablations.same(setting, ablations.STANDARD) for setting in question.settings) == 1
            assert question.axis or ablations.same(question.settings[0], ablations.STANDARD)
        if question.axis:
            x = [setting.x for setting in question.settings]
            assert x == sorted(x) and np.isfinite(x).all()


def test_errors_are_grey_levels_whatever_the_likelihood_and_the_number_of_modalities():
    chosen = [ablations.STANDARD, *ablations.QUESTIONS["likelihood_scale"].settings,
              *ablations.QUESTIONS["n_modalities"].settings]
    found = ablations.measured(pd.DataFrame([row for one in chosen if one is ablations.STANDARD or one.words !=
                                             ablations.STANDARD.words for row in rows_of(one, 0, error=0.1)]))
    np.testing.assert_allclose(found["error"], 25.5, rtol=1e-9)


def test_of_corrupted_tuples_the_honest_pictures_count():
    one = ablations.QUESTIONS["corrupted-swap"].settings[0]
    found = ablations.measured(pd.DataFrame(rows_of(one, 0, probe=0.7, coherence=0.4)))
    assert found[["probe", "coherence"]].to_numpy().tolist() == [[0.7, 0.4]]


def test_rows_of_other_profiles_and_unknown_runs_are_left_out():
    rows = pd.DataFrame(rows_of(ablations.STANDARD, 0))
    assert ablations.measured(rows.assign(profile="laptop")).empty
    assert ablations.measured(rows.assign(run="0123456789")).empty


def test_an_effect_is_the_mean_of_paired_differences():
    rows = []
    for seed, (plain, other) in enumerate([(0.5, 0.6), (0.7, 0.82), (0.3, 0.38)]):
        rows += rows_of(ablations.STANDARD, seed, probe=plain, nats=9.0)
        rows += rows_of(ALL[1], seed, probe=other, nats=9 + [1, 2, 3][seed])
    found = ablations.measured(pd.DataFrame(rows))
    mean, low, high = ablations.effect(found, ALL[1], "probe")
    assert mean == pytest.approx(0.1) and 0.03 < low < 0.06 and high == pytest.approx(2 * mean - low)
    # 2 +- t(0.975, 2) / sqrt(3)
    assert ablations.effect(found, ALL[1], "nats") == pytest.approx((2, 2 - 2.484, 2 + 2.484), abs=1e-3)
    assert ablations.effect(found, ALL[1], "error") == (pytest.approx(0, abs=1e-9),) * 3


def test_intervals_cover_what_they_should():
    """Three seeds of two settings whose true scores differ by 0.05: seeds vary, test tuples are few and common."""
    rng, n, hit = np.random.default_rng(0), ablations.base().n_test, 0
    for _ in range(400):
        tuples = rng.normal(0, [np.sqrt(0.21 / n), np.sqrt(0.24 / n)])
        scores = np.array([0.7, 0.65]) + tuples + rng.normal(0, 0.01, (3, 2))
        table = pd.DataFrame([{"words": one.words, "beta": one.beta, "seed": seed, "probe": scores[seed, i]}
                              for seed in range(3) for i, one in enumerate((ALL[1], ablations.STANDARD))])
        _, low, high = ablations.effect(table, ALL[1], "probe")
        hit += low < 0.05 < high
    assert 0.93 < hit / 400 < 0.995


def test_the_interval_of_one_seed_is_that_of_the_test_tuples_and_else_unknown():
    table = ablations.measured(pd.DataFrame(rows_of(ablations.STANDARD, 0, probe=0.5) + rows_of(ALL[1], 0, probe=0.5)))
    mean, low, high = ablations.effect(table, ALL[1], "probe")
    half = 1.96 * math.sqrt(2 * 0.25 / ablations.base().n_test)
    assert mean == 0 and low == pytest.approx(-half) and high == pytest.approx(half)
    mean, low, high = ablations.effect(table, ALL[1], "error")
    assert mean == 0 and math.isnan(low) and math.isnan(high)


def test_only_seeds_that_all_settings_have_are_compared():
    rows = [row for seed in (0, 1) for row in rows_of(ablations.STANDARD, seed)] + rows_of(ALL[1], 0)
    found = ablations.measured(pd.DataFrame(rows))
    assert len(found) == 3 and ablations.complete(found)["seed"].tolist() == [0, 0]
    rows += rows_of(ALL[1], 1)
    assert len(ablations.complete(ablations.measured(pd.DataFrame(rows)))) == 4


def test_what_a_gate_uses_is_its_weight_and_of_a_hard_one_its_first_places():
    soft, hard = (ablations.named("gates", f"{kind} gate") for kind in ("soft", "hard"))
    found = ablations.measured(pd.DataFrame(rows_of(soft, 0, most=0.8) + rows_of(hard, 0, most=0.8)))
    assert ablations.of(found, soft)["used"].tolist() == pytest.approx([0.72])
    assert ablations.of(found, hard)["used"].tolist() == [0.8]
    assert set(found["chosen"]) == {"m1"} and found["least"].tolist() == [8.0, 8.0]


def test_runs_that_lost_a_modality_are_named_and_counted():
    one = ablations.named("latent_dim", "16")
    rows = [row for seed, nats in enumerate((1.01, 9.0)) for row in rows_of(one, seed, nats=nats)]
    found = ablations.measured(pd.DataFrame(rows))
    assert ablations.lost_modalities(found, "latent_dim") == "16 (1 of 2)"
    assert ablations.lost_modalities(found, "size") == "none"


def test_missing_pictures_are_counted_as_the_study_leaves_them_out():
    from studies.polymnist.study import observed_at_random
    for setting in ablations.QUESTIONS["missing"].settings:
        away = float(setting.name)
        missing = 1 - observed_at_random((3, 40_000), away, 0).double().mean() if away else 0.0
        assert float(missing) == pytest.approx(setting.x, abs=0.005)


def test_coherence_among_the_first_modalities():
    setting = ablations.named("n_modalities", "4")
    run = setting.parameters().run_hash()
    rows = pd.DataFrame([{"run": run, "metric": "coherence", "source": f"m{a}", "target": f"m{b}", "value": value}
                         for a, b, value in ((0, 1, 0.4), (1, 0, 0.6), (0, 3, 0.0), (0, 0, 1.0))])
    assert ablations.coherence_among(rows, setting, 3) == 0.5


def test_an_effect_without_a_common_seed_is_unknown():
    rows = rows_of(ablations.STANDARD, 0) + rows_of(ALL[1], 1)
    assert np.isnan(ablations.effect(ablations.measured(pd.DataFrame(rows)), ALL[1], "probe")).all()


def test_the_largest_effects_come_first_and_each_once(table):
    found = ablations.largest(table, 20)
    assert len(found) == 20 and found["coherence"].abs().is_monotonic_decreasing
    assert "provoked" not in set(found["question"]) and not found.duplicated(["coherence", "probe"]).any()
    lies = found[found["question"].str.startswith("corrupted")]
    assert (lies["name"] != "equal weights").all(), "that is what the others are compared with"
    shown = ablations.table_of_largest(table, 5)
    assert len(shown) == 5 and shown["cross coherence"].str.fullmatch(r"[+−]0\.\d\d \(−?0\.\d\d to −?0\.\d\d\)").all()


def test_how_often_gates_follow_the_liar(table):
    found = ablations.following(table)
    assert found.shape == (4, 3) and found.notna().all().all() and "hard gate on features" in found.index
    own = ablations.of(table, ablations.named("corrupted-swap", "hard gate"))
    assert found.loc["hard gate", "swap"] == pytest.approx((own["used"] / 2).mean())


def test_failures_are_caught_where_a_number_passes_its_threshold(table):
    healthy = ablations.failures(table.assign(least=9.0, margin=3.0, used=0.5))
    assert not healthy["caught"].any() and len(healthy) == len(ablations.QUESTIONS["provoked"].settings)
    lost = table["beta"] == ablations.LOST_BETA
    found = ablations.failures(table.assign(least=np.where(lost, 0.01, 9.0), used=0.995,
                                            margin=np.where(table["seed"] == 1, 80.0, 3.0)))
    assert found["caught"].tolist() == [3, 0, 3, 1] and (found["runs"] == 3).all()
    shown = ablations.failures_table(table.assign(margin=np.where(table["seed"] == 1, 80.0, 3.0)))
    assert shown["caught"].str.fullmatch(r"\d of 3").all() and shown["reads"].iloc[-1] == "3 to 80"


def test_ticks_stand_apart_and_are_written_with_two_digits(table):
    figure = figures.over(table, ablations.QUESTIONS["missing"])
    places = [tick for tick in figure.axes[0].get_xticks()]
    assert len(places) > 2 and min(np.diff(places)) >= 0.29 * (max(places) - min(places))
    assert all(len(text.get_text()) <= 4 for text in figure.axes[0].get_xticklabels())
    plt.close("all")


def test_figures_are_drawn_also_of_few_rows(table):
    few = table[(table["words"] == ablations.STANDARD.words) & (table["seed"] == 0)]
    for some in (table, few):
        for question in ablations.QUESTIONS.values():
            (figures.over if question.axis else figures.effects)(some, question)
            plt.close("all")
        figures.who_finds_the_liar(some)
        figures.signatures(some)
        figures.twice(some, few)
        figures.overview(some)
        labels = [text.get_text() for text in plt.gcf().axes[0].get_yticklabels()]
        assert len(set(labels)) == len(labels) == len(ablations.QUESTIONS)


def test_the_gate_of_a_pairwise_bound_leaves_the_expert_that_is_far_from_the_others():
    mean = torch.zeros(3, 4, 2)
    mean[2] = 5.0
    found = ablations.pull(DiagonalGaussian(mean, torch.zeros_like(mean)), "pairwise")
    assert (found[2] > 0).all() and (found[:2] < 0).all()
    torch.testing.assert_close(found.sum(0), torch.zeros(4), atol=1e-4, rtol=0)


def test_it_prefers_the_expert_that_says_nothing():
    logvar = torch.full((3, 4, 2), -2.0)
    logvar[2] = 0.0
    found = ablations.pull(DiagonalGaussian(torch.arange(3.0).view(3, 1, 1).expand(3, 4, 2), logvar), "pairwise")
    assert (found[2] < found[0]).all()


def test_under_the_exact_divergence_experts_that_are_far_apart_hold_a_gate_at_equal_weights():
    mean = 20.0 * torch.arange(3.0).view(3, 1, 1).expand(3, 4, 2)
    apart = DiagonalGaussian(mean, torch.zeros(3, 4, 2))
    torch.testing.assert_close(ablations.pull(apart, "monte_carlo"), torch.zeros(3, 4), atol=1e-4, rtol=0)
    scores = torch.tensor([1.0, 0.0, 0.0]).view(3, 1).expand(3, 4).clone().requires_grad_()
    log_weights = scores.log_softmax(0)
    found = ablations.mixture_kl("monte_carlo", apart, mean, log_weights).sum(0)
    torch.testing.assert_close(found, -log_weights.sum(0))
    back = torch.autograd.grad(found.sum(), scores)[0]
    torch.testing.assert_close(back, (3 * log_weights.exp() - 1).detach(), atol=1e-4, rtol=0)


def test_which_would_be_first():
    pulled = pd.DataFrame({"kind": "swap", "bound": "pairwise", "lies": [True, False, False, True],
                           "nats": [2.0, 1.0, 1.0, 0.0]})
    assert ablations.first_by_loss(pulled, 2).loc["swap", "pairwise"] == 0.5


def test_a_lone_gate_is_asked_which_picture_it_puts_first(monkeypatch):
    data = ablations.honest_tuples("test", 6)
    which = ablations.liars(data, 0)
    given = torch.nn.functional.one_hot(which, 3).t().double()
    monkeypatch.setattr(ablations, "lone_gate", lambda model, train, test, kind, seed: {
        "noise": given, "swap": -given, "blank": given * (torch.arange(6) < 3)}[kind])
    found = ablations.first_by_gate(None, None, data)
    assert found["noise"] == 1 and found["swap"] == 0 and found["blank"] >= 0.5


def test_what_the_loss_asks_is_told_and_drawn_for_every_kind_of_lie(monkeypatch):
    monkeypatch.setattr(ablations, "encoded", lambda model, data, kind, seed: DiagonalGaussian(
        torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(seed)), torch.zeros(3, 6, 2)))
    found = ablations.pulls(None, ablations.honest_tuples("test", 6))
    assert len(found) == 3 * 2 * 18 and found["lies"].sum() == 36 and found["nats"].notna().all()
    figures.pulls(found)
    figures.pulls(found.assign(nats=0.0))  # nothing is asked


def test_a_gate_that_learns_alone_gives_the_cheapest_expert_all_weight(monkeypatch):
    far = torch.zeros(3, 300, 4)
    far[2] = 4.0
    monkeypatch.setattr(ablations, "encoded", lambda *_: DiagonalGaussian(far, torch.zeros_like(far)))
    weights = ablations.lone_gate(None, None, None, "swap", updates=200)
    assert weights.shape == (3, 300) and (weights[2] < 0.05).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(300))


def test_one_picture_of_each_tuple_lies_and_the_same_in_all_kinds():
    data = ablations.honest_tuples("test", 12)
    which = ablations.liars(data, 0)
    for kind in ablations.CORRUPTIONS:
        changed = ablations.corrupt(data, kind, 0)
        for m, name in enumerate(data.names):
            same = (changed.modalities[name] == data.modalities[name]).flatten(1).all(1)
            assert (same | (which == m)).all()
