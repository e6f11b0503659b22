"""The probe of the paper's clinical experiments: a random forest per label."""

from collections.abc import Callable

import numpy as np

from mmvm.evaluation.by_label import each_label


def forest(x: np.ndarray, labels: np.ndarray, x_test: np.ndarray, *, trees: int = 5_000, depth: int = 30,
           seed: int = 0, n_jobs: int = 1) -> np.ndarray:
    """Probabilities (N', C) of a random forest per label (Breiman 2001; scikit-learn's), the probe of the paper's
    clinical experiments: 5,000 trees of depth 30 at most, entropy, nodes of five samples or more are split, a leaf may
    hold one, the square root of the features is tried at each split, bootstrap samples. The released code has five
    trees by default and no seed. NaN for a label that all of the training samples have, or none.

    `n_jobs`: processor cores, -1 for all; the result is the same but for rounding.
    """
    from sklearn.ensemble import RandomForestClassifier

    def fitted(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        grown = RandomForestClassifier(trees, criterion="entropy", max_depth=depth, min_samples_split=5,
                                       min_samples_leaf=1, max_features="sqrt", bootstrap=True, random_state=seed,
                                       n_jobs=n_jobs).fit(x, y)
        return lambda x_test: grown.predict_proba(x_test)[:, 1]
    return each_label(fitted, x, labels, x_test)
