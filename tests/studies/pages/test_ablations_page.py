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
              ("reconstruction", "sum"): total, ("latent_information", "mean"): nats}
    if clean:
        values |= {("probe", "mean"): 0.11, ("coherence", "cross"): 0.12}
    if most is not None:
        values |= {("gate_most_used", "mean"): most, ("gate_margin", "mean"): 3.0}
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


def test_every_question_compares_with_its_first_setting():
    for key, question in ablations.QUESTIONS.items():
        names = [setting.name for setting in question.settings]
        assert len(set(names)) == len(names) and 3 <= len(names) <= 13, key
        if key.startswith("corrupted"):
            assert names[0] == "equal weights"
        elif key != "provoked":
            assert sum(setting.words == ablations.STANDARD.words for setting in question.settings) == 1
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


def test_an_effect_is_paired_and_its_interval_covers_it():
    rows = []
    for seed, (plain, other) in enumerate([(0.5, 0.6), (0.7, 0.82), (0.3, 0.38)]):
        rows += rows_of(ablations.STANDARD, seed, probe=plain) + rows_of(ALL[1], seed, probe=other)
    found = ablations.measured(pd.DataFrame(rows))
    mean, low, high = ablations.effect(found, ALL[1], "probe")
    assert mean == pytest.approx(0.1) and 0.06 < low < mean < high < 0.14
    nothing = ablations.effect(found, ALL[1], "error")
    assert nothing == (pytest.approx(0, abs=1e-9),) * 3


def test_the_interval_of_one_seed_is_that_of_the_test_tuples():
    rows = rows_of(ablations.STANDARD, 0, probe=0.5) + rows_of(ALL[1], 0, probe=0.5)
    mean, low, high = ablations.effect(ablations.measured(pd.DataFrame(rows)), ALL[1], "probe")
    sd = math.sqrt(2 * 0.25 / ablations.base().n_test)
    assert mean == 0 and low == pytest.approx(-1.96 * sd, rel=0.1) and high == pytest.approx(1.96 * sd, rel=0.1)


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
    assert found.loc["hard gate", "swap"] == pytest.approx((own["most used"] / 2).mean())


def test_failures_are_caught_where_a_diagnostic_passes_its_threshold(table):
    healthy = ablations.failures(table.assign(nats=9.0, margin=3.0, **{"most used": 0.5}))
    assert not healthy["caught"].any() and len(healthy) == len(ablations.QUESTIONS["provoked"].settings)
    lost = table["beta"] == ablations.LOST_BETA
    found = ablations.failures(table.assign(nats=np.where(lost, 0.1, 9.0), margin=80.0, **{"most used": 0.995}))
    assert found["caught"].tolist() == [True, False, True, True]
    assert ablations.failures_table(table)["caught"].isin(["yes", "no"]).all()


def test_figures_are_drawn_also_of_few_rows(table):
    few = table[(table["words"] == ablations.STANDARD.words) & (table["seed"] == 0)]
    for some in (table, few):
        for question in ablations.QUESTIONS.values():
            (figures.over if question.axis else figures.effects)(some, question)
            plt.close("all")
        figures.who_finds_the_liar(some)
        figures.signatures(some)
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


def test_under_the_exact_divergence_experts_that_are_far_apart_give_it_no_gradient():
    mean = 20.0 * torch.arange(3.0).view(3, 1, 1).expand(3, 4, 2)
    found = ablations.pull(DiagonalGaussian(mean, torch.zeros(3, 4, 2)), "monte_carlo")
    torch.testing.assert_close(found, torch.zeros(3, 4), atol=1e-4, rtol=0)


def test_who_loses_weight_fastest():
    pulled = pd.DataFrame({"kind": "swap", "bound": "pairwise", "lies": [True, False, False, True],
                           "nats": [2.0, 1.0, 1.0, 0.0]})
    assert ablations.found_by_pull(pulled, 2).loc["swap", "pairwise"] == 0.5


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
