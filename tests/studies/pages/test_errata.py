"""The page `errata`: every difference has a number or a reason, and the numbers are what they say."""

import numpy as np
import pytest
import torch

from mmvm.objectives import spec
from mmvm.options import canonical
from mmvm.study import results
from studies.pages import errata, errata_effects


def test_every_difference_is_measured_or_says_why_not():
    for difference in errata.DIFFERENCES:
        assert (difference.effect is None) != (difference.because == ""), difference.name
        assert difference.group in errata.COLOURS and difference.paper and difference.code
        assert difference.option or difference.because, f"{difference.name}: what repeats it?"
    names = [difference.name for difference in errata.DIFFERENCES]
    assert len(set(names)) == len(names) >= 25


CHEAP = ("joint KL counted M times", "self pairs", "hard predictions", "seeds", "rats: in sample", "dropped rows",
         "offsets")
OF_ROWS = [d for d in errata.DIFFERENCES if d.effect and ("trained" in d.effect.__qualname__ or d.name in CHEAP)]


@pytest.mark.parametrize("difference", OF_ROWS, ids=lambda difference: difference.name)
def test_effects_of_rows_and_of_arithmetic_are_numbers(difference):
    for effect in difference.effect(3):
        assert len(effect.changes) and np.isfinite(effect.changes).all()
        assert not effect.score or np.abs(effect.changes).max() <= 1
        assert effect.source in effect.text()


def test_options_with_which_runs_repeat_the_code_exist():
    methods = set(results.read("errata")["method"])
    assert len(methods) >= 13
    for text in methods:
        assert canonical(text, "objective", spec.options_of()) == text


def test_changes_pair_runs_of_one_seed():
    table = results.read("errata")
    probe = table[(table["metric"] == "probe") & (table["target"] == "mean") & (table["beta"] == 0.25)]
    both = probe[probe["seed"] == 0].set_index("method")["value"]
    change = errata_effects.with_option("poe:kl_per_modality=true", "poe", 0.25)[0]
    assert change == pytest.approx(both["poe:kl_per_modality=true"] - both["poe"])
    assert errata_effects.with_option("poe", "poe", 0.25) == (0.0,) * len(probe[probe["method"] == "poe"])


def test_an_interval_is_students_and_one_run_resolves_nothing():
    three = errata_effects.Effect("probe", (0.1, 0.2, 0.3), "")
    assert three.half == pytest.approx(4.3027 * 0.1 / 3 ** 0.5, rel=1e-4) and not three.resolved
    assert errata_effects.Effect("probe", (0.10, 0.11, 0.12), "").resolved
    assert not errata_effects.Effect("probe", (0.9,), "").resolved
    assert "+206 nats" in errata_effects.Effect("own error", (206.0,), "", False, "nats").text()
    assert "-129 ± 247 nats" in errata_effects.Effect("own error", (-29.0, -130.0, -228.0), "", False, "nats").text()
    assert "50 %" in errata_effects.Effect("tuples", (50.0,), "", False, "%", True).text()


def test_rats_in_sample_are_compared_with_the_folds_that_test_each_trial_once():
    table = results.read("hippocampus")
    table = table[(table["method"] == "mmvm") & (table["metric"] == "probe_shared") & (table["target"] == "mean")
                  & (table["beta"] == 1e-4)]
    inside = table[(table["profile"] == "control") & (table["note"] == "in sample")]["value"].mean()
    folds = table[table["profile"] == "laptop"]["value"]
    changes = errata_effects.in_sample(3)[0].changes
    assert len(changes) == len(folds) == 5 and np.mean(changes) == pytest.approx(inside - folds.mean())
    assert np.mean(changes) > 0, "what was trained on is read better"


def test_what_is_trained_for_the_divergence_is_told_by_the_ablations():
    table = results.read("ablations")
    table = table[(table["metric"] == "coherence") & (table["target"] == "cross") & (table["note"] == "the profile")
                  & (table["beta"] == 1) & (table["seed"] == 0)].set_index("method")["value"]
    effects = {effect.what: effect for effect in errata.DIFFERENCES[0].effect(3)}
    assert effects["cross coherence"].changes[0] == pytest.approx(table["mmvm"] - table["mmvm:bound=monte_carlo"])


@pytest.mark.parametrize("name", ["weight of the text", "padding"])
def test_choices_on_birds_are_paired_by_seed(name):
    effects = next(d for d in errata.DIFFERENCES if d.name == name).effect(3)
    assert [effect.what for effect in effects] == ["coherence", "probe"]
    assert all(len(effect.changes) == 3 and "3 seeds" in effect.source for effect in effects)


def test_a_digit_that_fits_is_counted():
    assert errata_effects.digits_that_fit(3)[0].mean == pytest.approx(
        100 * np.mean([down <= 7 and right <= 7 for down in range(21) for right in range(21)]))


@pytest.mark.slow
def test_live_measurements_are_of_one_model_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    found, moving, rows = errata_effects.model(0)
    assert torch.equal(state, torch.get_rng_state())
    train = errata_effects.digits()[0]
    assert moving.shape == (2, len(train), errata_effects.LATENT_DIM)
    for m in range(2):  # each sample once: the last epoch's batches, no more and no less
        assert sorted(rows[m]) == list(range(len(train)))
    still = found.encode(list(train.modalities.values())).mean.detach().numpy()
    own = np.stack([still[m][rows[m]] for m in range(2)])
    assert 0 < np.abs(moving - own).mean() < 0.5 * own.std()  # they moved, and are still those samples'


@pytest.mark.slow
def test_the_narrower_expert_weighs_less_where_deviations_are_read_as_variances():
    assert all(-0.5 < change < 0 for change in errata_effects.log_sigma(2)[0].changes)


def test_tables_and_figure_have_a_line_for_each():
    found = {"offsets": errata_effects.digits_that_fit(3), "self pairs": errata_effects.self_pairs(3)}
    table = errata.table(found, "evaluation")
    assert len(table) == sum(d.group == "evaluation" for d in errata.DIFFERENCES)
    assert "coherence, mmvm" in table.iloc[0, 2] and table.iloc[:, 2].str.contains(errata.NO_RUN).any()
    figure = errata.changes_of_scores(found)
    assert len(figure.axes[0].get_yticklabels()) == 2  # scores alone: two methods' coherence
