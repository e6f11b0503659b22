"""Scores against the reconstruction error, a line per method over beta, as the paper's figure 2."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from mmvm.study.figures import (
    INK,
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MUTED,
    SMALLEST,
    WIDTH,
    fraction,
    in_order,
)


def tradeoff(boards: dict[str, pd.DataFrame], metrics: dict[str, str], floors: dict[str, float],
             shared_axes: bool = True, error: str | Mapping[str, str] = "reconstruction error, nats per tuple",
             edges: Mapping[str, pd.DataFrame] | None = None) -> plt.Figure:
    """`metrics` (column -> label) against the reconstruction error, one line per method over beta, one column of
    panels per entry of `boards` (title -> columns method, beta, reconstruction and the metrics). A column "<metric> sd"
    is drawn as a bar where it is a number; a metric that a board lacks leaves its panel out. `error` names the x axis,
    of all or by title; `edges` (title -> columns method and metrics) are scores of which no error is known, drawn at
    the right edge, hollow."""
    fig, axes = plt.subplots(len(metrics), len(boards), figsize=(WIDTH, 2.5 * len(metrics)), squeeze=False,
                             sharex="col", sharey="row" if shared_axes else False)
    handles, names = {}, []
    for column, (title, board) in zip(axes.T, boards.items()):
        column[0].set_title(title, loc="left")
        for ax, metric in zip(column, metrics):
            if metric not in board:
                ax.axis("off")
                continue
            ax.axvline(floors[title], color=MUTED, linewidth=0.8, linestyle=":")
            for method in in_order(board["method"])[::-1]:
                line = board[board["method"] == method].sort_values("beta")
                spread = {axis: line.get(f"{name} sd") for axis, name in (("xerr", "reconstruction"), ("yerr", metric))}
                handles[method] = ax.errorbar(
                    line["reconstruction"], line[metric], **spread, color=METHOD_COLOURS[method],
                    marker=METHOD_MARKERS[method], linewidth=1.2, capsize=2, elinewidth=1, label=METHOD_NAMES[method],
                    zorder=3 if method == "mmvm" else 2)
            for _, line in (edges or {}).get(title, board.iloc[:0]).iterrows():
                ax.plot(0.985, line[metric], transform=ax.get_yaxis_transform(), color=METHOD_COLOURS[line["method"]],
                        marker=METHOD_MARKERS[line["method"]], fillstyle="none", linestyle="none", clip_on=False)
            shown = board[board["method"] == "mmvm"].sort_values("beta")
            names += _name_ends(ax, shown["reconstruction"], shown[metric],
                                [rf"$\beta$={fraction(b)}" for b in shown["beta"]], METHOD_COLOURS["mmvm"])
        lowest = [ax for ax in column if ax.axison][-1]
        lowest.set_xlabel(error if isinstance(error, str) else error[title])
        lowest.tick_params(labelbottom=True)
    for ax, label in zip(axes[:, 0], metrics.values()):
        ax.set_ylabel(label)
    hollow = Line2D([], [], color=INK, marker="o", fillstyle="none", linestyle="none", label="hollow: error not known")
    fig.legend(handles=[handles[method] for method in in_order(handles)] + [hollow] * bool(edges),
               loc="outside lower center", ncols=4)
    _keep_within(fig, names)
    return fig


def _name_ends(ax: Any, x: pd.Series, y: pd.Series, names: Sequence[str], colour: str) -> list[Annotation]:
    """The names of a line's two ends, each beyond its end, where the line does not go."""
    ax.margins(0.12, 0.14)
    ax.autoscale_view()
    points, texts = ax.transData.transform(np.column_stack([x, y])), []
    for end, inner in ((0, 1), (-1, -2)) if len(points) > 1 else ():
        right, up = (points[end] - points[inner]) / (np.linalg.norm(points[end] - points[inner]) + 1e-9)
        texts.append(ax.annotate(
            names[end], (x.iloc[end], y.iloc[end]), xytext=(4 + 14 * right, 9 * np.sign(up)), ha="center", va="center",
            textcoords="offset points", fontsize=SMALLEST, color=colour, zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground="white")]))  # to be read over bars
    return texts


def _keep_within(fig: plt.Figure, names: Sequence[Annotation], rim: float = 3.0) -> None:
    """Moved off the axes and their numbers, `rim` points into the panel, once its place is known."""
    fig.draw_without_rendering()
    points = 72 / fig.dpi
    for text in names:
        box, panel = text.get_window_extent(), text.axes.get_window_extent()
        text.xyann = (text.xyann[0] + max(panel.x0 - box.x0 + rim / points, 0) * points,
                      text.xyann[1] + max(panel.y0 - box.y0 + rim / points, 0) * points)
