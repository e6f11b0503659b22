"""The linear probe: what a logistic regression reads off the latents (paper, section 5.1)."""

from typing import Any

import numpy as np

from mmvm.checks import check_split
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import check_class_labels, means_and_labels, some_of
from mmvm.model import MultimodalVAE


def linear_probe(model: MultimodalVAE, train: MultimodalData, test: MultimodalData, n: int | None = 10_000,
                 standardise: bool = True, seed: int = 0) -> np.ndarray:
    """Accuracy of a logistic regression from each modality's posterior mean to the class, (M,) in [0, 1].

    As in the paper (B.2.1): scikit-learn's, C = 1, fitted to `n` random training encodings (10,000; None: all),
    tested on the whole test set, one probe per modality. Unlike the paper the means are standardised first: with
    alpha = 0 nothing fixes the scale of the latents, and on unscaled ones the solver stops before it converges.
    `standardise=False` is the paper's. Modalities are probed on the samples in which they are observed. Raises
    `UserError` where these are none, or all of one class; a `ValueWarning` where `test` has samples of `train`.

    >>> mmvm.evaluation.linear_probe(model, data, data).shape
    (2,)
    """
    from threadpoolctl import threadpool_limits

    check_class_labels(train, test)
    check_split(train, test)
    train, accuracies = some_of(train, n, seed), []
    with threadpool_limits(1):  # products this small are ten times slower when two BLAS threads wait for each other
        for name, x, y, x_test, y_test in zip(train.names, *means_and_labels(model, train),
                                              *means_and_labels(model, test)):
            if len(set(y)) < 2 or not len(y_test):
                raise UserError(f"the probe of {name} has training samples of {len(set(y))} classes and {len(y_test)} "
                                "test samples, it needs at least two classes and one sample: give more data")
            accuracies.append(logistic_regression(x, y, standardise).score(x_test, y_test))
    return np.array(accuracies)


def logistic_regression(x: np.ndarray, y: np.ndarray, standardise: bool = True, max_iter: int = 10_000) -> Any:
    """scikit-learn's, C = 1, fitted to features (N, F), standardised or as they are, and classes (N,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(*[StandardScaler()] * standardise, LogisticRegression(max_iter=max_iter)).fit(x, y)
