"""Probes of several labels, some of them not known, label efficiency, and calibration."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SEED
from torch import nn

from mmvm.errors import UserError
from mmvm.evaluation import by_label, multilabel
from studies.mimic_cxr import calibration
from studies.mimic_cxr.efficiency import label_efficiency
from studies.mimic_cxr.forest import forest

# several labels, some of them not known ------------------------------------------------------------------------------

def test_scores_leave_out_what_is_not_known():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 3)), random.integers(0, 2, (50, 3)).astype(float)
    holes = labels.copy()
    holes[30:, 0] = np.nan
    holes[:, 2] = np.nan
    found, full = multilabel.scores(logits, holes), multilabel.scores(logits, labels)
    for name in multilabel.METRICS:
        assert found[name][0] == multilabel.scores(logits[:30], labels[:30])[name][0]
        assert found[name][1] == full[name][1] and np.isnan(found[name][2])
    logits[40:, 1] = np.nan
    assert multilabel.scores(logits, labels)["auroc"][1] == multilabel.scores(logits[:40], labels[:40])["auroc"][1]
    assert multilabel.base_rates(holes)["average_precision"][0] == labels[:30, 0].mean()


def test_the_loss_leaves_out_what_is_not_known():
    logits = torch.randn(6, 3, requires_grad=True)
    labels = torch.randint(2, (6, 3)).float()
    expected = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1).mean()
    assert torch.equal(multilabel.label_loss(logits, labels), expected)
    labels[:2] = torch.nan
    multilabel.label_loss(logits, labels).backward()
    assert (logits.grad[:2] == 0).all() and (logits.grad[2:] != 0).all()


def encodings(n: int = 300, d: int = 4, seed: int = 0) -> by_label.Encodings:
    """Two views of the same latents; label c is the sign of latent c, with noise."""
    random = np.random.default_rng(SEED + seed)
    latent = random.normal(size=(2 * n, d)).astype(np.float32)
    z = np.stack([latent + random.normal(size=latent.shape).astype(np.float32) for _ in range(2)])
    labels = (latent[:, :3] > 0.3).astype(np.float32)
    return by_label.Encodings(z[:, :n], labels[:n], z[:, n:], labels[n:])


@pytest.mark.parametrize("probe", [by_label.logistic, lambda *of: forest(*of, trees=40)])
def test_probes_learn_every_label_and_both_views_know_more(probe):
    found = encodings()
    one, both = (multilabel.scores(probe(*found.of(*views)) - 0.5, found.labels_test)["auroc"]
                 for views in ((0,), (0, 1)))
    # measured .76 to .83 and .05 to .09 over 3 seeds
    assert one.min() > 0.65 and both.mean() - one.mean() > 0.02


@pytest.mark.parametrize("probe", [by_label.logistic, lambda *of: forest(*of, trees=5)])
def test_probes_and_holes(probe):
    found = encodings()
    x, y, x_test = found.of(0)
    holes, y_holes, x_test = x.copy(), y.copy(), x_test.copy()
    holes[:50], y_holes[50:80, 0], y_holes[:, 1], y_holes[:, 2] = np.nan, np.nan, 1, np.nan
    x_test[7] = np.nan
    answers = probe(holes, y_holes, x_test)
    assert np.isnan(answers[:, 1:]).all() and np.isnan(answers[7, 0])
    assert np.array_equal(np.delete(answers[:, 0], 7), np.delete(probe(x[80:], y[80:], found.z_test[0])[:, 0], 7))


def test_a_forest_is_the_papers_and_seeded(monkeypatch):
    import sklearn.ensemble

    asked, kind = [], sklearn.ensemble.RandomForestClassifier

    def grown(*words, **settings):
        asked.append((words, settings))
        return kind(*words, **settings)
    monkeypatch.setattr(sklearn.ensemble, "RandomForestClassifier", grown)
    found = encodings(60).of(0)
    first = forest(*found, trees=7, seed=3)
    assert np.array_equal(first, forest(*found, trees=7, seed=3))
    assert not np.array_equal(first, forest(*found, trees=7, seed=4))
    assert asked[0] == ((7,), dict(criterion="entropy", max_depth=30, min_samples_split=5, min_samples_leaf=1,
                                   max_features="sqrt", bootstrap=True, random_state=3, n_jobs=1))
    assert (first >= 0).all() and (first <= 1).all()


def test_label_efficiency_rises_and_ends_at_the_probe():
    found = encodings(400)
    curve = label_efficiency(found, [10, 100, 400])
    assert curve.shape == (3, 2) and (curve[1] - curve[0]).min() > 0 and (curve[2] - curve[1]).min() > -0.01
    whole = multilabel.scores(by_label.logistic(*found.of(1)), found.labels_test)["auroc"].mean()
    assert curve[2, 1] == pytest.approx(whole)
    rare = replace(found, labels=np.c_[found.labels, np.arange(400) == 399].astype(float),
                   labels_test=np.c_[found.labels_test, found.labels_test[:, 0]])
    assert label_efficiency(rare, [10])[0, 0] == pytest.approx((3 * curve[0, 0] + 0.5) / 4)
    with pytest.raises(UserError, match="401 training samples asked for, modality 0 has 400"):
        label_efficiency(found, [401])


# calibration ---------------------------------------------------------------------------------------------------------

def test_the_reliability_curve_by_hand():
    p, y = np.array([0.05, 0.15, 0.15, 0.95, 1.0, np.nan, 0.5]), np.array([0, 1, 0, 1, 1, 1, np.nan])
    curve = calibration.reliability(p, y, 10)
    assert curve.count.tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert curve.confidence[[0, 1, 9]] == pytest.approx([0.05, 0.15, 0.975]) and np.isnan(curve.frequency[2])
    assert curve.frequency[[0, 1, 9]].tolist() == [0, 0.5, 1]
    assert curve.error == pytest.approx((0.05 + 2 * 0.35 + 2 * 0.025) / 5)
    assert calibration.brier_scores(p[:, None], y[:, None]) == pytest.approx(
        [(0.05**2 + 0.85**2 + 0.15**2 + 0.05**2) / 5])


def test_right_probabilities_are_calibrated_and_confident_ones_are_not():
    random = np.random.default_rng(SEED)
    p = random.random((20_000, 2))
    y = (random.random(p.shape) < p).astype(float)
    sure = np.clip(0.5 + 2 * (p - 0.5), 0, 1)
    # measured up to .012, .122 to .127, and up to .008 over 3 seeds
    assert calibration.calibration_errors(p, y).max() < 0.03 and calibration.calibration_errors(sure, y).min() > 0.08
    assert (calibration.brier_scores(p, y) < calibration.brier_scores(sure, y)).all()
    assert calibration.reliability(p, y).error < 0.02, "labels are pooled"


def test_calibration_of_nothing_is_no_number():
    nothing = np.full((4, 1), np.nan)
    assert np.isnan(calibration.calibration_errors(nothing, np.ones((4, 1)))).all()
    assert np.isnan(calibration.brier_scores(nothing, np.ones((4, 1)))).all()


@pytest.mark.parametrize("p, y, bins, words", [
    ([0.5, 1.2], [0, 1], 10, "probabilities must lie in"), ([0.5], [0, 1], 10, "give both in the same shape"),
    ([0.5], [1], 0, "bins must be at least 1")])
def test_impossible_probabilities(p, y, bins, words):
    with pytest.raises(UserError, match=words):
        calibration.reliability(np.array(p), np.array(y), bins)
