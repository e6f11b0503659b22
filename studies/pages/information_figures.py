"""Figures of the page `information`; `board` is that of `studies.pages.information` throughout."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmvm.study.figures import (
    INK,
    MODALITY_MARKERS,
    MUTED,
    SMALLEST,
    WIDTH,
    fraction,
    label_panels,
    modality_colour,
)
from studies.pages.information import CLASSES, COLOURS, FACTORS, MARKERS, NAMES

FACTOR_NAMES = {"digit": "digit", "ink": "ink", "slant": "slant", "crop_y": "crop, down", "crop_x": "crop, across",
                "y": "place, down", "x": "place, across"}
SIZES = (4.0, 6.5, 9.0)  # of marks, from the smallest beta to the largest
CASES = {"gaussian": ("Gaussian", "#0072B2", "o"), "classes": ("ten classes", "#D55E00", "s")}


def methods_of(board: pd.DataFrame) -> list[str]:
    return [method for method in NAMES if method in set(board["method"])]


def size_of(board: pd.DataFrame) -> dict[float, float]:
    """Of the mark of each beta; of a single one the middle."""
    betas = sorted(board["beta"].unique())
    return {beta: float(size) for beta, size in zip(betas, np.linspace(SIZES[0], SIZES[-1], len(betas)) if
                                                    len(betas) > 1 else SIZES[1:2])}


def over_beta(ax: Any, board: pd.DataFrame, x: str, y: str) -> None:
    """A line a method over beta, larger marks for larger betas."""
    sizes = size_of(board)
    for method in methods_of(board):
        line = board[board["method"] == method].sort_values("beta")
        colour = COLOURS[method]
        ax.plot(line[x], line[y], color=colour, linewidth=1, label=NAMES[method], zorder=2)
        for beta, across, up in zip(line["beta"], line[x], line[y]):
            ax.plot(across, up, MARKERS[method], color=colour, markersize=sizes[beta], markeredgecolor="white",
                    markeredgewidth=0.5, zorder=3)


def legend(figure: Figure, board: pd.DataFrame) -> None:
    """Methods by colour and mark and, where there are several, betas by size: lines cross too often to be named at
    their ends."""
    methods, sizes = methods_of(board), size_of(board)
    marks = [plt.Line2D([], [], marker=MARKERS[method], linestyle="", color=COLOURS[method], markersize=6)
             for method in methods]
    names = [NAMES[method] for method in methods]
    if len(sizes) > 1:
        marks += [plt.Line2D([], [], marker="o", linestyle="", color=INK, markersize=size) for size in sizes.values()]
        names += [rf"$\beta$ = {fraction(beta)}" for beta in sizes]
    figure.legend(marks, names, loc="outside lower center", ncols=4, columnspacing=1.2, handletextpad=0.3)


def kept_and_shared(board: pd.DataFrame) -> Figure:
    """What is private that probes read, against the digit in the same latent and the nats that another's tells, in a
    frame around the marks of beta up to 1: of others the lines leave it."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6))
    for ax, column, label in zip(axes, ("digit nonlinear", "shared"),
                                 ("digit, accuracy of the probe", "told by another's latent, nats")):
        over_beta(ax, board, "private", column)
        ax.set(xlabel="private factors, share read", ylabel=label, xlim=around(board, "private"),
               ylim=around(board, column))
    label_panels(axes, ["(a) Private against the digit", "(b) Private against shared"])
    legend(figure, board)
    return figure


def up_to_one(board: pd.DataFrame) -> pd.DataFrame:
    """The lines of beta up to 1, all where there is none."""
    near = board[board["beta"] <= 1]
    return near if len(near) else board


def around(board: pd.DataFrame, column: str) -> tuple[float, float]:
    """Limits of an axis that shows the marks of beta up to 1."""
    near = up_to_one(board)[column]
    edge = 0.05 * max(float(near.max() - near.min()), 0.02)
    return float(near.min() - edge), float(near.max() + edge)


def dotted(ax: Any, y: float, text: str) -> None:
    """A horizontal line with its name on it, at the right."""
    ax.axhline(y, color=MUTED, linewidth=0.9, linestyle=":")
    ax.text(0.98, y, text, color=MUTED, fontsize=SMALLEST, va="bottom", ha="right",
            transform=ax.get_yaxis_transform())


def lines_of(board: pd.DataFrame, axes: Any) -> list[tuple[float, pd.Series]]:
    """Places on the y axis, from the top, a method's betas below each other, and the board's line there; names methods
    at the left of the first panel and, where there are several, betas at the right of the last."""
    y, ticks, names, places = 0.0, [], [], []
    for method in methods_of(board):
        own = board[board["method"] == method].sort_values("beta")
        ticks.append(y - (len(own) - 1) / 2)
        names.append(NAMES[method])
        for _, line in own.iterrows():
            places.append((y, line))
            y -= 1
        y -= 0.6
    for ax in axes:
        ax.set_yticks(ticks, names if ax is axes[0] else [""] * len(names))
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(y + 1, 0.6)
    if board["beta"].nunique() > 1:
        right = axes[-1].secondary_yaxis("right")
        right.set_yticks([place for place, _ in places], [fraction(line["beta"]) for _, line in places])
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        axes[-1].annotate(r"$\beta$", (1, 1), xytext=(5, 4), xycoords="axes fraction", textcoords="offset points")
    return places


def height_of(board: pd.DataFrame) -> float:
    """Inches of a figure that has a line for each of the board's."""
    return 0.155 * len(board) + 0.1 * board["method"].nunique() + 1.1


def factors(board: pd.DataFrame, floors: Mapping[str, float], pixels: pd.DataFrame,
            names: Sequence[str] = FACTORS) -> Figure:
    """A panel a factor: open marks linear, filled ones non-linear probes; dotted what guessing or the digit gives,
    dashed the non-linear probe of `pixels` (`of_pixels`)."""
    figure, axes = plt.subplots(1, len(names), figsize=(WIDTH, height_of(board)))
    for ax, name in zip(axes, names):
        ax.axvline(floors.get(name, 0.0), color=MUTED, linewidth=0.9, linestyle=":")
        ax.axvline(pixels[f"{name} nonlinear"].clip(lower=0).mean(), color=MUTED, linewidth=0.9, linestyle="--")
        ax.set_title(FACTOR_NAMES[name], loc="left")
        ax.set(xlim=(-0.06, 1.06), xlabel="accuracy" if name == "digit" else "$R^2$", xticks=(0, 0.5, 1))
        ax.set_xticklabels(["0", ".5", "1"])
    for y, line in lines_of(board, axes):
        colour, marker = COLOURS[line["method"]], MARKERS[line["method"]]
        for ax, name in zip(axes, names):
            linear, other = np.clip([line[f"{name} linear"], line[f"{name} nonlinear"]], -0.04, 1)
            ax.plot([linear, other], [y, y], color=colour, linewidth=1)
            ax.plot(linear, y, marker, color=colour, markerfacecolor="white", markersize=4.5)
            ax.plot(other, y, marker, color=colour, markersize=4.5)
    figure.legend([plt.Line2D([], [], marker="o", linestyle="", color=INK, markerfacecolor=face, markersize=4.5)
                   for face in ("white", INK)], ["linear probe", "non-linear probe"], loc="outside lower left", ncols=2)
    return figure


def nats(board: pd.DataFrame, pairs: pd.DataFrame, ceiling: float, shared_at_most: float) -> Figure:
    """Of each latent: I(x_m; z_m) between its two estimates, what another tells of it (lowest to highest pair), and the
    total correlation of all."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, height_of(board)))
    for y, line in lines_of(board, axes):
        colour, marker = COLOURS[line["method"]], MARKERS[line["method"]]
        low, high = pairs.loc[(line["method"], line["beta"])]
        for ax, ends, mark in zip(axes, ([line["low"], line["most"]], [low, high], []),
                                  (None, line["shared"], line["correlation"])):
            ax.plot(ends, [y] * len(ends), color=colour, linewidth=2.2 if mark is None else 1.2,
                    marker="|" if mark is None else "", markersize=7)
            if mark is not None:
                ax.plot(mark, y, marker, color=colour, markersize=5)
    log_ticks(axes[0], board["low"].clip(lower=1).min(), board["most"].max())
    for ax, limit in zip(axes, (ceiling, shared_at_most, 2 * shared_at_most)):
        ax.axvline(limit, color=MUTED, linewidth=0.9, linestyle=":")
        ax.set_xlabel("nats")
    for ax in axes[1:]:
        ax.set_xlim(min(0, ax.get_xlim()[0]), None)
    label_panels(axes, ["of its own picture", "told by another's", "total correlation"])
    return figure


def log_ticks(ax: Any, low: float, high: float) -> None:
    """A logarithmic axis with plain numbers."""
    ax.set_xscale("log")
    steps = (1, 10, 100, 1000) if high > 30 * low else (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
    ticks = [tick for tick in steps if 0.7 * low < tick < 1.3 * high]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()


def rate_against_error(board: pd.DataFrame) -> Figure:
    """Shared nats against the error from another's latent, private ones, from least to most, against that from the own
    one, whose axis is for beta up to 1. What lies beyond an axis is named."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8))
    cut = {"other's error": within(board["other's error"]), "own error": crowded(up_to_one(board)["own error"])}
    shown = board.assign(**{y: board[y].where(board[y] <= limit) for y, limit in cut.items()})
    over_beta(axes[0], shown, "shared", "other's error")
    sizes = size_of(shown)
    for method in methods_of(shown):
        line = shown[shown["method"] == method].sort_values("beta")
        axes[1].plot(line["rest most"], line["own error"], color=COLOURS[method], linewidth=0.8,
                     label=NAMES[method])
        for _, one in line.iterrows():
            axes[1].plot([max(one["rest least"], 0.5), one["rest most"]], [one["own error"]] * 2,
                         color=COLOURS[method], linewidth=1.6, alpha=0.55)
            axes[1].plot(one["rest most"], one["own error"], MARKERS[method], color=COLOURS[method],
                         markersize=sizes[one["beta"]], markeredgecolor="white", markeredgewidth=0.5)
    axes[0].axvline(math.log(CLASSES), color=MUTED, linewidth=0.9, linestyle=":")
    seen = shown.dropna(subset=["own error"])
    log_ticks(axes[1], seen["rest least"].clip(lower=1).min(), seen["rest most"].max())
    for ax, x, y in zip(axes, ("told by another's latent, nats", "told by no other, nats"), cut):
        ax.set(xlabel=x, ylabel=f"error from {'another' if ax is axes[0] else 'the own one'}, nats")
        beyond = {f"{NAMES[method]}: above the axis": COLOURS[method] for method in methods_of(board) if (
            (up_to_one(board)["method"] == method) & (up_to_one(board)[y] > cut[y])).any()}
        large = board[board["beta"] > 1]
        if (large[y] > cut[y]).sum() > 1:
            inside = [NAMES[method] for method in methods_of(large[large[y] <= cut[y]])]
            beyond[rf"$\beta$ > 1: above{', but ' * bool(inside)}{' and '.join(inside)}"] = INK
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.08 * (high - low) * len(beyond))
        for i, (text, colour) in enumerate(beyond.items()):
            ax.annotate(text, (0.03, 1 - 0.065 * i), xycoords="axes fraction", va="top", fontsize=SMALLEST,
                        color=colour)
    label_panels(axes, ["(a) Shared", "(b) Private, least to most"])
    legend(figure, board)
    return figure


def within(errors: pd.Series) -> float:
    """Where an axis ends: above all errors but those that are further from the median than twice the median."""
    calm = errors[errors < 3 * errors.median()]
    return float(calm.max() + 0.08 * max(calm.max() - calm.min(), 1.0))


def crowded(errors: pd.Series) -> float:
    """Where an axis ends that spreads most errors: as far above their median as that is above the least."""
    return float(2 * errors.median() - errors.min() + 0.01 * max(errors.median() - errors.min(), 1.0))


def one_model(values: pd.DataFrame, pixels: pd.DataFrame, floors: Mapping[str, float],
              shared_at_most: float) -> Figure:
    """What `by_modality` gives of one model: probes of every factor beside those of `pixels` (`of_pixels`), and nats: a
    bar from the lower to the upper estimate, a mark for what each other's latent tells."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.1), width_ratios=(1.7, 1))
    for i, name in enumerate(FACTORS):
        left.plot([i - 0.35, i + 0.35], [floors.get(name, 0.0)] * 2, color=MUTED, linewidth=0.9, linestyle=":")
    for m, (modality, line) in enumerate(values.iterrows()):
        colour, marker, shift = modality_colour(m), MODALITY_MARKERS[m], 0.22 * (m - (len(values) - 1) / 2)
        for i, name in enumerate(FACTORS):
            linear, other = line[f"{name} linear"], line[f"{name} nonlinear"]
            left.plot([i + shift] * 2, [linear, other], color=colour, linewidth=1)
            left.plot(i + shift, pixels.loc[modality, f"{name} nonlinear"], "_", color=INK, markersize=10, zorder=1)
            left.plot(i + shift, linear, marker, color=colour, markerfacecolor="white", markersize=5)
            left.plot(i + shift, other, marker, color=colour, markersize=5, label=modality if not i else None)
        right.plot([m, m], [line["low"], line["most"]], color=colour, linewidth=2.2, marker="_", markersize=9)
        right.plot([m] * len(line["told"]), line["told"], marker, color=colour, markersize=5)
    left.set_xticks(range(len(FACTORS)), [FACTOR_NAMES[name].replace(", ", ",\n") for name in FACTORS])
    left.set(ylabel="accuracy (digit), $R^2$ (others)", ylim=(min(-0.03, left.get_ylim()[0]), 1.03))
    left.legend(*left.get_legend_handles_labels(), loc="center left", bbox_to_anchor=(0, 0.5))
    right.set_xticks(range(len(values)), values.index)
    right.set(ylabel="nats", ylim=(min(0, right.get_ylim()[0]), None), xlim=(-0.5, len(values) - 0.5))
    dotted(right, shared_at_most, "all that the data share")
    for text, height, side in (("of its own picture", values["low"].min() - 0.25, "top"),
                               ("told by another's", max(map(max, values["told"])) + 0.2, "bottom")):
        right.text(0.02, height, text, fontsize=SMALLEST, va=side, transform=right.get_yaxis_transform())
    label_panels((left, right), ["(a) Read by probes", "(b) Nats of a latent"])
    return figure


def bias(found: pd.DataFrame) -> Figure:
    """Estimates against what is known: a panel each for the rate, what another latent tells and total correlation."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.0))
    for ax, of, most in zip(axes, ("rate", "shared", "correlation"), (20, 12, 12)):
        own = found[found["of"] == of]
        ax.plot([0, most], [0, most], color=INK, linewidth=0.8, linestyle="--", zorder=1)
        for (case, n), part in own.groupby(["case", "n"], sort=False):
            name, colour, marker = CASES[case]
            faint = 0.45 if n < own["n"].max() else 1.0
            for y in ("low", "most") if of == "rate" else ("low",):
                ax.plot(part["known"], part[y], color=colour, marker=marker, markersize=3.5, linewidth=1.1, alpha=faint)
        for ceiling in sorted(set(own["ceiling"])):
            if math.isfinite(ceiling):
                dotted(ax, ceiling, f"log {math.exp(ceiling):,.0f}")
        ax.set(xlabel="known, nats", ylim=(-0.5, 1.25 * most), xlim=(-0.3, most + 0.3))
    axes[0].set_ylabel("estimated, nats")
    figure.legend([plt.Line2D([], [], color=colour, marker=marker, markersize=4)
                   for _, colour, marker in CASES.values()], [name for name, *_ in CASES.values()],
                  loc="outside lower left", ncols=2)
    label_panels(axes, ["$I(x; z)$", "told by another's", "total correlation"])
    return figure
