"""The page `difficulty`: where methods differ on PolyMNIST (`difficulty.csv`): digits of three sizes, standing and
moving, with one net and one schedule."""

import functools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmvm.study.figures import METHOD_COLOURS, METHOD_MARKERS, METHOD_NAMES, MUTED, SMALLEST, WIDTH, fraction, in_order
from studies.pages import translated
from studies.polymnist.study import PolyMNIST

PIXELS = 28            # of MNIST's digits, and of every picture
LEVEL = ["size", "movement"]
# the panels of `who_wins`: what is varied in it, and its levels from easy to hard
COLUMNS = {"smaller, standing": [(28, 0.0), (21, 0.0), (14, 0.0)],
           "21 pixels, moving": [(21, 0.0), (21, 0.5), (21, 1.0)], "14 pixels, moving": [(14, 0.0), (14, 1.0)]}


@functools.cache
def level(said: str) -> tuple[int, float]:
    """Size of a digit in pixels, and how far it moves, of the room it has, in runs whose note begins with `said`, the
    settings that set them apart from the profile."""
    words = [] if said == "the profile" else said.split(";")
    p = PolyMNIST.from_profile("difficulty").with_settings(words)
    return (round(p.scale * PIXELS), p.shift) if p.translated else (PIXELS, 0.0)


def board(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per size, movement, method and beta (the index): the columns of `translated.board`."""
    levels = rows["note"].str.split("; ").str[0].map(level)
    return pd.concat({at: translated.board(part) for at, part in rows.groupby(levels)}, names=LEVEL)


def best(found: pd.DataFrame, by: str = "probe") -> pd.DataFrame:
    """Of a `board` each method at the beta with the highest `by`, at every level; beta is a column then."""
    found = found.sort_values(by, ascending=False).reset_index("beta")
    return found[~found.index.duplicated()].sort_index()


def who_wins(found: pd.DataFrame, metrics: dict[str, str], lines: dict[str, float]) -> Figure:
    """A row a metric (column of a `best` -> label), a column a way to make digits harder, a line a method; `lines`
    (metric -> height) dotted."""
    fig, axes = plt.subplots(len(metrics), len(COLUMNS), figsize=(WIDTH, 2.3 * len(metrics)), sharey="row",
                             sharex="col", width_ratios=[len(levels) for levels in COLUMNS.values()], squeeze=False)
    methods = in_order(found.index.get_level_values("method"))
    for row, (metric, label) in zip(axes, metrics.items()):
        row[0].set_ylabel(label)
        for ax, levels in zip(row, COLUMNS.values()):
            for method in methods:
                heights = [found[metric].get((*at, method), np.nan) for at in levels]
                ax.plot(range(len(levels)), heights, color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method],
                        linewidth=2 if method == "mmvm" else 1.2, zorder=3 if method == "mmvm" else 2)
            if metric in lines:
                ax.axhline(lines[metric], color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
            ax.margins(x=0.12)
    for top, bottom, (title, levels) in zip(axes[0], axes[-1], COLUMNS.items()):
        top.set_title(title, fontsize=SMALLEST, loc="left")
        moves = len({movement for _, movement in levels}) > 1
        bottom.set_xticks(range(len(levels)), [fraction(move) if moves else f"{size}" for size, move in levels])
        bottom.set_xlabel("share of the room" if moves else "pixels")
    fig.legend([plt.Line2D([], [], marker=METHOD_MARKERS[method], color=METHOD_COLOURS[method]) for method in methods],
               [METHOD_NAMES[method] for method in methods], loc="outside lower center", ncols=4)
    return fig


def leads(found: pd.DataFrame, metric: str = "probe") -> pd.DataFrame:
    """MMVM's `metric` less that of every other method of a `best`: a line a level, a column a method."""
    wide = found[metric].unstack("method")
    return wide.drop(columns="mmvm").rsub(wide["mmvm"], axis=0)
