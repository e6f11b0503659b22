"""Whether joint draws vary in what a picture may do on its own: strokes, background, place."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from mmvm.data import MultimodalData
from mmvm.evaluation.encodings import evaluating, labels_of, some_rows
from mmvm.model import MultimodalVAE
from studies.polymnist.frechet import features_of

POOL = 4            # pixels of a side that are averaged, beside the classifier's features
HIDDEN = 64         # units of the network that reads a factor
READABLE = 0.2      # R^2 on test pictures from which on a factor's spread means something


@torch.no_grad()
def factor_spread(model: MultimodalVAE, density: Any, train: MultimodalData, test: MultimodalData,
                  factors: Mapping[str, tuple[np.ndarray, np.ndarray]], classifiers: Sequence[nn.Module],
                  n: int = 1_000, n_train: int = 10_000, seed: int = 0) -> dict[str, np.ndarray]:
    """Of n joint draws from a `density` (None: the method's own p(z)), and of each of the `factors`, name -> values of
    the training and of the test pictures, (M, N) each:

    readable_<name>      (M,), R^2 on test pictures of a network that reads it off a picture, fitted to `n_train` others
    joint_spread_<name>  (M,), standard deviation within a class of what that network reads off the draws over that of
                         test pictures: 1 where draws vary as the data do, 0 where those of a class are alike; means
                         little where the factor is not `READABLE`

    NaN where a factor has one value in a modality's training or test pictures: there is nothing to read.

    The class of a draw is the one that its classifier sees.

    >>> found = factor_spread(model, None, train, test, {"ink": (ink, ink_test)}, classifiers)  # doctest: +SKIP
    """
    rows, names = some_rows(len(train), n_train, seed), list(factors)
    with evaluating(model, seed) as device:
        drawn = [spec.standardised(x) for spec, x in zip(test.specs, model.generate(n, density).values())]
        pictures = [[spec.prepare(x[index].to(device)) for spec, x in zip(data.specs, data.modalities.values())]
                    for data, index in ((train, rows), (test, slice(None)))]
    found = {f"{what}_{name}": np.full(len(drawn), np.nan) for name in names for what in ("readable", "joint_spread")}
    for m, (net, draws) in enumerate(zip(classifiers, drawn)):
        own, own_test = (np.stack([factors[name][part][m] for name in names], 1) for part in (0, 1))
        read = _reader(_seen(net, pictures[0][m]), own[rows.numpy()], seed)
        told, of_draws = (read(_seen(net, images)) for images in (pictures[1][m], draws))
        differs = (own[rows.numpy()].std(0) > 0) & (own_test.std(0) > 0)
        theirs = np.where(differs, _within(told, labels_of(test).cpu().numpy()), np.nan)
        r2 = 1 - np.square(told - own_test).mean(0) / np.where(differs, own_test.var(0), np.nan)
        spread = _within(of_draws, net(draws.float()).argmax(-1).cpu().numpy()) / theirs
        for i, name in enumerate(names):
            found[f"readable_{name}"][m] = r2[i]
            found[f"joint_spread_{name}"][m] = spread[i]
    return found


def _seen(classifier: nn.Module, images: Tensor) -> np.ndarray:
    """What is read: the classifier's features, and the picture's own pixels, coarse."""
    parts = [(features_of(classifier, x.float()), avg_pool2d(x.float(), POOL).flatten(1)) for x in images.split(1_000)]
    return torch.cat([torch.cat(both, 1) for both in parts]).cpu().double().numpy()


def _reader(seen: np.ndarray, values: np.ndarray, seed: int):
    """(N, F) -> (N, K): a network with one hidden layer, fitted to standardised values (N, K)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    centre, scale = values.mean(0), values.std(0) + 1e-12
    network = make_pipeline(StandardScaler(), MLPRegressor(
        hidden_layer_sizes=(HIDDEN,), early_stopping=True, max_iter=60, random_state=seed % 2**32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(seen, (values - centre) / scale)
    return lambda x: centre + scale * network.predict(x).reshape(len(x), -1)


def _within(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Standard deviation of values (N, K) around the mean of their class (N,): (K,)."""
    moved, present = values.astype(float).copy(), np.unique(classes)
    for c in present:
        moved[classes == c] -= moved[classes == c].mean(0)
    return np.sqrt(np.square(moved).sum(0) / max(len(moved) - len(present), 1))
