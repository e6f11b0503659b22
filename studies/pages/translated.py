"""The page `translated`: the methods on translated digits with one net and one schedule (`polymnist_grid.csv`)."""

import functools

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmvm.study import results
from mmvm.study.figures import (
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MUTED,
    SMALLEST,
    WIDTH,
    fraction,
    in_order,
    label_panels,
)
from studies.pages.intervals import half_of_students
from studies.polymnist.study import PolyMNIST

VARIATIONAL = "mmvm:bound=variational"
# of a board: metric and target of the rows
COLUMNS = {"probe": ("probe", "mean"), "m0": ("probe", "m0"), "m1": ("probe", "m1"), "m2": ("probe", "m2"),
           "self": ("coherence", "self"), "cross": ("coherence", "cross"), "nats": ("latent_information", "mean"),
           "own error": ("own_error", "sum"), "training's error": ("reconstruction", "sum"),
           "imputation": ("imputation", "cross")}


@functools.cache
def chance() -> float:
    """The share of the commonest digit among the grid's validation tuples: what naming it always would get."""
    labels = PolyMNIST.from_profile("grid").data("test").labels
    return float(labels.bincount().max() / len(labels))


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per method, beta and seed (the index), with `COLUMNS`. `self` and `cross`: how often a picture made of its
    own and of another modality's latent shows the digit; `nats` a modality's latent holds; errors in nats per tuple,
    `imputation` per picture made of another's latent."""
    own = results.with_own_error(rows)
    own = own[own["source"] == ""]
    named = {key: column for column, key in COLUMNS.items()}
    own = own.assign(column=pd.Series(list(zip(own["metric"], own["target"])), index=own.index).map(named))
    lines = own.dropna(subset=["column"]).groupby(["method", "beta", "seed", "column"])["value"].mean()
    return lines.unstack()[list(COLUMNS)]


def board(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per method and beta (the index), the mean of `by_seed`, and `seeds`, how many; the highest probe first."""
    lines = by_seed(rows).groupby(level=["method", "beta"])
    return lines.mean().join(lines.size().rename("seeds")).sort_values("probe", ascending=False)


def spread(rows: pd.DataFrame, reference: tuple[str, float]) -> pd.DataFrame:
    """A line per method and beta with two seeds or more, the highest probe first: mean and, as "<column> sd", standard
    deviation of `COLUMNS`, `seeds`, and of "<column> lead", the mean difference to `reference`, one of these lines,
    with the same seed, half of its 95 % interval as "<column> half" (Student's t over the seeds that both have; NaN
    beside itself or below two)."""
    each = ["method", "beta"]
    lines = by_seed(rows).groupby(level=each).filter(lambda own: len(own) > 1)
    of_line = lines.groupby(level=each)
    apart = lines.drop(reference).sub(lines.loc[reference], level="seed").dropna().groupby(level=each)
    return of_line.mean().join([of_line.std(ddof=1).add_suffix(" sd"), of_line.size().rename("seeds"),
                                apart.mean().add_suffix(" lead"), apart.agg(half_of_students).add_suffix(" half")]
                               ).sort_values("probe", ascending=False)


def against_error(found: pd.DataFrame, level: dict[str, float], several: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """A line a method from its smallest beta to its largest: the probe of a `board` over the own error, beside it the
    paper's, of the columns method, beta, reconstruction and probe, and how often own pictures show the digit.

    Betas are written at MMVM's points; bars are the standard deviations of `several`, a `spread`; `level` (probe, self)
    dotted.
    """
    fig, (here, there, own) = plt.subplots(1, 3, figsize=(WIDTH, 3.3), width_ratios=(1.3, 1.1, 1))
    here.sharey(there)
    for ax, metric in ((here, "probe"), (own, "self")):
        _lines(ax, found.reset_index().rename(columns={"own error": "x", metric: "y"}), (3, 3))
        for (method, _), line in several.iterrows():
            ax.errorbar(line["own error"], line[metric], yerr=line[f"{metric} sd"], xerr=line["own error sd"],
                        color=METHOD_COLOURS[method], elinewidth=1, capsize=2, linestyle="")
        ax.axhline(level[metric], color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
    _lines(there, paper.rename(columns={"reconstruction": "x", "probe": "y"}), (4, 1), {1 / 64, 1 / 8, 1, 2, 8})
    for ax, label, error in ((here, "linear probe", "own error (nats)"), (there, "linear probe", "its error (nats)"),
                             (own, "own pictures that show it", "own error (nats)")):
        ax.set(xlabel=error, ylabel=label)
    label_panels((here, there, own), ["(a) Here", "(b) In the paper", "(c) Here"])
    shown = in_order([*found.index.get_level_values("method"), *paper["method"]])
    fig.legend([plt.Line2D([], [], marker=METHOD_MARKERS[method], color=METHOD_COLOURS[method], linewidth=1)
                for method in shown], [METHOD_NAMES[method] for method in shown], loc="outside lower center", ncols=4)
    return fig


def _lines(ax: Axes, points: pd.DataFrame, offset: tuple[int, int], written: set[float] | None = None) -> None:
    """A line a method of the columns method, beta, x and y; at MMVM's points its betas, or those that are `written`."""
    for method in in_order(points["method"]):
        line, mine = points[points["method"] == method].sort_values("beta"), method == "mmvm"
        ax.plot(line["x"], line["y"], color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method],
                linewidth=2 if mine else 1, markersize=5 if mine else 4, zorder=3 if mine else 2)
        for beta, x, y in zip(line["beta"], line["x"], line["y"]) if mine else ():
            if written is None or beta in written:
                ax.annotate(fraction(beta), (x, y), xytext=offset, textcoords="offset points", fontsize=SMALLEST)


def lengths(short: pd.DataFrame, long: pd.DataFrame) -> pd.DataFrame:
    """A line per method, beta and number of updates (the index) of those in `long`, in it and, with the same seeds, in
    `short`: the columns of `board`."""
    boards = [board(rows).assign(updates=rows["updates"].max()) for rows in (of_same(short, long), long)]
    return pd.concat(boards).set_index("updates", append=True).sort_index()


def of_same(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Those of `rows` whose method, beta and seed `others` have, too."""
    each = ["method", "beta", "seed"]
    return rows.merge(others[each].drop_duplicates(), on=each)


def over_updates(short: pd.DataFrame, long: pd.DataFrame, floor: float) -> Figure:
    """(a) the probe and (b) the training's error over updates, mean over modalities and seeds: a line a method of
    `long`, its runs in `short` with the same seeds thin; `floor` dotted."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.0))
    for ax, metric, label in zip(axes, ("probe_curve", "reconstruction_curve"), ("linear probe", "its error (nats)")):
        for rows, width in ((of_same(short, long), 0.9), (long, 2.0)):
            for method, own in rows[rows["metric"] == metric].groupby("method"):
                line = own["value"].groupby(own["source"].astype(int)).mean()
                ax.plot(line.index, line, color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method],
                        markersize=2 * width, linewidth=width, label=METHOD_NAMES[method] if width > 1 else None)
        ax.set(xlabel="updates", ylabel=label)
    axes[0].axhline(floor, color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
    label_panels(axes)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A `board` as the page shows it."""
    digits = {"nats": "{:.1f}", **{name: "{:,.0f}" for name in ("own error", "training's error", "imputation")}}
    shown = pd.DataFrame({name: found[name].map(digits.get(name, "{:.2f}").format) for name in COLUMNS})
    names = {**METHOD_NAMES, VARIATIONAL: "MMVM, variational bound"}
    return shown.rename(index=names, level="method").rename(index=fraction, level="beta").rename_axis(
        ["", "β"]).rename(columns={"self": "own", "cross": "imputed", "training's error": "training's",
                                   "imputation": "imputation's"})


def spread_table(found: pd.DataFrame) -> pd.DataFrame:
    """A `spread` as the page shows it: means with standard deviations, and the probe's lead with its interval."""
    digits = {"probe": ".3f", "self": ".2f", "cross": ".3f", "own error": ",.0f"}
    shown = pd.DataFrame({name: [f"{mean:{form}} ± {sd:{form}}" for mean, sd in zip(found[name], found[f"{name} sd"])]
                          for name, form in digits.items()}, index=found.index)
    lead = [f"{lead:+.3f} ± {half:.3f}" if half == half else "" for lead, half in zip(
        found["probe lead"], found["probe half"])]
    shown = shown.assign(**{"probe's lead": lead, "seeds": found["seeds"]})
    return shown.rename(index=METHOD_NAMES, level="method").rename(index=fraction, level="beta").rename_axis(
        ["", "β"]).rename(columns={"self": "own", "cross": "imputed"})
