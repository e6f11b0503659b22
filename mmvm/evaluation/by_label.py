"""Probes of several labels: one classifier per label, from the posterior means of one view or of several.

Encodings are computed once, in eval mode, and every probe is fitted to the same. Features may be NaN, of a view that is
absent, and so may labels, that are not known: such a training sample is no part of the label's probe, and of a test
sample without features the answer is NaN.

Letters: M modalities, N samples, D latent, F features of a probe, C labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmvm.checks import check_split
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import check_binary_labels, encode_means, labels_of, some_of
from mmvm.evaluation.probe import logistic_regression
from mmvm.model import MultimodalVAE

__all__ = ["Encodings", "encode", "logistic"]


@dataclass(frozen=True)
class Encodings:
    """Posterior means (M, N, D), NaN where a modality is absent, and labels (N, C), NaN where one is not known, of
    training and test samples.

    >>> several = MultimodalData({"a": a, "b": b}, specs, torch.stack([labels, 1 - labels], 1))
    >>> x, y, x_test = mmvm.evaluation.by_label.encode(model, several, several).of(0, 1)  # both side by side
    >>> x.shape, y.shape
    ((60, 4), (60, 2))
    """

    z: np.ndarray
    labels: np.ndarray
    z_test: np.ndarray
    labels_test: np.ndarray

    def of(self, *modalities: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (N, F), labels (N, C) and test features (N', F): the means of `modalities` side by side. A sample
        that lacks one of them has NaN among its features."""
        return (np.concatenate([self.z[m] for m in modalities], 1), self.labels,
                np.concatenate([self.z_test[m] for m in modalities], 1))


def encode(model: MultimodalVAE, train: MultimodalData, test: MultimodalData, n: int | None = None,
           seed: int = 0) -> Encodings:
    """`Encodings` of `n` random training samples (None: all), and of all test samples. Raises `UserError` where labels
    are not (N, C) zeros and ones.

    >>> several = MultimodalData({"a": a, "b": b}, specs, torch.stack([labels, 1 - labels], 1))
    >>> mmvm.evaluation.by_label.encode(model, several, several, n=40).z.shape
    (2, 40, 2)
    """
    check_binary_labels(train, test)
    check_split(train, test)
    train = some_of(train, n, seed)
    z, z_test = encode_means(model, train).numpy(), encode_means(model, test).numpy()
    return Encodings(z, labels_of(train).cpu().float().numpy(), z_test, labels_of(test).cpu().float().numpy())


def logistic(x: np.ndarray, labels: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Logits (N', C) of a logistic regression per label on standardised features (scikit-learn's, C = 1). NaN for a
    label that all of the training samples have, or none.

    >>> logits = mmvm.evaluation.by_label.logistic(a.numpy(), labels[:, None].numpy(), a.numpy())
    >>> ((logits[:, 0] > 0) == labels.numpy()).mean() > 0.9
    np.True_
    """
    return each_label(lambda x, y: logistic_regression(x, y, max_iter=1_000).decision_function, x, labels, x_test)


def each_label(fitted: Callable, x: np.ndarray, labels: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """What `fitted(x, y)`, a function of test features, says of each label, (N', C)."""
    from threadpoolctl import threadpool_limits

    if x.ndim != 2 or labels.shape != (len(x), labels.shape[-1]) or x_test.shape[1:] != x.shape[1:]:
        raise UserError(f"features {x.shape} and {x_test.shape} and labels {labels.shape}: give (N, F), (N', F) and "
                        "(N, C)")
    answers = np.full((len(x_test), labels.shape[1]), np.nan)
    there, there_test = (~np.isnan(features).any(1) for features in (x, x_test))
    with threadpool_limits(1):
        for c, y in enumerate(labels.T):
            known = there & ~np.isnan(y)
            if there_test.any() and 0 < y[known].sum() < known.sum():
                answers[there_test, c] = fitted(x[known], y[known].astype(int))(x_test[there_test])
    return answers
