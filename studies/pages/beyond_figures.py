"""Figures of the chapter `beyond`."""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from mmvm.study.figures import INK, METHOD_COLOURS, METHOD_MARKERS, MUTED, SMALLEST, WIDTH, label_panels, show_image
from studies.pages.beyond import FAMILY, JOINT, PEERS

STYLES = {"single draws": ("#009E73", "-", "o"), "variational": ("#0072B2", "-.", "s"),
          "pairwise": ("#D55E00", "--", "^"), "one Gaussian": ("#CC79A7", ":", "D")}
AT = {"poe": -0.1, "hellinger": 0.5, "hellinger:pool=exact": 0.5,
      "hellinger:pool=components,bhattacharyya=joint": 0.5, "moe": 1.0}
PULLS = {"grows": ("#D55E00", "^"), "fades": ("#0072B2", "s"), "joint posterior": ("#009E73", "D"),
         "independent": (METHOD_COLOURS["independent"], "o")}
PULL_NAMES = {"grows": "prior, pull grows", "fades": "prior, pull fades", "joint posterior": "joint posterior",
              "independent": "independent VAEs"}
NAMED = {"mmvm": ("MMVM", -13), "poe": ("PoE", 5), "mvae": ("MVAE", 5), "jmvae": ("JMVAE", 5)}  # and points above
PANELS = {"probe_shared": "shared probe", "transfer": "transfer to others", "state_recovery": "own state, $R^2$",
          "squared_error": "own error"}


def over_exponent(board: pd.DataFrame, chance: float) -> Figure:
    """`board` of `beyond.pools`: a panel a measure over the exponent of MMVM's prior, a line per quantity that is
    trained; joint posteriors as marks of their own."""
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.0), sharex=True)
    for ax, metric in zip(axes.flat, PANELS):
        for name, members in FAMILY.items():
            there = {t: text for t, text in members.items() if text in board.index}
            if set(there) <= {0.0}:  # the point that all lines share
                continue
            own = board.loc[list(there.values())]
            colour, style, marker = STYLES[name]
            ax.errorbar(list(there), own[metric], own[f"{metric} sd"].fillna(0), color=colour, linestyle=style,
                        marker=marker, linewidth=1.4, elinewidth=0.8, capsize=2, label=f"prior: {name}")
        for text in JOINT:
            if text in board.index:
                plain = text.partition(":")[0]
                ax.errorbar(AT[text], board.loc[text, metric], np.nan_to_num(board.loc[text, f"{metric} sd"]),
                            color=METHOD_COLOURS[plain], marker=METHOD_MARKERS[plain], linestyle="", markersize=7,
                            markerfacecolor="none" if ":" in text else METHOD_COLOURS[plain], elinewidth=0.8,
                            capsize=2, label=f"joint: {JOINT[text]}")
        if "independent" in board.index:
            ax.axhline(board.loc["independent", metric], color=METHOD_COLOURS["independent"], linewidth=1,
                       linestyle=(0, (1, 1)), label="independent VAEs")
        ax.set_ylabel(PANELS[metric])
        ticks = {-0.1: "PoE"} if "poe" in board.index else {}
        ticks |= {0: "0", 0.25: "¼", 0.5: "½", 0.75: "¾", 1: "1"}
        ax.set(xlim=(min(ticks) - 0.07, 1.07), xticks=list(ticks), xticklabels=list(ticks.values()))
    axes[0, 0].axhline(chance, color=MUTED, linewidth=0.8, linestyle=":")
    for ax in axes[1]:
        ax.set_xlabel("exponent")
    label_panels(axes.flat, ["(a) Do the rats agree?", "(b) Does a readout carry over?", "(c) Is what is private kept?",
                             "(d) Reconstruction (lower is better)"])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure


def frontier(board: pd.DataFrame, chance: float) -> Figure:
    """`board` of `beyond.frontier`: shared probe against the own state's R^2, a thin line a method over beta, larger
    marks for larger betas, coloured by what its pull does with the distance; those without a name are pale."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.6))
    sizes = {beta: float(size) for beta, size in zip(sorted(board["beta"].unique()), np.linspace(
        3, 8, board["beta"].nunique()))}
    for group, (colour, marker) in PULLS.items():
        for name, own in board[board["group"] == group].groupby("method"):
            own = own.sort_values("beta")
            clear = 1.0 if name in NAMED or group == "independent" else 0.4
            ax.plot(own["state_recovery"], own["probe_shared"], color=colour, linewidth=0.8, alpha=0.7 * clear,
                    zorder=1)
            for beta, x, y in zip(own["beta"], own["state_recovery"], own["probe_shared"]):
                ax.plot(x, y, marker, color=colour, markersize=sizes[beta], markeredgecolor="white",
                        markeredgewidth=0.5, alpha=clear, zorder=2)
    for text, (name, above) in NAMED.items():
        own = board[board["method"] == text]
        if len(own):
            point = own.loc[own["state_recovery"].idxmax()] if text in PEERS else own.loc[own["probe_shared"].idxmax()]
            ax.annotate(name, (point["state_recovery"], point["probe_shared"]), (5, above), textcoords="offset points",
                        fontsize=SMALLEST, color=INK, zorder=4,
                        path_effects=[withStroke(linewidth=2.5, foreground="white")])
    ax.axhline(chance, color=MUTED, linewidth=0.8, linestyle=":")
    ax.set(xlabel=PANELS["state_recovery"], ylabel=PANELS["probe_shared"])
    marks = [plt.Line2D([], [], marker=marker, linestyle="", color=colour, markersize=6)
             for group, (colour, marker) in PULLS.items() if (board["group"] == group).any()]
    names = [PULL_NAMES[group] for group in PULLS if (board["group"] == group).any()]
    marks += [plt.Line2D([], [], marker="o", linestyle="", color=INK, markersize=size) for size in sizes.values()]
    names += [f"$\\beta$ = $10^{{{math.log10(beta):.3g}}}$" for beta in sizes]
    figure.legend(marks, names, loc="outside lower center", ncols=4, columnspacing=1.2)
    return figure


def sheets_of_100(made: Mapping[str, Tensor]) -> Figure:
    """Ten rows of ten pictures, title -> (100, 3, H, W): two such sheets beside each other."""
    figure, axes = plt.subplots(-(-len(made) // 2), 2, figsize=(WIDTH - 0.1, 3.3 * -(-len(made) // 2)))
    for ax, (title, images) in zip(axes.flat, made.items()):
        rows = [torch.cat(list(row), -1) for row in images.split(10)]
        show_image(ax, torch.cat(rows, -2).numpy())
        ax.set_title(title, fontsize=SMALLEST + 1, color=INK, loc="left")
    for ax in axes.flat[len(made):]:
        ax.set_axis_off()
    return figure


def sheets(made: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Joint draws, title -> modality -> (n, 3, H, W): a block a title, a row a modality, a column a draw."""
    n, m = len(next(iter(next(iter(made.values())).values()))), len(next(iter(made.values())))
    width = WIDTH - 0.1  # what is saved has a margin on top
    cell, head, gap = width / n, 0.26, 0.06
    block = m * cell + head + gap
    figure = plt.figure(figsize=(width, block * len(made)), layout="none")
    height = block * len(made)
    for b, (title, rows) in enumerate(made.items()):
        top = height - b * block - head
        figure.text(0, (top + 0.07) / height, title, color=INK, fontsize=SMALLEST + 1)
        for r, images in enumerate(rows.values()):
            for k, image in enumerate(images):
                bottom = top - (r + 1) * cell
                ax = figure.add_axes((k / n, bottom / height, 0.97 / n, 0.97 * cell / height))
                show_image(ax, image.numpy())
    return figure
