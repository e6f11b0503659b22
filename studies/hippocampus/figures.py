"""Figures of the chapter `hippocampus`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmvm.study.figures import INK, METHOD_COLOURS, METHOD_MARKERS, METHOD_NAMES, MUTED, WIDTH, label_panels

# A to E, then what is left; they repeat
ODOR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#9A8A00") * 4
SHADE = "#dddddd"                                                       # the bins that windows are cut from


def rasters(sessions: dict, odor: int, bins: slice, entry: int = 200, length: int = 25) -> plt.Figure:
    """One trial of `odor` per animal: a mark per bin with spikes, units as rows, busiest at the bottom. Time in ms from
    bin `entry`; shaded are the `length` bins from the session's start."""
    fig, axes = plt.subplots(1, len(sessions), figsize=(WIDTH, 2.9), sharex=True)
    for ax, (name, session) in zip(np.atleast_1d(axes), sessions.items()):
        trial = np.flatnonzero(session.odor == odor)[3]
        spikes = session.spikes[trial, np.argsort(-session.spikes.mean((0, 2)))][:, bins]
        unit, time = np.nonzero(spikes)
        ax.axvspan(10 * (session.start - entry), 10 * (session.start + length - entry), color=SHADE, linewidth=0)
        ax.plot(10 * (time + bins.start - entry), unit, "|", color=INK, markersize=2.2, markeredgewidth=0.7)
        ax.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
        ax.set(title=f"{name}, {len(spikes)}", ylim=(-1, len(spikes)), yticks=[])
        ax.title.set_fontsize(9)
    axes[0].set_ylabel("unit")
    fig.supxlabel("time after port entry, ms", fontsize=10)
    return fig


def unit_by_odor(session, unit: int, odors: str, bins: slice, entry: int = 200, length: int = 25,
                 smooth: int = 5) -> plt.Figure:
    """One unit. Left: all trials, sorted by odor. Right: its rate per odor, a running mean over `smooth` bins."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7), sharex=True)
    first, time = 0, 10 * (np.arange(bins.start, bins.stop) - entry)
    for odor, letter in enumerate(odors):
        spikes = session.spikes[session.odor == odor, unit][:, bins].astype(float)
        row, at = np.nonzero(spikes)
        left.plot(time[at], first + row, "|", color=ODOR_COLOURS[odor], markersize=2.5, markeredgewidth=0.8)
        first += len(spikes)
        rate = np.convolve(100 * spikes.mean(0), np.ones(smooth) / smooth, mode="same")
        right.plot(time, rate, color=ODOR_COLOURS[odor], label=letter, linewidth=1.4)
    for ax in (left, right):
        ax.axvspan(10 * (session.start - entry), 10 * (session.start + length - entry), color=SHADE, linewidth=0,
                   zorder=0)
        ax.set_xlabel("time after port entry, ms")
    left.set(ylabel="trial, sorted by odor", ylim=(-1, first))
    right.set(ylabel="firing rate, Hz", ylim=(0, None))
    right.legend(title="odor", ncols=2)
    label_panels((left, right))
    return fig


def odor_maps(means: dict[str, np.ndarray], labels: np.ndarray, names: list[str], odors: str) -> plt.Figure:
    """Posterior means (M, N, 2) by method (rows) and animal (columns), coloured by odor. A row has the same axes
    throughout, so a place means the same in all its panels."""
    fig, axes = plt.subplots(len(means), len(names), figsize=(WIDTH, 1.62 * len(means) + 0.35), sharex="row",
                             sharey="row", squeeze=False)
    for row, (method, z) in zip(axes, means.items()):
        low, high = (np.nanquantile(z, q, axis=(0, 1)) for q in (0.005, 0.995))
        order = np.random.default_rng(0).permutation(len(labels))  # no odor lies on top of the others
        for ax, animal in zip(row, z):
            ax.scatter(*animal[order].T, s=3, c=[ODOR_COLOURS[y] for y in labels[order]], linewidths=0,
                       antialiased=False)  # a third of the bytes
            _centres(ax, animal, labels)
            margin = 0.08 * (high - low) + 1e-9
            ax.set(xticks=[], yticks=[], xlim=(low[0] - margin[0], high[0] + margin[0]),
                   ylim=(low[1] - margin[1], high[1] + margin[1]))
        row[0].set_ylabel(METHOD_NAMES[method])
    for ax, name in zip(axes[0], names):
        ax.set_title(name)
    _odor_legend(fig, odors)
    return fig


def trajectories(means: dict[str, np.ndarray], labels: np.ndarray, window: np.ndarray, names: list[str],
                 odors: str) -> plt.Figure:
    """The mean of the posterior means over trials, window by window, one line per odor: from the ring (first window) to
    the dot (last). Rows and axes as in `odor_maps`."""
    fig, axes = plt.subplots(len(means), len(names), figsize=(WIDTH, 1.62 * len(means) + 0.35), sharex="row",
                             sharey="row", squeeze=False)
    for row, (method, z) in zip(axes, means.items()):
        for ax, animal in zip(row, z):
            for odor in range(len(odors)):
                path = np.stack([np.nanmean(animal[(labels == odor) & (window == w)], axis=0)
                                 for w in np.unique(window)])
                ax.plot(*path.T, color=ODOR_COLOURS[odor], linewidth=1.3)
                ax.plot(*path[0], "o", color=ODOR_COLOURS[odor], markersize=4, markerfacecolor="white")
                ax.plot(*path[-1], "o", color=ODOR_COLOURS[odor], markersize=4)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(METHOD_NAMES[method])
    for ax, name in zip(axes[0], names):
        ax.set_title(name)
    _odor_legend(fig, odors)
    return fig


def in_and_out_of_sample(board: pd.DataFrame, chance: float) -> plt.Figure:
    """Shared probe of each method, tested on training trials and on others, with the animals' own odors and with
    permuted ones. Columns method, tested, odors, value, sd."""
    conditions = [(tested, odors) for odors in ("real", "permuted") for tested in ("in sample", "out of sample")]
    fig, ax = plt.subplots(figsize=(WIDTH, 2.7))
    methods = [method for method in METHOD_NAMES if method in set(board["method"])]
    for i, method in enumerate(methods):
        for j, (tested, odors) in enumerate(conditions):
            cell = board[(board["method"] == method) & (board["tested"] == tested) & (board["odors"] == odors)]
            if len(cell):
                ax.errorbar(j + 0.16 * (i - (len(methods) - 1) / 2), cell["value"].iloc[0], yerr=cell["sd"].iloc[0],
                            color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method], capsize=3, linestyle="",
                            markersize=7, label=METHOD_NAMES[method] if j == 0 else None)
    ax.axhline(chance, color=MUTED, linewidth=0.9, linestyle=":")
    ax.set(xticks=range(4), xticklabels=[f"{odors} odors,\ntested {tested}" for tested, odors in conditions],
           ylabel="shared probe, accuracy", ylim=(0, 1.02), xlim=(-0.5, 3.5))
    ax.legend(loc="upper right")
    return fig


def _centres(ax, z: np.ndarray, labels: np.ndarray) -> None:
    for odor in np.unique(labels):
        ax.plot(*np.nanmean(z[labels == odor], axis=0), "o", color=ODOR_COLOURS[odor], markersize=6,
                markeredgecolor="white", markeredgewidth=1)


def _odor_legend(fig, odors: str) -> None:
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=ODOR_COLOURS[i], label=letter)
               for i, letter in enumerate(odors)]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(odors), title=None, handletextpad=0.1)
