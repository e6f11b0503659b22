"""How many labels a probe needs."""

from collections.abc import Sequence

import numpy as np

from mmvm.errors import UserError
from mmvm.evaluation import by_label
from mmvm.evaluation.multilabel import scores


def label_efficiency(encodings: by_label.Encodings, sizes: Sequence[int], seed: int = 0,
                     repeats: int = 3) -> np.ndarray:
    """Mean AUROC over labels, (S, M), of the logistic probe of each modality fitted to as many training samples as each
    of `sizes` says, mean over `repeats` random choices of them.

    The labels are those that all of the training encodings and the test set show both ways. Where a choice shows one of
    them in one way only, nothing can be learned of it and it counts 0.5: so every size is a mean over the same labels.
    """
    found = np.full((len(sizes), len(encodings.z)), np.nan)
    for m in range(len(encodings.z)):
        x, y, x_test = encodings.of(m)
        there, there_test = (~np.isnan(features).any(1) for features in (x, x_test))
        x, y, x_test, y_test = x[there], y[there], x_test[there_test], encodings.labels_test[there_test]
        learnable = learnable_labels(encodings, m)
        if not learnable.any():
            continue
        random = np.random.default_rng(seed)
        for s, size in enumerate(sizes):
            if not 0 < size <= len(x):
                raise UserError(f"{size} training samples asked for, modality {m} has {len(x)} encodings: ask for 1 to "
                                f"{len(x)}")
            aurocs = []
            for _ in range(repeats if size < len(x) else 1):
                chosen = random.permutation(len(x))[:size]
                answers = by_label.logistic(x[chosen], y[chosen][:, learnable], x_test)
                aurocs.append(np.nan_to_num(scores(answers, y_test[:, learnable])["auroc"], nan=0.5).mean())
            found[s, m] = np.mean(aurocs)
    return found


def learnable_labels(encodings: by_label.Encodings, m: int) -> np.ndarray:
    """Which labels (C,) the curve of modality m is a mean over."""
    x, y, x_test = encodings.of(m)
    there, there_test = (~np.isnan(features).any(1) for features in (x, x_test))
    return _both_ways(y[there]) & _both_ways(encodings.labels_test[there_test])


def _both_ways(labels: np.ndarray) -> np.ndarray:
    """Which labels (C,) some samples have and some do not, of labels (N, C)."""
    return (labels == 1).any(0) & (labels == 0).any(0)
