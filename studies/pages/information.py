"""The page `information`: what each latent keeps, from the rows of `mmvm.evaluation.kept`, and what the estimates are
worth where the answer is known.

Letters: M modalities, N samples, D latent, K classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mmvm import MMVM, Modality, MultimodalData, MultimodalVAE, Normal
from mmvm.evaluation import factor_probes, rate, shared_information, total_correlation
from mmvm.evaluation.encodings import posteriors
from mmvm.networks import MLPDecoder
from mmvm.study.figures import METHOD_COLOURS, METHOD_MARKERS, METHOD_NAMES
from mmvm.study.results import with_spread

PRIVATE = ("ink", "slant", "crop_y", "crop_x")
FACTORS = ("digit", *PRIVATE)
MOVING = ("digit", "y", "x", "ink", "slant")  # of translated digits, what probes may find in all modalities
PROBES = ("linear", "nonlinear")
CLASSES = 10
EXACT = "mmvm:bound=monte_carlo"  # the paper's equation, which other figures draw under MMVM's name
NAMES = {"mmvm": METHOD_NAMES["mmvm"], EXACT: "MMVM, exact",
         **{method: name for method, name in METHOD_NAMES.items() if ":" not in method}}
COLOURS, MARKERS = {**METHOD_COLOURS, EXACT: "#E08D5B"}, {**METHOD_MARKERS, EXACT: "h"}
COLUMNS = {("information", "mean"): "low", ("information_shared", "cross"): "shared",
           ("total_correlation", "mean"): "correlation",
           ("imputation", "self"): "own error", ("imputation", "cross"): "other's error", ("probe", "mean"): "probe",
           **{(f"factor_{name}_{kind}", "mean"): f"{name} {kind}" for name in (*FACTORS, "y", "x") for kind in PROBES}}


# from rows ------------------------------------------------------------------------------------------------------------

def board(table: pd.DataFrame, floors: Mapping[str, float], shared_at_most: float) -> pd.DataFrame:
    """A line per method and beta, in the book's order, means over seeds and over modalities or their pairs. Nats are of
    one modality.

    seeds                     number of them
    low, most                 I(x_m; z_m) from below and from above (`from_above`)
    shared                    what another's latent tells, from below
    rest least, rest most     what no other tells: `low` less `shared_at_most`, the nats that the data share, or 0 where
                              that is less; and `most` less `shared`
    correlation               total correlation of all latents
    own error, other's error  of a picture that is decoded from its own or from another's latent alone
    NAME linear, nonlinear    accuracy (digit) or R^2 of a probe
    private                   `beyond_digit` of each modality, `floors` as it takes them
    private sd, shared sd     standard deviation over seeds, NaN of one
    """
    averages = table[table["source"] == ""]
    named = pd.Series(list(zip(averages["metric"], averages["target"])), index=averages.index).map(COLUMNS)
    wide = averages.assign(column=named).dropna(subset=["column"]).pivot(
        index=["method", "beta", "seed"], columns="column", values="value")
    wide = wide.join(from_above(table).groupby(["method", "beta", "seed"]).mean().rename("most"))
    lines = wide.groupby(["method", "beta"])
    found = lines.mean().assign(seeds=lines.size())
    found["rest least"] = (found["low"] - shared_at_most).clip(lower=0)
    found["rest most"] = found["most"] - found["shared"]
    of_seeds = private_by_modality(table, floors).groupby(["method", "beta", "seed"]).mean().groupby(["method", "beta"])
    found["private"], found["private sd"] = of_seeds.mean(), of_seeds.std()
    found["shared sd"] = lines["shared"].std()
    order = {method: i for i, method in enumerate(NAMES)}
    found = found.rename_axis(columns=None).reset_index()
    return found.sort_values(["method", "beta"], key=lambda x: x.map(order) if x.name == "method" else x,
                             ignore_index=True)


def from_above(table: pd.DataFrame) -> pd.Series:
    """I(x_m; z_m) from above in nats, by method, beta, seed and modality: the smaller of the leave-one-out estimate and
    of the mean KL(q_m || N(0, I)), which bounds it too."""
    single = table[table["target"] != "mean"].set_index(["metric", "method", "beta", "seed", "target"])["value"]
    of = {metric: single.loc[metric] for metric in ("information", "information_upper", "aggregate_kl")}
    return np.minimum(of["information_upper"], of["information"] + of["aggregate_kl"])


def beyond_digit(scores: pd.DataFrame, floors: Mapping[str, float]) -> pd.Series:
    """Mean over the private factors of the share of what the digit leaves open that the non-linear probe reads,
    (R^2 - R^2_digit) / (1 - R^2_digit), none below 0. `floors`: R^2_digit of the factors, 0 for those that lack.

    `scores` has columns "<factor> nonlinear".
    """
    parts = [((scores[f"{name} nonlinear"] - floors.get(name, 0.0)) / (1 - floors.get(name, 0.0))).clip(lower=0)
             for name in PRIVATE]
    return sum(parts[1:], parts[0]) / len(parts)


def private_by_modality(table: pd.DataFrame, floors: Mapping[str, float]) -> pd.Series:
    """`beyond_digit` of each modality alone, by method, beta, seed and modality."""
    rows = table[table["metric"].isin([f"factor_{name}_nonlinear" for name in PRIVATE]) & (table["target"] != "mean")]
    wide = rows.assign(column=rows["metric"].str.removeprefix("factor_").str.replace("_nonlinear", " nonlinear")).pivot(
        index=["method", "beta", "seed", "target"], columns="column", values="value")
    return beyond_digit(wide, floors)


def lost(table: pd.DataFrame, beta: float = 1.0) -> pd.DataFrame:
    """Runs at `beta` from one of whose latents the non-linear probe reads the digit in less than half of the pictures,
    though the same method has another that does not lose it: method, seed, target (the modality), value."""
    own = table[(table["metric"] == "factor_digit_nonlinear") & (table["target"] != "mean") & (table["beta"] == beta)]
    best = own.groupby(["method", "target"])["value"].transform("max")
    return own.loc[(own["value"] < 0.5) & (best > 0.8), ["method", "seed", "target", "value"]].reset_index(drop=True)


def with_more_seeds(table: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """`table`, and of `more`, rows of the same profile, the runs whose method, beta and seed it lacks."""
    keys = ["method", "beta", "seed"]
    has = pd.MultiIndex.from_frame(table[keys])
    return pd.concat([table, more[~pd.MultiIndex.from_frame(more[keys]).isin(has)]], ignore_index=True)


def ceilings(table: pd.DataFrame, metric: str) -> float:
    """The ceiling in the notes of `information` or `information_shared`, nats: the lowest of all runs."""
    notes = table.loc[table["metric"] == metric, "note"].str.extract(r"ceiling=([\d.]+)")[0].dropna()
    return float(notes.astype(float).min())


def pairs(table: pd.DataFrame, metric: str = "information_shared") -> pd.DataFrame:
    """Lowest and highest of the ordered pairs of modalities by method and beta, over all seeds: columns min, max."""
    rows = table[(table["metric"] == metric) & (table["source"] != "")]
    return rows.groupby(["method", "beta"])["value"].agg(["min", "max"])


def told_by_digit(train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]) -> dict[str, float]:
    """R^2 of each private factor on test samples, told by the training mean of its digit, averaged over modalities.

    `train`, `test` as of `studies.polymnist.data.factors`: "digit" (N,), the others (M, N).
    """
    found = {}
    for name in PRIVATE:
        scores = []
        for own, other in zip(train[name].astype(float), test[name].astype(float)):
            means = np.array([own[train["digit"] == k].mean() for k in range(CLASSES)])
            left = ((other - means[test["digit"]]) ** 2).mean()
            scores.append(1 - left / ((other - own.mean()) ** 2).mean())
        found[name] = float(np.mean(scores))
    return found


def entropy(labels: np.ndarray) -> float:
    """Of class numbers (N,), nats."""
    share = np.bincount(labels) / len(labels)
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


# where the answer is known --------------------------------------------------------------------------------------------

class Channel(nn.Module):
    """An encoder that adds noise and nothing else: x (B, D) -> mean x, variance `var`, (B, D) each."""

    def __init__(self, var: float):
        super().__init__()
        self.logvar = math.log(var)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.full_like(x, self.logvar)


def channels(*modalities: Tensor, var: float) -> tuple[MultimodalVAE, MultimodalData]:
    """A model whose posteriors are N(x_m, var I) of these arrays, (N, D) each, and the arrays as its data."""
    specs = tuple(Modality(f"m{i}", x.shape[1:], Normal()) for i, x in enumerate(modalities))
    width = modalities[0].shape[1]
    with torch.random.fork_rng([]):  # decoders that nobody asks
        model = MultimodalVAE(specs, [Channel(var) for _ in specs], [MLPDecoder(s.shape, width, (2,)) for s in specs],
                              MMVM())
    return model, MultimodalData({s.name: x.float() for s, x in zip(specs, modalities)}, specs)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Estimate:
    """One estimate where the truth is known, nats. `of`: rate | shared | correlation; `case`: gaussian | classes."""

    of: str
    case: str
    n: int
    known: float
    low: float
    most: float
    ceiling: float


def of_rate(known: float, n: int, seed: int, width: int = 32) -> Estimate:
    """A Gaussian channel of `width` dimensions that holds D / 2 log(1 + s^2) = `known` nats, its latents N(0, I)."""
    var = math.exp(-2 * known / width)
    found = rate(*channels(math.sqrt(1 - var) * normal(n, width, seed=seed), var=var), seed=seed)
    return Estimate("rate", "gaussian", n, known, found.information[0], found.upper[0], found.ceiling[0])


def of_two(case: str, known: float, n: int, seed: int, x: Sequence[Tensor], var: float) -> tuple[Estimate, Estimate]:
    """What one of two latents tells of the other, and their total correlation: of two the same number."""
    model, data = channels(*x, var=var)
    pair = shared_information(model, data, seed=seed)
    shared, ceiling = float(np.nanmean(pair.shared)), float(np.nanmin(pair.ceiling))
    correlation = total_correlation(model, data, seed=seed)
    return (Estimate("shared", case, n, known, shared, shared, ceiling),
            Estimate("correlation", case, n, known, correlation, correlation, math.inf))


def of_gaussians(known: float, n: int, seed: int, width: int = 32, var: float = 1e-3) -> tuple[Estimate, Estimate]:
    """Two jointly Gaussian latents of `width` dimensions with -D / 2 log(1 - rho^2) = `known` nats in common."""
    rho = math.sqrt(1 - math.exp(-2 * known / width))
    common, own = math.sqrt(rho), math.sqrt(1 - rho - var)
    u = normal(n, width, seed=seed)
    return of_two("gaussian", known, n, seed, [common * u + own * normal(n, width, seed=seed + m) for m in (1, 2)], var)


def of_classes(apart: float, n: int, seed: int, width: int = 32, var: float = 0.1) -> tuple[Estimate, Estimate]:
    """Two latents that have only their class in common: ten centres on a sphere of radius `apart`, and around them
    noise of variance 1 in every dimension. What is known is a mean over 20,000 draws of the densities, which are."""
    centres = nn.functional.normalize(normal(CLASSES, width, seed=seed), dim=1) * apart

    def drawn(n: int, seed: int, spread: float) -> tuple[Tensor, list[Tensor]]:
        labels = torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(seed))
        return labels, [centres[labels] + spread * normal(n, width, seed=seed + m) for m in (1, 2)]
    log_p = [torch.log_softmax(-0.5 * torch.cdist(z, centres).square(), 1) for z in drawn(20_000, seed + 9, 1.0)[1]]
    known = float((torch.logsumexp(log_p[0] + log_p[1], 1) + math.log(CLASSES)).mean())
    return of_two("classes", known, n, seed, drawn(n, seed, math.sqrt(1 - var))[1], var)


RATES, COMMON, APART = (1, 2, 3, 5, 7, 9, 12, 16, 20), (0.5, 1, 2, 3, 5, 7, 9, 12), (1.5, 3.0, 4.5, 8.0, 14.0)


def check(n: int, seed: int) -> pd.DataFrame:
    """Every estimate in 32 dimensions where the answer is known, from `n` samples, the rate from a tenth of them too: a
    line per `Estimate`."""
    found = [of_rate(known, size, seed) for size in (n // 10, n) for known in RATES]
    several: list[tuple[Callable, Sequence[float]]] = [(of_gaussians, COMMON), (of_classes, APART)]
    found += [one for make, values in several for value in values for one in make(value, n, seed)]
    return pd.DataFrame(found)


# what pictures tell themselves ----------------------------------------------------------------------------------------

def of_pixels(train: MultimodalData, test: MultimodalData, factors: Mapping[str, tuple[np.ndarray, np.ndarray]],
              width: int = 32) -> pd.DataFrame:
    """The probes of `factor_probes` on the `width` leading principal components of each modality's own pixels: what a
    linear latent of that size would keep. A line a modality, columns as in `by_modality`."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name in train.names:
        x, y = (data.modalities[name].flatten(1).float() for data in (train, test))
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            turn = torch.pca_lowrank(x, q=width + 16, niter=4)[2][:, :width]
        for part, pixels in zip(parts, (x, y)):
            part.append((pixels - x.mean(0)) @ turn)
    (model, fitted), (_, asked) = (channels(*part, var=1.0) for part in parts)
    scores = factor_probes(model, fitted, asked, factors, classes=("digit",))
    return pd.DataFrame({key.replace("/", " "): values for key, values in scores.items()}, index=train.names)


def of_draws(model: MultimodalVAE, train: MultimodalData, test: MultimodalData,
             factors: Mapping[str, tuple[np.ndarray, np.ndarray]], seed: int = 0) -> pd.DataFrame:
    """The probes of `factor_probes` on one draw of each posterior in place of its mean, which is what decoders get and
    nats are counted of. Shapes and columns as of `of_pixels`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for data in (train, test):
        q = posteriors(model, data)[0]
        drawn.append(q.mean + q.std * torch.randn(q.mean.shape, generator=generator))
    (stand_in, fitted), (_, asked) = (channels(*z, var=1.0) for z in drawn)
    scores = factor_probes(stand_in, fitted, asked, factors, classes=("digit",))
    return pd.DataFrame({key.replace("/", " "): values for key, values in scores.items()}, index=train.names)


# tables ---------------------------------------------------------------------------------------------------------------

def labelled(board: pd.DataFrame) -> pd.DataFrame:
    """With the methods' names and betas as texts in front."""
    return pd.DataFrame({"method": board["method"].map(NAMES), "beta": board["beta"].map("{:g}".format)})


def table_of_factors(board: pd.DataFrame) -> pd.DataFrame:
    """Linear and non-linear score of every factor, "0.91, 0.93", a line per method and beta."""
    return labelled(board).assign(**{name: [f"{a:.2f}, {b:.2f}" for a, b in zip(
        board[f"{name} linear"], board[f"{name} nonlinear"])] for name in FACTORS})


def table_of_nats(board: pd.DataFrame) -> pd.DataFrame:
    """What `fig-information-nats` shows, nats per latent, and the errors that belong to it."""
    return labelled(board).assign(**{
        "own picture": [f"{a:.1f} to {b:,.1f}" for a, b in zip(board["low"], board["most"])],
        "told by another": board["shared"].map("{:.2f}".format),
        "by no other": [f"{a:.1f} to {b:,.1f}" for a, b in zip(board["rest least"], board["rest most"])],
        "total correlation": board["correlation"].map("{:.1f}".format),
        "error, own latent": board["own error"].map("{:,.0f}".format),
        "error, another's": board["other's error"].map("{:,.0f}".format)})


def table_of_claim(board: pd.DataFrame, by_modality: pd.Series) -> pd.DataFrame:
    """The private share read with its deviation over seeds and its range over modalities and seeds, its ratio to that
    of independent VAEs at the same beta, and what is shared beside it."""
    ends = by_modality.groupby(["method", "beta"]).agg(["min", "max"])
    keys = list(zip(board["method"], board["beta"]))
    alone = board[board["method"] == "independent"].set_index("beta")["private"]
    ratio = board["private"] / board["beta"].map(alone)
    return labelled(board).assign(**{
        "private read": with_spread(board, "private", 2),
        "lowest, highest": [f"{ends.loc[key, 'min']:.2f}, {ends.loc[key, 'max']:.2f}" for key in keys],
        "of independent": ratio.map(lambda x: "" if pd.isna(x) else f"{100 * x:.0f} %"),
        "digit": board["digit nonlinear"].map("{:.2f}".format),
        "told, nats": with_spread(board, "shared", 2), "seeds": board["seeds"]})


def by_modality(found: Mapping[str, Sequence[tuple[str, str, float]]]) -> pd.DataFrame:
    """Rows of `mmvm.evaluation.kept` as a line a modality: `low` and `most` nats, those that each other's latent tells
    (`told`, a list), and "<factor> linear", "<factor> nonlinear"."""
    single = {metric: pd.Series({target: value for source, target, value in entries if not source}).drop("mean")
              for metric, entries in found.items() if metric.startswith(("information", "aggregate", "factor"))
              and not metric.startswith(("information_shared", "information_private"))}
    told: dict[str, list[float]] = {}
    for source, target, value in found["information_shared"]:
        if source:
            told.setdefault(target, []).append(value)
    most = np.minimum(single["information_upper"], single["information"] + single["aggregate_kl"])
    return pd.DataFrame({"low": single["information"], "most": most, "told": pd.Series(told),
                         **{f"{name} {kind}": single[f"factor_{name}_{kind}"] for name in FACTORS for kind in PROBES}})
