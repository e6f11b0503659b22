"""Figures of the chapter `collapse`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmvm.study.figures import (
    INK,
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MUTED,
    SMALLEST,
    WIDTH,
    label_lines,
    label_panels,
)
from studies.pages.collapse import GEOMETRIC, KEPT, Factors, thresholds
from studies.pages.information import EXACT

STATES = ("neither", "private alone", "shared alone", "both")
TINTS = ("#EDEDED", "#A9CDE8", "#F7C59F", "#B9DFC2")
MARKERS = ("x", "s", "^", "o")
NAMES = {"independent": "independent", "mmvm": "MMVM, pairwise", "mmvm:bound=monte_carlo": "MMVM, exact mixture",
         "poe": "PoE", "moe": "MoE"}
CHECKED = NAMES | {GEOMETRIC: "MMVM, geometric prior"}


def state(shared: np.ndarray, private: np.ndarray) -> np.ndarray:
    """Number of a state in `STATES` from what is kept of the factors, yes or no."""
    return 2 * np.asarray(shared, int) + np.asarray(private, int)


def diagram(found: pd.DataFrame, factors: Factors, keeps_below: dict[int, float]) -> Figure:
    """A panel a method: regions between the derived thresholds, marks where the optimum was found numerically; last,
    the beta below which P private factors are kept, in units of lambda over sigma^2."""
    shared = np.logspace(np.log10(found["shared"].min()) - 0.15, np.log10(found["shared"].max()) + 0.15, 160)
    betas = np.logspace(np.log10(found["beta"].min()) - 0.15, np.log10(found["beta"].max()) + 0.15, 160)
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 5.4))
    for ax, method in zip(axes.flat, NAMES):
        limits = np.array([thresholds(method, Factors(a, factors.private, factors.noise, factors.likelihood, factors.m))
                           for a in shared])
        region = state(betas[:, None] < limits[:, 0], betas[:, None] < limits[:, 1])
        ax.pcolormesh(shared / factors.private, betas, region, cmap=ListedColormap(TINTS), vmin=-0.5, vmax=3.5,
                      shading="nearest", rasterized=True)
        ax.plot(shared / factors.private, limits[:, 0], color=INK, linewidth=1.3)
        ax.plot(shared / factors.private, limits[:, 1], color=INK, linewidth=1.3, linestyle="--")
        own = found[found["method"] == method]
        of = state(own["about_shared"] > KEPT, own["about_private"] > KEPT)
        for i, marker in enumerate(MARKERS):
            some = own[of == i]
            ax.plot(some["shared"] / factors.private, some["beta"], marker, color=INK, markersize=3.6,
                    markerfacecolor="none" if marker != "x" else INK, markeredgewidth=0.8, linestyle="")
        ax.set(xscale="log", yscale="log", xlim=(shared[0], shared[-1]), ylim=(betas[0], betas[-1]))
        ax.set_title(NAMES[method], loc="left")
    for ax in axes[:, 0]:
        ax.set_ylabel("$\\beta$")
    for ax in (axes[1, 0], axes[1, 1], axes[0, 2]):
        ax.set_xlabel("$a^2 / b^2$")
    last, p = axes[1, 2], np.array(list(keeps_below))
    last.plot(p, list(keeps_below.values()), color=METHOD_COLOURS["mmvm"], marker="o", markersize=4)
    last.plot(p, np.ones(len(p)), color=METHOD_COLOURS["mmvm"], linestyle="--")
    last.plot(p, np.ones(len(p)), color=METHOD_COLOURS["independent"], linestyle=":")
    last.text(p[0], max(keeps_below.values()) / 3, "exact mixture", color=METHOD_COLOURS["mmvm"], fontsize=SMALLEST)
    last.text(p[-1], 1.08, "pairwise and\nindependent", ha="right", va="bottom", fontsize=SMALLEST)
    last.set(xscale="log", yscale="log", xlabel="private factors $P$",
             ylabel="kept below $\\beta$, in $\\lambda / \\sigma^2$")
    last.set_title("several private factors", loc="left")
    handles = [(Patch(facecolor=tint, edgecolor=MUTED), plt.Line2D([], [], color=INK, marker=marker, linestyle="",
                                                                  markerfacecolor="none", markersize=4))
               for tint, marker in zip(TINTS, MARKERS)]
    handles += [plt.Line2D([], [], color=INK, linestyle=style) for style in ("-", "--")]
    figure.legend(handles, [*STATES, "shared dropped above", "private dropped above"], loc="outside lower center",
                  ncols=3, title="kept: region as derived, mark as found", columnspacing=1.5)
    return figure


def digits(runs: pd.DataFrame, private: pd.DataFrame) -> Figure:
    """Probe, share of private factors read and own error of runs over beta: a line a method through the lowest seed,
    which all betas have, the other seeds as dots. Columns method, beta, seed and, of `runs`, probe and own_error, of
    `private`, private."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.9))
    first = runs["seed"].min()
    for method in (name for name in METHOD_NAMES if name in set(runs["method"])):
        for ax, table, column in zip(axes, (runs, private, runs), ("probe", "private", "own_error")):
            own = table[table["method"] == method].sort_values("beta")
            colour, others = METHOD_COLOURS[method], own[own["seed"] > first]
            ax.plot(others["beta"], others[column], "o", color=colour, markersize=3.6, markeredgecolor="white",
                    markeredgewidth=0.4, zorder=3)
            own = own[own["seed"] == first]
            ax.plot(own["beta"], own[column], color=colour, marker=METHOD_MARKERS[method], markersize=4.5,
                    label=METHOD_NAMES[method])
    exact = private[(private["method"] == EXACT) & (private["seed"] == first)].sort_values("beta")
    axes[1].plot(exact["beta"], exact["private"], "--", color=METHOD_COLOURS["mmvm"], marker=METHOD_MARKERS["mmvm"],
                 markersize=4.5, markerfacecolor="white")
    for ax, label in zip(axes, ("linear probe", "private factors, share read", "own error, nats a tuple")):
        ax.set(xlabel="$\\beta$", ylabel=label)
        ax.set_xscale("log", base=2)
    for ax in axes[:2]:
        ax.set_ylim(0, 1)
    axes[0].axhline(0.1, color=MUTED, linewidth=0.9, linestyle=":")
    label_lines(axes[2])
    label_panels(axes, ["(a) Class", "(b) Private, read", "(c) Lost of the rest"])
    return figure
