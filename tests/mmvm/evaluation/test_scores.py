"""Ranking scores of several labels: those of scikit-learn, ties and unknown labels included."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from mmvm.evaluation import multilabel


@given(seed=st.integers(0, 10_000), n=st.integers(2, 60), levels=st.integers(1, 60))
def test_scores_are_those_of_scikit_learn(seed, n, levels):
    random = np.random.default_rng(seed)
    scores, labels = random.integers(0, levels, n) / 7, random.integers(0, 2, n)
    labels[:2] = 0, 1
    assert multilabel.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = average_precision_score(labels, scores)
    assert multilabel.average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_unknown_labels_and_answers_do_not_count():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 3)), random.integers(0, 2, (50, 3)).astype(float)
    labels[::3, 1], logits[::4, 2], labels[:, 0] = np.nan, np.nan, 1
    found = multilabel.scores(logits, labels)
    for name, reference in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        assert np.isnan(found[name][0])  # all have it
        for c in (1, 2):
            known = ~np.isnan(logits[:, c] + labels[:, c])
            y, values = labels[known, c], logits[known, c]
            assert found[name][c] == pytest.approx(reference(y, values), abs=1e-12)
            assert found[f"{name}_hard"][c] == pytest.approx(reference(y, values > 0), abs=1e-12)
            assert found["accuracy"][c] == np.mean((values > 0) == y)


def test_a_constant_answer_ranks_nothing_where_all_samples_are_alike():
    """As the scores that it stands beside, so that means are over the same labels."""
    labels = np.array([[0, 1, 0], [0, 1, 1], [0, 1, 0], [0, 1, 1]])
    found = multilabel.base_rates(labels)
    np.testing.assert_array_equal(found["average_precision"], [np.nan, np.nan, 0.5])
    np.testing.assert_array_equal(found["accuracy"], [1, 1, 0.5])
    of_scores = multilabel.scores(np.zeros((4, 3)), labels)["average_precision"]
    np.testing.assert_array_equal(np.isnan(of_scores), np.isnan(found["average_precision"]))
