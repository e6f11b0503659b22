"""Figures of the chapter `hippocampus`."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmvm.study.figures import (
    INK,
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MUTED,
    SMALLEST,
    WIDTH,
    in_order,
    label_lines,
    label_panels,
)

# A to E, then what is left; they repeat
ODOR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#692D00") * 4
SHADE = "#dddddd"                                                       # the bins that windows are cut from


def _stretch(session, known: bool) -> tuple[slice, Callable]:
    """The bins that are shown, and the time of a bin: of trials with a known event (`known`) from 50 bins before it to
    100 after and all that windows are cut from, in ms from the event; of others all, numbered."""
    n = session.spikes.shape[2]
    if not known:
        return slice(0, n), lambda at: np.asarray(at)
    low, high = (min(session.entry, session.start) - 50, max(session.entry + 100, session.start + 50))
    return slice(max(low, 0), min(high, n)), lambda at: session.bin_ms * (np.asarray(at) - session.entry)


def _time_label(known: bool) -> str:
    return "time after port entry, ms" if known else "bin of the trial"


def rasters(sessions: dict, odor: int, length: int = 25) -> plt.Figure:
    """A trial of class `odor` per animal, its fourth or its last: a mark per bin with spikes, units as rows, busiest at
    the bottom. Time in ms from the event where all sessions know theirs, else in bins; shaded are the `length` bins
    from the session's start. An animal without such a trial has an empty panel."""
    known = all(session.entry is not None for session in sessions.values())
    fig, axes = plt.subplots(1, len(sessions), figsize=(WIDTH, 2.9), sharex=known, squeeze=False)
    for ax, (name, session) in zip(axes[0], sessions.items()):
        bins, time = _stretch(session, known)
        spikes = session.spikes[np.flatnonzero(session.odor == odor)[:4][-1:]].sum(0)
        unit, at = np.nonzero(spikes[np.argsort(-session.spikes.mean((0, 2)))][:, bins])
        ax.axvspan(time(session.start), time(min(session.start + length, spikes.shape[1])), color=SHADE, linewidth=0)
        ax.plot(time(at + bins.start), unit, "|", color=INK, markersize=2.2, markeredgewidth=0.7)
        if known:
            ax.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
        ax.set(title=f"{name}, {len(spikes)}", ylim=(-1, len(spikes)), yticks=[])
        ax.title.set_fontsize(SMALLEST)
    axes[0, 0].set_ylabel("unit")
    fig.supxlabel(_time_label(known), fontsize=10)
    return fig


def clearest_unit(session, classes: Sequence[int], length: int = 25) -> int:
    """The unit whose counts in the `length` bins from the start differ most between classes, over their noise."""
    counts = session.spikes[:, :, session.start:session.start + length].sum(2).astype(float)
    per_odor = np.stack([counts[session.odor == odor].mean(0) for odor in classes if (session.odor == odor).any()])
    return int(np.argmax(per_odor.var(0) / (counts.mean(0) + 0.2)))


def unit_by_odor(session, unit: int, odors: Mapping[str, int], length: int = 25, smooth: int = 5) -> plt.Figure:
    """One unit. Left: all trials of the classes in `odors` (name -> number), a band per class, its name beside it.
    Right: its rate per class, a running mean over `smooth` bins, in Hz where the bins' width is known."""
    known = session.entry is not None
    bins, time = _stretch(session, known)
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7), sharex=True)
    first, smooth = 0, min(smooth, bins.stop - bins.start)
    for colour, (name, odor) in zip(ODOR_COLOURS, odors.items()):
        spikes = session.spikes[session.odor == odor, unit][:, bins].astype(float)
        row, at = np.nonzero(spikes)
        left.plot(time(at + bins.start), first + row, "|", color=colour, markersize=2.5, markeredgewidth=0.8)
        left.text(1.02, first + len(spikes) / 2, name, color=colour, fontsize=SMALLEST, va="center",
                  transform=left.get_yaxis_transform())
        first += len(spikes)
        rate = (1000 / session.bin_ms if known else 1) * (spikes.mean(0) if len(spikes) else spikes.sum(0))
        over, there = (np.convolve(x, np.ones(smooth), mode="same") for x in (rate, np.ones(len(rate))))
        right.plot(time(np.arange(bins.start, bins.stop)), over / there,  # at the edges of the bins that there are
                   color=colour, label=name, linewidth=1.4)
    for ax in (left, right):
        ax.axvspan(time(session.start), time(min(session.start + length, session.spikes.shape[2])), color=SHADE,
                   linewidth=0, zorder=0)
        ax.set_xlabel(_time_label(known))
    left.set(ylabel="trial, sorted", ylim=(-1, max(first, 1)))
    right.set(ylabel="firing rate, Hz" if known else "spikes per bin", ylim=(0, None))
    label_lines(right)
    label_panels((left, right), ["spikes, a band of trials per odor", "rate per odor"])
    return fig


def _plane(z: np.ndarray) -> tuple[np.ndarray, str]:
    """Means (M, N, D) in a plane (M, N, 2), and what is said of it where that is not the latent space: of more numbers
    the first two principal components of all animals together, one number beside 0."""
    if z.shape[-1] < 2:
        return np.concatenate([z, np.where(np.isnan(z), np.nan, 0)], -1), ", one latent"
    if z.shape[-1] == 2:
        return z, ""
    centred = z - np.nanmean(z, axis=(0, 1))
    axes = np.linalg.svd(centred[~np.isnan(z).any(-1)], full_matrices=False)[2][:2]
    return centred @ axes.T, f", PCA of {z.shape[-1]}"


def odor_maps(means: dict[str, np.ndarray], labels: np.ndarray, names: list[str], odors: str) -> plt.Figure:
    """Posterior means (M, N, D) by method (rows) and animal (columns), coloured by odor. A row has the same axes
    throughout, so a place means the same in all its panels; for D other than 2 see `_plane`, the row's name says it."""
    fig, axes = plt.subplots(len(means), len(names), figsize=(WIDTH, 1.62 * len(means) + 0.35), sharex="row",
                             sharey="row", squeeze=False)
    for row, (method, z) in zip(axes, means.items()):
        z, how = _plane(z)
        low, high = (np.nanquantile(z, q, axis=(0, 1)) for q in (0.005, 0.995))
        order = np.random.default_rng(0).permutation(len(labels))  # no odor lies on top of the others
        for ax, animal in zip(row, z):
            ax.scatter(*animal[order].T, s=3, c=[ODOR_COLOURS[y] for y in labels[order]], linewidths=0,
                       antialiased=False)  # a third of the bytes
            _centres(ax, animal, labels)
            margin = 0.08 * (high - low) + 1e-9
            ax.set(xticks=[], yticks=[], xlim=(low[0] - margin[0], high[0] + margin[0]),
                   ylim=(low[1] - margin[1], high[1] + margin[1]))
        row[0].set_ylabel(METHOD_NAMES[method] + how)
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
        z, how = _plane(z)
        for ax, animal in zip(row, z):
            for odor in range(len(odors)):
                path = np.stack([_mean(animal[(labels == odor) & (window == w)]) for w in np.unique(window)])
                ax.plot(*path.T, color=ODOR_COLOURS[odor], linewidth=1.3)
                ax.plot(*path[0], "o", color=ODOR_COLOURS[odor], markersize=4, markerfacecolor="white")
                ax.plot(*path[-1], "o", color=ODOR_COLOURS[odor], markersize=4)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(METHOD_NAMES[method] + how)
    for ax, name in zip(axes[0], names):
        ax.set_title(name)
    _odor_legend(fig, odors)
    return fig


def states(truth: np.ndarray, read: Mapping[str, np.ndarray]) -> plt.Figure:
    """What is `read` of a state (method -> (N,)) over what is true of it (N,), a panel a method; on the line both are
    equal."""
    fig, axes = plt.subplots(1, len(read), figsize=(WIDTH, 2.2), sharex=True, sharey=True, squeeze=False)
    for ax, (method, values) in zip(axes[0], read.items()):
        ax.axline((0, 0), slope=1, color=MUTED, linewidth=0.8, linestyle=":")
        ax.plot(truth, values, ".", color=METHOD_COLOURS[method], markersize=4)
        ax.set_title(METHOD_NAMES[method], loc="left")
        ax.set_xlabel("true state")
    axes[0, 0].set_ylabel("read from the latent")
    return fig


def in_and_out_of_sample(board: pd.DataFrame, chance: float) -> plt.Figure:
    """Shared probe of each method, tested on training trials and on others, with the animals' own odors and with
    permuted ones. Columns method, tested, odors, value, sd."""
    conditions = [(tested, odors) for odors in ("real", "permuted") for tested in ("in sample", "out of sample")]
    fig, ax = plt.subplots(figsize=(WIDTH, 2.7))
    methods = in_order(board["method"])
    for i, method in enumerate(methods):
        for j, (tested, odors) in enumerate(conditions):
            cell = board[(board["method"] == method) & (board["tested"] == tested) & (board["odors"] == odors)]
            if len(cell):
                ax.errorbar(j + 0.16 * (i - (len(methods) - 1) / 2), cell["value"].iloc[0], yerr=cell["sd"].iloc[0],
                            color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method], capsize=3, linestyle="",
                            markersize=7)
                if j == 0:
                    side = -1 if i < len(methods) / 2 else 1
                    ax.annotate(METHOD_NAMES[method], (j + 0.16 * (i - (len(methods) - 1) / 2), cell["value"].iloc[0]),
                                xytext=(9 * side, 0), textcoords="offset points", va="center", fontsize=SMALLEST,
                                ha="right" if side < 0 else "left", color=METHOD_COLOURS[method])
    ax.axhline(chance, color=MUTED, linewidth=0.9, linestyle=":")
    ax.set(xticks=range(4), xticklabels=[f"{odors} odors,\ntested {tested}" for tested, odors in conditions],
           ylabel="shared probe, accuracy", ylim=(0, 1.02), xlim=(-0.6, 3.5))
    return fig


def _mean(z: np.ndarray) -> np.ndarray:
    """Over the samples (N, 2) whose animal is observed; NaN, and nothing is drawn, where none is."""
    z = z[~np.isnan(z).any(-1)]
    return z.mean(0) if len(z) else np.full(2, np.nan)


def _centres(ax, z: np.ndarray, labels: np.ndarray) -> None:
    for odor in np.unique(labels):
        ax.plot(*_mean(z[labels == odor]), "o", color=ODOR_COLOURS[odor], markersize=6,
                markeredgecolor="white", markeredgewidth=1)


def _odor_legend(fig, odors: str) -> None:
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=ODOR_COLOURS[i], label=letter)
               for i, letter in enumerate(odors)]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(odors), title=None, handletextpad=0.1)
