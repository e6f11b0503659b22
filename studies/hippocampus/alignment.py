"""Do the latents of different modalities mean the same? Probes that cross modalities, silhouettes, chance levels.

A probe of each modality's own says what its latents know; it would not notice if every modality used another part of
the latent space, or the same part turned around. What is trained on one modality and tested on another does notice.
Letters: M modalities, N samples, D latent, C classes.
"""

from dataclasses import dataclass

import numpy as np

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import encode_means
from mmvm.evaluation.probe import logistic_regression
from mmvm.model import MultimodalVAE

MOST_POINTS = 2_000  # of a silhouette, whose cost grows with their square


@dataclass(frozen=True)
class Probes:
    """Accuracies in [0, 1] of logistic regressions from posterior means to the class.

    transfer  (M, M)  [s, t]: fitted to training encodings of s, tested on test encodings of t. The diagonal is the
                      paper's probe, `evaluation.linear_probe`.
    shared    (M,)    one probe fitted to the encodings of all modalities together, tested on each
    own_hits, shared_hits  (N, C)  how many modalities' probes name class c for test sample n; for `chance`
    """

    transfer: np.ndarray
    shared: np.ndarray
    own_hits: np.ndarray
    shared_hits: np.ndarray


def probes(model: MultimodalVAE, train: MultimodalData, test: MultimodalData) -> Probes:
    """Fits M + 1 probes (scikit-learn's logistic regression, C = 1) on standardised means and crosses them.

    The encodings of t meet the probe of s in the units of s: nothing is re-aligned. Samples count where their modality
    is observed. Raises `UserError` where a modality has too few.
    """
    from threadpoolctl import threadpool_limits

    z, z_test = encode_means(model, train).numpy(), encode_means(model, test).numpy()
    y, y_test = train.labels.cpu().numpy(), test.labels.cpu().numpy()
    seen, seen_test = train.observed.cpu().numpy(), test.observed.cpu().numpy()
    for name, there, there_test in zip(train.names, seen, seen_test):
        if len(set(y[there])) < 2 or not there_test.any():
            raise UserError(f"the probe of {name} has training samples of {len(set(y[there]))} classes and "
                            f"{there_test.sum()} test samples, it needs at least two classes and one sample: give more "
                            "data")
    n_classes = int(max(y.max(), y_test.max())) + 1
    hits = {"own": np.zeros((len(y_test), n_classes)), "shared": np.zeros((len(y_test), n_classes))}
    transfer, shared = np.empty((len(z), len(z))), np.empty(len(z))
    with threadpool_limits(1):  # see linear_probe
        pooled = logistic_regression(z[seen], np.broadcast_to(y, seen.shape)[seen])
        for s in range(len(z)):
            own = logistic_regression(z[s, seen[s]], y[seen[s]])
            for t in range(len(z)):
                there = seen_test[t]
                named = own.predict(z_test[t, there])
                transfer[s, t] = (named == y_test[there]).mean()
                if s == t:
                    hits["own"][np.flatnonzero(there), named] += 1
            named = pooled.predict(z_test[s, seen_test[s]])
            shared[s] = (named == y_test[seen_test[s]]).mean()
            hits["shared"][np.flatnonzero(seen_test[s]), named] += 1
    return Probes(transfer, shared, hits["own"], hits["shared"])


@dataclass(frozen=True)
class Chance:
    """Accuracy under permuted labels: `mean`, `upper` (the 95th percentile), and `p`, the share of permutations, the
    real labels among them, that do at least as well as these."""

    mean: float
    upper: float
    p: float


def chance(hits: np.ndarray, labels: np.ndarray, groups: np.ndarray, n: int = 1_000, seed: int = 0) -> Chance:
    """What a fitted probe scores when test labels mean nothing: they are permuted over `groups` n times.

    hits    (N, C) of `Probes`; labels (N,); groups (N,) samples that share a label because they share a trial. They are
            permuted together: windows of a trial are no independent evidence, and permuting them one by one would make
            chance look narrower than it is. Groups differ in size only where modalities are missing.
    """
    names, first, group = np.unique(groups, return_index=True, return_inverse=True)
    per_group = np.zeros((len(names), hits.shape[1]))
    np.add.at(per_group, group, hits)
    of_group = np.asarray(labels)[first]
    if not (of_group[group] == labels).all():
        raise UserError("a group has samples of several classes: permute over groups with one label each")
    random = np.random.default_rng(seed)
    rows = np.arange(len(names))
    scores = np.array([per_group[rows, of_group[random.permutation(len(names))]].sum() for _ in range(n)])
    real = per_group[rows, of_group].sum()
    scores, total = np.append(scores, real), hits.sum()
    return Chance(float(scores[:-1].mean() / total), float(np.quantile(scores[:-1], 0.95) / total),
                  float((scores >= real).mean()))


def silhouettes(model: MultimodalVAE, data: MultimodalData, seed: int = 0) -> dict[str, float]:
    """Mean silhouette width (Rousseeuw 1987) of the modalities' means in one space, in [-1, 1], standardised together:

    "label"     by class: 1 where every class is a cluster of its own, over all modalities
    "modality"  by modality: near 0 or below where the modalities lie on top of each other, towards 1 where each has its
                own place. Benchmarks of data integration use it as the batch silhouette (Luecken et al. 2022).

    On at most 2,000 random points.
    """
    from sklearn.metrics import silhouette_score

    z, seen = encode_means(model, data).numpy(), data.observed.cpu().numpy()
    points, labels = z[seen], np.broadcast_to(data.labels.cpu().numpy(), seen.shape)[seen]
    modality = np.broadcast_to(np.arange(len(z))[:, None], seen.shape)[seen]
    points = (points - points.mean(0)) / (points.std(0) + 1e-12)
    chosen = np.random.default_rng(seed).permutation(len(points))[:MOST_POINTS]
    return {name: float(silhouette_score(points[chosen], groups[chosen])) if len(set(groups[chosen])) > 1 else 0.0
            for name, groups in (("label", labels), ("modality", modality))}


def linear_reading(z: np.ndarray, truth: np.ndarray, z_test: np.ndarray) -> np.ndarray:
    """What a linear map per modality, fitted to means (M, N, D) and a known latent (M, N, K), says of test means:
    (M, N', K)."""
    from sklearn.linear_model import LinearRegression

    return np.stack([LinearRegression().fit(a, b).predict(c) for a, b, c in zip(z, truth, z_test)])


def linear_recovery(z: np.ndarray, truth: np.ndarray, z_test: np.ndarray,
                    truth_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of a known latent (M, N, K) a linear map of the means (M, N, D) predicts on test samples: R^2, (M,) with
    a map per modality and (M,) with one map for all, which needs them aligned. At most 1; below 0 where the mean is the
    better guess."""
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    pooled = LinearRegression().fit(z.reshape(-1, z.shape[-1]), truth.reshape(-1, truth.shape[-1]))
    shared = [pooled.predict(a) for a in z_test]
    return tuple(np.array([r2_score(b, said, multioutput="variance_weighted") for said, b in zip(read, truth_test)])
                 for read in (linear_reading(z, truth, z_test), shared))
