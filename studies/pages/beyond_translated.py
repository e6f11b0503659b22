"""The page `beyond`, translated digits: other pools and older joint models, at the setting of the page `translated`."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mmvm.study import results
from mmvm.study.figures import METHOD_COLOURS, METHOD_MARKERS, METHOD_NAMES, MUTED, SMALLEST, WIDTH, label_panels
from studies.pages import translated

BESIDE = ("mmvm", "mvtcae", "poe", "independent")  # of the page's methods
# text -> name, colour, marker: priors of MMVM in shades of its own colour
BEYOND = {"mmvm:prior=geometric": ("MMVM, geometric prior", "#E69F00", "v"),
          "mmvm:prior=hellinger": ("MMVM, Hellinger prior", "#CC79A7", "^"),
          "hellinger": ("joint: Hellinger", "#009E73", "D"), "jmvae": ("JMVAE", "#56B4E9", "X"),
          "mvae": ("MVAE", "#0072B2", "P"), "mmvae": ("MMVAE", "#000000", "h")}


def board() -> pd.DataFrame:
    """A `translated.board` of `BEYOND` and `BESIDE`: a line per method and beta, the highest probe first."""
    grid = results.read("polymnist_grid")
    return translated.board(pd.concat([results.read("polymnist_grid_beyond"), grid[grid["method"].isin(BESIDE)]]))


def best(found: pd.DataFrame) -> pd.DataFrame:
    """Of a `board` each method at the beta of its highest probe."""
    return found[~found.index.get_level_values("method").duplicated()]


def against_error(found: pd.DataFrame, level: dict[str, float]) -> Figure:
    """A line a method over beta, against the own error: (a) the probe, (b) how often imputed pictures show the digit;
    `BESIDE` thin and grey but for their marks; `level` ("probe", "cross") dotted."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6))
    there = set(found.index.get_level_values("method"))
    shown = {method: style for method, style in (BEYOND | {method: (
        METHOD_NAMES[method], METHOD_COLOURS[method], METHOD_MARKERS[method]) for method in BESIDE}).items()
        if method in there}
    for ax, metric, label in zip(axes, ("probe", "cross"), ("linear probe", "imputed pictures that show it")):
        for method, (name, colour, marker) in shown.items():
            line, own = found.loc[method].sort_index(), method in BEYOND
            ax.plot(line["own error"], line[metric], color=colour if own else MUTED, linewidth=1.6 if own else 0.7,
                    linestyle="-" if own else (0, (2, 2)), zorder=3 if own else 2)
            ax.plot(line["own error"], line[metric], marker, color=colour, label=name, markersize=6 if own else 4,
                    markerfacecolor=colour if own else "white", zorder=3 if own else 2)
        ax.axhline(level[metric], color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
        ax.set(xlabel="own error (nats)", ylabel=label)
    label_panels(axes)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=SMALLEST)
    return fig


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A `board` as the page shows it."""
    return translated.table(found.rename(index={method: name for method, (name, *_) in BEYOND.items()}, level="method"))
