"""The figures of the landing page, and the frontier that its verdict speaks of."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from mmvm.study.figures import (
    INK,
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MUTED,
    WIDTH,
    in_order,
    label_panels,
    modality_colour,
)

NAMES = 11.0  # points, in a figure that a phone halves
HALF = 4.0  # inches at 80 pixels each: beside its neighbour at a desk, below it on a phone, with text of 11 pixels
# where the name of a method stands from the point that it names: in points, to the right and up
HERE = {"mmvm": (-14, -26), "independent": (30, -66), "avg": (-27, -15), "poe": (24, -24), "moe": (-17, -30),
        "mopoe": (34, 27), "mmvaeplus": (-14, 10), "mvtcae": (50, 13)}
PAPER = {"mmvm": (34, 2), "independent": (18, -18), "avg": (-12, 10), "poe": (2, -19), "moe": (-6, 10),
         "mopoe": (0, 10), "mmvaeplus": (0, 10)}


def frontier(board: pd.DataFrame) -> pd.DataFrame:
    """The lines of a scoreboard with a better probe than every line of less error, by their error."""
    board = board.sort_values("reconstruction")
    return board[board["probe"] > board["probe"].cummax().shift(fill_value=-np.inf)].reset_index(drop=True)


def probe_against_error(board: pd.DataFrame, named: pd.DataFrame, offsets: Mapping[str, tuple[float, float]],
                        limits: Mapping, edge: pd.Series | None = None) -> plt.Figure:
    """The linear probe against the reconstruction error, a line per method over beta, its name at its line of `named`.

    Both hold the columns method, beta, reconstruction and probe; where "probe sd" is a number, a bar is drawn. The
    broad grey line is the best that a method reaches at this error or less. `limits` of the axes, as of `Axes.set`.
    `edge` (method -> probe): of which no error is known, drawn at the right edge.
    """
    fig, ax = plt.subplots(figsize=(HALF, 3.4), dpi=160)
    best = frontier(board)
    ax.step([*best["reconstruction"], 1e6], [*best["probe"], best["probe"].iloc[-1]], where="post", color=MUTED,
            linewidth=7, alpha=0.22, solid_capstyle="butt", zorder=1)
    for method in in_order(board["method"])[::-1]:
        line, mine = board[board["method"] == method].sort_values("beta"), method == "mmvm"
        spread = {axis: line.get(f"{name} sd") for axis, name in (("xerr", "reconstruction"), ("yerr", "probe"))}
        ax.errorbar(line["reconstruction"], line["probe"], **spread, color=METHOD_COLOURS[method],
                    marker=METHOD_MARKERS[method], linewidth=2.4 if mine else 1.1, markersize=7 if mine else 5.5,
                    elinewidth=1, capsize=2, zorder=4 if mine else 3)
    for _, point in named.iterrows():
        method = point["method"]
        colour = np.multiply(to_rgb(METHOD_COLOURS[method]), 0.72)  # as text on white a little darker than as a line
        ax.annotate(METHOD_NAMES[method], (point["reconstruction"], point["probe"]), xytext=offsets[method],
                    textcoords="offset points", color=colour, fontsize=11, ha="center", zorder=5,
                    fontweight="bold" if method == "mmvm" else "normal",
                    arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4})
    for method, probe in ({} if edge is None else edge).items():
        ax.plot(0.98, probe, transform=ax.get_yaxis_transform(), color=METHOD_COLOURS[method], fillstyle="none",
                marker=METHOD_MARKERS[method], markersize=6)
    ax.set(**{"xlabel": "reconstruction error (nats)", "ylabel": "linear probe", **limits})
    ax.tick_params(labelsize=10.5)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_size(11)
    return fig


def idea() -> plt.Figure:
    """Three posteriors on one latent dimension, and what each family of methods asks of them."""
    z = np.linspace(-5.2, 4.6, 400)
    means, deviations = np.array([-0.9, 0.7, 2.1]), np.array([0.55, 0.45, 0.7])

    def normal(mean, deviation):
        return np.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))

    posteriors = [normal(mean, deviation) for mean, deviation in zip(means, deviations)]
    precision = (1 / deviations**2).sum()
    product = normal((means / deviations**2).sum() / precision, precision**-0.5)
    prior, mixture = normal(0, 1), np.mean(posteriors, axis=0)

    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.5), sharey=True)
    for ax, alone in zip(axes, (True, False, True)):
        for m, (density, mean) in enumerate(zip(posteriors, means)):
            ax.plot(z, density, color=modality_colour(m), alpha=1.0 if alone else 0.35)
            if alone:
                ax.text(mean, density.max() + 0.03, f"$q_{m + 1}$", ha="center", fontsize=NAMES,
                        color=np.multiply(to_rgb(modality_colour(m)), 0.75))
        ax.set(xlabel="latent $z$", yticks=[], xticks=[], ylim=(0, 1.6))
        ax.spines["left"].set_visible(False)
    for ax in axes[:2]:
        ax.fill_between(z, prior, color=MUTED, alpha=0.35, linewidth=0)
    axes[0].text(-5.2, 0.47, "prior\n" + r"$\mathcal{N}(0, I)$", fontsize=NAMES, color="#666666")
    axes[1].plot(z, product, color=INK)
    axes[1].text(1.15, 1.25, "one $q$ for all", fontsize=NAMES)
    axes[2].fill_between(z, mixture, color=METHOD_COLOURS["mmvm"], alpha=0.3, linewidth=0)
    axes[2].text(-5.2, 0.47, "prior $h$", fontsize=NAMES,
                 color=np.multiply(to_rgb(METHOD_COLOURS["mmvm"]), 0.75))
    axes[0].set_ylabel("density")
    label_panels(axes, ["independent", "one joint posterior", "MMVM"])
    return fig
