"""What each latent keeps: how many nats of its modality, what of it another modality's latent has too, which factors.

Letters: M modalities, N samples, D latent.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmvm.checks import check_split
from mmvm.data import MultimodalData, groups_of, in_order
from mmvm.errors import UserError
from mmvm.evaluation.encodings import means_of, posteriors, some_of, some_rows
from mmvm.evaluation.probe import logistic_regression
from mmvm.gaussian import DiagonalGaussian
from mmvm.model import MultimodalVAE

CELLS = 4_000_000  # densities that are in memory at once, 32 MB
RIDGES = np.logspace(-3, 3, 7)
FACTORS, TUNED = (1.0, 4.0, 16.0, 64.0), 2_000  # by which a covariance may be multiplied; samples that choose one


@dataclass(frozen=True)
class Rate:
    """Nats that the latents hold about their samples, (M,) each, NaN for a modality that fewer than two samples have.

    information  I(x_m; z_m) from below: at most `ceiling`, and where it comes near it, it says no more than that
    upper        the same from above; may be as large as it likes
    ceiling      log N of the N samples that have the modality
    marginal     KL(q(z_m) || p) of the aggregate posterior q(z_m): mean KL(q_m || p) - information; p is N(0, I), or of
                 Laplace posteriors the Laplace of mean 0 and variance 1

    >>> mmvm.evaluation.rate(model, data).ceiling  # log 60
    array([4.09434456, 4.09434456])
    """

    information: np.ndarray
    upper: np.ndarray
    ceiling: np.ndarray
    marginal: np.ndarray


@torch.no_grad()
def rate(model: MultimodalVAE, data: MultimodalData, n: int | None = 10_000, seed: int = 0) -> Rate:
    """I(x_m; z_m) = mean KL(q(z_m | x_m) || q(z_m)) of each modality, with the aggregate posterior q(z_m), the mean of
    the posteriors of `n` random samples (None: all; Hoffman and Johnson 2016), at one draw a sample, piece by piece in
    bounded memory.

    The two numbers of `Rate` bracket the information of the population on average: with a sample's own posterior in the
    aggregate the estimate is low, and never above log N; without it, it is high (Poole et al. 2019).

    >>> found = mmvm.evaluation.rate(model, data)
    >>> bool((found.information < found.ceiling).all()), bool((found.information <= found.upper).all())
    (True, True)
    """
    q, observed = posteriors(model, some_of(data, n, seed))
    generator, found = torch.Generator().manual_seed(seed), []
    for m, seen in enumerate(observed):
        if len((some := q[m][seen]).mean) < 2:
            found.append([float("nan")] * 4)
            continue
        z = some.sample(generator)
        low, high = (float((some.log_prob(z) - log_q).mean()) for log_q in _aggregate(some, z))
        found.append([low, high, math.log(len(z)), float(some.kl_standard_normal().mean()) - low])
    return Rate(*np.array(found).T)


def _aggregate(q: DiagonalGaussian, z: Tensor) -> tuple[Tensor, Tensor]:
    """log-density of the equal mixture of N posteriors (N, D) at their draws z (N, D), with and without a draw's own
    posterior: (N,) each."""
    centre = q.mean.mean(0)  # products of what is far from 0 would cancel
    q, z = q.within_limits(q.mean - centre, q.logvar), z - centre
    gaussian, precision = type(q) is DiagonalGaussian, (-q.logvar).exp()  # not so the Laplaces, which are a kind of it
    constant = (q.mean.square() * precision + q.logvar + math.log(2 * math.pi)).sum(-1)
    inside, outside, n = [], [], len(z)
    for rows in torch.arange(n).split(max(1, CELLS // (n if gaussian else z.numel()))):
        part = z[rows]
        log_q = (-0.5 * (part.square() @ precision.T - 2 * part @ (q.mean * precision).T + constant) if gaussian
                 else q.log_prob(part.unsqueeze(1)))                                                 # (rows, N)
        inside.append(log_q.logsumexp(1) - math.log(n))
        log_q[torch.arange(len(rows)), rows] = -torch.inf
        outside.append(log_q.logsumexp(1) - math.log(n - 1))
    return torch.cat(inside), torch.cat(outside)


def _information(q: DiagonalGaussian, z: Tensor) -> float:
    """Mean nats by which draws z (N, D) are likelier under their own of N densities than under the mixture of all."""
    return float((q.log_prob(z) - _aggregate(q, z)[0]).mean())


@dataclass(frozen=True)
class SharedInformation:
    """[m, n], (M, M) nats: what z_n tells of z_m, and what is left of I(x_m; z_m). NaN on the diagonal, and where no
    sample has both.

    shared   I(z_m; z_n) from below
    private  `Rate.information` of the same samples less that: I(x_m; z_m | z_n), as far as both are known
    ceiling  log of the number of samples that z_n was told from, half of those that have both; `shared` is below it

    >>> float(mmvm.evaluation.shared_information(model, data).ceiling[0, 1])  # log 30
    3.4011973816621555
    """

    shared: np.ndarray
    private: np.ndarray
    ceiling: np.ndarray


@torch.no_grad()
def shared_information(model: MultimodalVAE, data: MultimodalData, n: int | None = 10_000, seed: int = 0,
                       groups: Any = None) -> SharedInformation:
    """The part of I(x_m; z_m) that another modality's latent predicts, and the part that it does not.

    Contrastive (InfoNCE; van den Oord et al. 2018): how much likelier a draw of z_m is given the z_n of its own sample
    than given those of all K asked samples, in nats,

        I(z_m; z_n)  >=  E[log r(z_m | z_n) - log 1/K sum_k r(z_m | z_n of sample k)],

    true of every r and never above log K. Here r is a Gaussian, its mean a ridge regression on a draw of z_n, its
    covariance that of the residuals (Ledoit and Wolf's) or a multiple of it; all of it is fitted to one half of the
    samples, and the other is asked, both ways. Tight where the latents are jointly Gaussian and log K is far; low where
    z_n tells in other than a linear way, which then counts as private. Samples that resemble each other, such as
    windows of one trial, belong in one half, or the bound is none: give the numbers or names of their `groups` (N,).
    Raises `UserError` for other groups, and for fewer than four samples per latent dimension that have both.

    >>> found = mmvm.evaluation.shared_information(model, data)
    >>> bool((found.shared < found.ceiling)[0, 1]), found.private.shape
    (True, (2, 2))
    """
    index = some_rows(len(data), n, seed)
    groups = None if groups is None else torch.from_numpy(groups_of(groups, data, "`groups`")[1])[index]
    q, observed = posteriors(model, data.subset(index))
    generator, m = torch.Generator().manual_seed(seed), len(data.specs)
    found, z = np.full((3, m, m), np.nan), q.sample(generator)
    for a, b in ((a, b) for a in range(m) for b in range(m) if a != b):
        both = observed[a] & observed[b]
        rows, width = int(both.sum()), q.shape[-1]
        if not rows:
            continue
        if rows < 4 * width:
            raise UserError(f"{rows} samples have both {data.names[a]} and {data.names[b]}, latents of {width} "
                            f"dimensions take {4 * width} at least: give more data")
        own, given = z[a][both], z[b][both]
        halves = torch.randperm(rows, generator=generator).tensor_split(2)
        if groups is not None:  # each is in one half as a whole
            own_groups = groups[both.cpu()]
            names = own_groups.unique()
            first = torch.isin(own_groups, names[torch.randperm(len(names), generator=generator)[1::2]])
            halves = torch.where(first)[0], torch.where(~first)[0]
            if min(map(len, halves)) < 2 * width:
                raise UserError(f"the groups leave halves of {len(halves[0])} and {len(halves[1])} samples, each takes "
                                f"{2 * width}: give more groups, of more equal size")
        shared = np.mean([_contrast(own[fit], given[fit], own[ask], given[ask]) for fit, ask in (halves, halves[::-1])])
        found[:, a, b] = (shared, _information(q[a][both], own) - shared,
                          np.mean([math.log(len(half)) for half in halves]))
    return SharedInformation(*found)


def _contrast(z: Tensor, given: Tensor, asked: Tensor, at: Tensor) -> float:
    """InfoNCE of `asked` (K, D) and `at` (K, D), r fitted to z (N, D) and `given` (N, D)."""
    from sklearn.covariance import ledoit_wolf
    from sklearn.linear_model import RidgeCV

    centre, width = given.mean(0), given.std(0) + 1e-12
    scale = z.std(0) + 1e-12  # then no dimension's unit counts
    ridge = RidgeCV(RIDGES).fit((given - centre) / width, z / scale)
    mean, expected = (torch.from_numpy(ridge.predict((x - centre) / width)).view_as(y)
                      for x, y in ((given, z), (at, asked)))
    covariance = torch.from_numpy(ledoit_wolf((z / scale - mean).numpy(), assume_centered=True)[0])
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).T  # r becomes N(., I)

    def nats(mean: Tensor, draws: Tensor, factor: float) -> float:
        """With the covariance times a factor."""
        critic = DiagonalGaussian.within_limits(mean @ whiten, torch.full_like(mean, math.log(factor)))
        return _information(critic, draws / scale @ whiten)
    best = max(FACTORS, key=lambda factor: nats(mean[:TUNED], z[:TUNED], factor))
    return nats(expected, asked, best)


@torch.no_grad()
def total_correlation(model: MultimodalVAE, data: MultimodalData, n: int | None = 10_000, seed: int = 0) -> float:
    """Total correlation of the modalities' latents, sum_m H(z_m) - H(z_1 ... z_M) in nats, of samples that have all.

    Of the Gaussian copula: every latent dimension becomes normal by its ranks; of these (sum_m log det C_m - log det C)
    / 2, C the covariance of all, without the bias that the log-determinants of N Gaussian samples have. Blind to
    dependence that ranks do not show as correlation. Raises `UserError` unless M D + 2 samples have all modalities.

    >>> mmvm.evaluation.total_correlation(model, data) > 0
    True
    """
    from scipy.special import digamma, ndtri  # type: ignore[import-untyped]
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    q, observed = posteriors(model, some_of(data, n, seed))
    z = q.sample(torch.Generator().manual_seed(seed))[:, observed.all(0)].transpose(0, 1).flatten(1).numpy()  # (N, M D)
    rows, width = len(z), q.shape[-1]
    if rows < z.shape[1] + 2:
        raise UserError(f"{rows} samples have all modalities, their {z.shape[1]} latent dimensions take "
                        f"{z.shape[1] + 2} at least: give more data")
    normal = ndtri(rankdata(z, axis=0) / (rows + 1))

    def log_det(x: np.ndarray) -> float:
        """Of a covariance, without the bias that a Wishart's has."""
        expected = digamma((rows - 1 - np.arange(x.shape[1])) / 2).sum() + x.shape[1] * math.log(2 / (rows - 1))
        return np.linalg.slogdet(np.atleast_2d(np.cov(x.T)))[1] - expected
    blocks = np.split(normal, len(data.specs), 1)
    return float(0.5 * (sum(map(log_det, blocks)) - log_det(normal))) if len(blocks) > 1 and width else 0.0


def kept(model: MultimodalVAE, train: MultimodalData, test: MultimodalData,
         factors: Mapping[str, tuple[Any, Any]] | None = None, classes: Collection[str] = (), n: int = 10_000,
         seed: int = 0, groups: Any = None) -> tuple[dict[str, list[tuple[str, str, float]]], dict[str, str]]:
    """All of this file as result rows: metric -> its (source, target, value), averages with target "mean", or "cross"
    of pairs; and metric -> note, where there is one. Numbers that do not exist have no row. On `test`, with `groups`:

    information        I(x_m; z_m) from below, nats (`rate`); its ceiling is in the note
    information_upper  the same from above
    aggregate_kl       KL of the aggregate posterior to the prior, nats (`Rate.marginal`)
    information_shared, information_private  of target m, what source n tells and does not (`SharedInformation`)
    total_correlation  of all modalities' latents, nats; where enough samples have all (M D + 2)
    factor_NAME_linear, factor_NAME_nonlinear  accuracy of the `classes`, else R^2, fitted to `train` (`factor_probes`)

    >>> rows, notes = mmvm.evaluation.kept(model, data, data, {"z": (z[:, 0], z[:, 0])})
    >>> rows["information"][-1][:2], sorted(rows)[:2]
    (('', 'mean'), ['aggregate_kl', 'factor_z_linear'])
    """
    found, pairs = rate(model, test, n, seed), shared_information(model, test, n, seed, groups)
    single = {"information": found.information, "information_upper": found.upper, "aggregate_kl": found.marginal}
    if factors:
        single |= {f"factor_{name.replace('/', '_')}": x
                   for name, x in factor_probes(model, train, test, factors, classes, n, seed).items()}
    rows = {metric: _averaged([("", name, x) for name, x in zip(test.names, values)], "mean")
            for metric, values in single.items()}
    for metric, values in (("shared", pairs.shared), ("private", pairs.private)):
        rows[f"information_{metric}"] = _averaged([(test.names[b], test.names[a], float(values[a, b]))
                                                   for a, b in np.ndindex(values.shape)], "cross")
    with suppress(UserError):  # too few samples have all
        rows["total_correlation"] = [("", "mean", total_correlation(model, test, n, seed))]
    ceilings = {"information": found.ceiling, "information_shared": pairs.ceiling}
    return ({metric: entries for metric, entries in rows.items() if entries},
            {metric: f"ceiling={np.nanmin(x):.2f}" for metric, x in ceilings.items() if rows[metric]})


def _averaged(entries: list[tuple[str, str, float]], target: str) -> list[tuple[str, str, float]]:
    """Those that are numbers, and their mean."""
    known = [(source, name, float(x)) for source, name, x in entries if np.isfinite(x)]
    return [*known, ("", target, float(np.mean([x for *_, x in known])))] if known else []


def factor_probes(model: MultimodalVAE, train: MultimodalData, test: MultimodalData,
                  factors: Mapping[str, tuple[Any, Any]], classes: Collection[str] = (), n: int = 10_000,
                  seed: int = 0) -> dict[str, np.ndarray]:
    """How well each factor is read off each modality's posterior means: "NAME/linear" and "NAME/nonlinear", (M,) each.

    factors  name -> (values of the training samples, of the test samples), each (N,), or (M, N) where every modality
             has its own
    classes  names of those that are class numbers: accuracy of a logistic regression, and of a network with one hidden
             layer of 64. Of the others R^2 on the test samples, of ridge regression and of such a network: 0 for what
             the mean knows, negative for less

    Fitted to `n` random training samples, on standardised means, of samples that have the modality. Raises `UserError`
    for values of another shape or order, NaN, a class factor of one class, and a modality of fewer than 10 samples.

    >>> found = mmvm.evaluation.factor_probes(model, data, data, {"z": (z[:, 0], z[:, 0])})
    >>> found["z/linear"].shape
    (2,)
    """
    from threadpoolctl import threadpool_limits

    check_split(train, test)
    some = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:n]
    values = {name: (_checked(name, own[0], train)[:, some.numpy()], _checked(name, own[1], test))
              for name, own in factors.items()}
    if unknown := sorted(set(classes) - set(factors)):
        raise UserError(f"classes {', '.join(unknown)} are no factors: there are {', '.join(factors)}")
    sets = [means_of(model, train.subset(some)), means_of(model, test)]
    found: dict[str, list[float]] = {f"{name}/{kind}": [] for name in values for kind in ("linear", "nonlinear")}
    with threadpool_limits(1):
        for m, ((x, seen), (x_test, seen_test)) in enumerate(zip(*sets)):
            if len(x) < 10 or len(x_test) < 2:
                raise UserError(f"{len(x)} training and {len(x_test)} test samples have {train.names[m]}, a probe "
                                "takes 10 and 2: give more data")
            for name, (y, y_test) in values.items():
                scores = _scores(name, x, y[m][seen], x_test, y_test[m][seen_test], name in classes, seed)
                for kind, score in zip(("linear", "nonlinear"), scores):
                    found[f"{name}/{kind}"].append(score)
    return {name: np.array(scores) for name, scores in found.items()}


def _checked(name: str, values: Any, data: MultimodalData) -> np.ndarray:
    """Values (M, N) of a factor."""
    found, m = in_order(values, data, f"factor {name!r}"), len(data.specs)
    if found.shape not in ((len(data),), (m, len(data))):
        raise UserError(f"factor {name!r} has values of shape {found.shape}, the data have {len(data)} samples of {m} "
                        f"modalities: give ({len(data)},) or ({m}, {len(data)})")
    found = np.broadcast_to(found, (m, len(data)))
    if (unknown := ((found != found) & data.observed.cpu().numpy()).any(0)).any():  # NaN
        raise UserError(f"factor {name!r} is NaN in {unknown.sum()} samples (the first: {unknown.argmax()}): leave "
                        "these out of the data, data.subset(known), and of the factor")
    return found


def _scores(name: str, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, is_class: bool,
            seed: int) -> Sequence[float]:
    """Of the linear and of the non-linear probe."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import RidgeCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    centre, width = x.mean(0), x.std(0) + 1e-12
    x, x_test = (x - centre) / width, (x_test - centre) / width
    settings: dict = dict(hidden_layer_sizes=(64,), max_iter=50, learning_rate_init=3e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 50 passes, whatever is left to gain
        if is_class:
            if len(np.unique(y)) < 2:
                raise UserError(f"factor {name!r} has one class in the training samples: give more data, or leave it "
                                "out")
            probes = [logistic_regression(x, y, standardise=False), MLPClassifier(**settings).fit(x, y)]
            return [float(probe.score(x_test, y_test)) for probe in probes]
        y, y_test = y.astype(float), y_test.astype(float)
        if not (y.std() > 0 and y_test.std() > 0):
            raise UserError(f"factor {name!r} has one value: there is nothing to read, leave it out")
        y_test, y = (y_test - y.mean()) / y.std(), (y - y.mean()) / y.std()
        return [float(probe.fit(x, y).score(x_test, y_test)) for probe in (RidgeCV(RIDGES), MLPRegressor(**settings))]
