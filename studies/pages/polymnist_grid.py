"""The methods on translated digits with one net and one schedule (`polymnist_grid.csv`)."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mmvm.study import results
from mmvm.study.figures import (
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MUTED,
    WIDTH,
    fraction,
    in_order,
    label_panels,
)

VARIATIONAL = "mmvm:bound=variational"
# of a board: metric and target of the rows
COLUMNS = {"probe": ("probe", "mean"), "m0": ("probe", "m0"), "m1": ("probe", "m1"), "m2": ("probe", "m2"),
           "self": ("coherence", "self"), "cross": ("coherence", "cross"), "nats": ("latent_information", "mean"),
           "own error": ("own_error", "sum"), "training's error": ("reconstruction", "sum"),
           "imputation": ("imputation", "cross")}


def board(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per method and beta (the index), mean over seeds, the highest probe first: columns as `COLUMNS`, and
    `seeds`. `self` and `cross`: how often a picture made of its own and of another modality's latent shows the digit;
    `nats` a modality's latent holds; errors in nats per tuple, `imputation` per picture made of another's latent."""
    own = results.with_own_error(rows)
    own = own[own["source"] == ""]
    named = {key: column for column, key in COLUMNS.items()}
    own = own.assign(column=pd.Series(list(zip(own["metric"], own["target"])), index=own.index).map(named))
    found = own.dropna(subset=["column"]).groupby(["method", "beta", "column"])["value"].mean().unstack()
    seeds = own.groupby(["method", "beta"])["seed"].nunique().rename("seeds")
    return found[list(COLUMNS)].join(seeds).sort_values("probe", ascending=False)


def against_error(found: pd.DataFrame, metrics: dict[str, str], level: dict[str, float]) -> Figure:
    """Columns of a `board` over the own error, a panel per entry of `metrics` (column -> label): a line a method from
    its smallest beta to its largest, those of MMVM named; `level` (column -> value) dotted."""
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 3.2), sharex=True, squeeze=False)
    shown = in_order(found.index.get_level_values("method"))
    for ax, (metric, label) in zip(axes[0], metrics.items()):
        for method in shown:
            line, mine = found.loc[method].sort_index(), method == "mmvm"
            ax.plot(line["own error"], line[metric], color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method],
                    linewidth=2 if mine else 1, markersize=6 if mine else 4.5, zorder=3 if mine else 2)
        for beta, point in found.loc["mmvm"].sort_index().iterrows():
            ax.annotate(fraction(beta), (point["own error"], point[metric]), xytext=(7, 3), textcoords="offset points")
        ax.axhline(level[metric], color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
        ax.set(xlabel="own error (nats)", ylabel=label)
    label_panels(axes[0])
    fig.legend([plt.Line2D([], [], marker=METHOD_MARKERS[method], color=METHOD_COLOURS[method], linewidth=1)
                for method in shown], [METHOD_NAMES[method] for method in shown], loc="outside lower center", ncols=4)
    return fig


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A `board` as the page shows it."""
    digits = {"nats": "{:.1f}", **{name: "{:,.0f}" for name in ("own error", "training's error", "imputation")}}
    shown = pd.DataFrame({name: found[name].map(digits.get(name, "{:.2f}").format) for name in COLUMNS})
    names = {**METHOD_NAMES, VARIATIONAL: "MMVM, variational bound"}
    return shown.rename(index=names, level="method").rename(index=fraction, level="beta").rename_axis(
        ["", "β"]).rename(columns={"self": "own", "cross": "imputed", "training's error": "training's",
                                   "imputation": "imputation's"})
