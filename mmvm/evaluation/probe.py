"""The linear probe: what a logistic regression reads off the latents (paper, section 5.1)."""

import numpy as np
import torch

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import check_labels, observed_rows
from mmvm.model import MultimodalVAE


def linear_probe(model: MultimodalVAE, train: MultimodalData, test: MultimodalData, n: int | None = 10_000,
                 standardise: bool = True, seed: int = 0) -> np.ndarray:
    """Accuracy of a logistic regression from each modality's posterior mean to the class, (M,) in [0, 1].

    As in the paper (B.2.1): scikit-learn's, C = 1, fitted to `n` random training encodings (10,000; None: all),
    tested on the whole test set, one probe per modality. Unlike the paper the means are standardised first: with
    alpha = 0 nothing fixes the scale of the latents, and on unscaled ones the solver stops before it converges.
    `standardise=False` is the paper's. Modalities are probed on the samples in which they are observed. Raises
    `UserError` where these are none, or all of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    check_labels(train, test)
    if n is not None and n < len(train):
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:n]
        train = train.subset(index)
    accuracies = []
    with threadpool_limits(1):  # products this small are ten times slower when two BLAS threads wait for each other
        for name, x, y, x_test, y_test in zip(train.names, *observed_rows(model, train), *observed_rows(model, test)):
            if len(set(y)) < 2 or not len(y_test):
                raise UserError(f"the probe of {name} has training samples of {len(set(y))} classes and {len(y_test)} "
                                "test samples, it needs at least two classes and one sample: give more data")
            steps = [StandardScaler()] if standardise else []
            probe = make_pipeline(*steps, LogisticRegression(max_iter=10_000)).fit(x, y)
            accuracies.append(probe.score(x_test, y_test))
    return np.array(accuracies)
