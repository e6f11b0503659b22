"""Data and figures of the chapter `your-data`: tables that come with scikit-learn, and what a model makes of them."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from sklearn.datasets import load_digits

from mmvm.study.figures import INK, METHOD_NAMES, MODALITY_COLOURS, MUTED, SMALLEST, WIDTH

SIDE, HALF, MOST = 8, 4, 16            # pixels of a digit's side, of half a row; counts go up to 16
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASS_COLOURS = [plt.get_cmap("tab10")(c) for c in range(10)]


def two_tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Left and right half of 1,797 handwritten digits, a frame each with the same ids, and which digit it is. A value
    is the number of inked points in a field of 4 x 4, from 0 to 16; without fields that 99 % of the digits leave
    empty."""
    digits = load_digits(as_frame=True)
    ids = [f"digit-{i:04}" for i in range(len(digits.data))]
    table = digits.data.loc[:, (digits.data > 0).mean() > 0.01].astype(int).set_axis(ids)
    column = table.columns.str[-1].astype(int)
    return table.loc[:, column < HALF], table.loc[:, column >= HALF], digits.target.set_axis(ids)


def _grid(values: np.ndarray, columns: pd.Index) -> np.ndarray:
    """Values (B, F) of named fields, as in pixel_3_5, in their places: (B, 8, 4), 0 in the fields that are left out."""
    row, column = (columns.str.split("_").str[i].astype(int) for i in (1, 2))
    grid = np.zeros((len(values), SIDE, HALF))
    grid[:, row, column % HALF] = values
    return grid


def spectrum(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """16 magnitudes of the whole digit's Fourier transform, in logarithms: a table of reals."""
    whole = np.concatenate([_grid(half.to_numpy(), half.columns) for half in (left, right)], 2)
    lowest = np.log1p(np.abs(np.fft.rfft2(whole))[:, :4, :4]).reshape(len(whole), -1)
    return pd.DataFrame(lowest, left.index, [f"f{i}{j}" for i in range(4) for j in range(4)])


def spelled(labels: pd.Series) -> pd.DataFrame:
    """The digit's word as five letters, 1 for a to 26 for z, 0 behind its end."""
    letters = np.array([[ord(letter) - ord("a") + 1 if letter != " " else 0 for letter in f"{word:5}"]
                        for word in WORDS])
    return pd.DataFrame(letters[labels.to_numpy()], labels.index)


def read(letters) -> list[str]:
    """Words of letter numbers (B, 5)."""
    return ["".join(chr(ord("a") + int(n) - 1) for n in word if n) for word in letters]


def as_picture(half: pd.DataFrame) -> np.ndarray:
    """Counts as bytes of pictures (B, 16, 8), every value four pixels."""
    pixels = np.round(_grid(half.to_numpy(), half.columns) * 255 / MOST).astype(np.uint8)
    return pixels.repeat(2, 1).repeat(2, 2)


def latents(means: Mapping[str, np.ndarray], labels: np.ndarray, names: list[str]) -> plt.Figure:
    """Posterior means (M, N, D) of each method in the plane of the two largest principal components of all its
    modalities together, a column per modality, coloured by class (N,), whose number stands at its median. Means that
    are NaN, of samples without the modality, are left out, and the title says how many are drawn."""
    from sklearn.decomposition import PCA

    fig, axes = plt.subplots(1, len(means) * len(names), figsize=(WIDTH, 2.2))
    for first, (method, z) in zip(range(0, axes.size, len(names)), means.items()):
        there = np.isfinite(z).all(-1)
        plane = np.full((*there.shape, 2), np.nan)
        plane[there] = PCA(2).fit(z[there]).transform(z[there])
        low, high = np.nanmin(plane, (0, 1)), np.nanmax(plane, (0, 1))
        for ax, name, points, own in zip(axes[first:first + len(names)], names, plane, there):
            for c in np.unique(labels[own]):
                ax.scatter(*points[own & (labels == c)].T, s=3, color=CLASS_COLOURS[c % len(CLASS_COLOURS)])
            for c in np.unique(labels[own]):
                ax.text(*np.median(points[own & (labels == c)], 0), str(c), ha="center", va="center", weight="bold",
                        path_effects=[withStroke(linewidth=2.5, foreground="white")])
            title = f"{METHOD_NAMES[method]},\n{name}" + ("" if own.all() else f", {own.sum()} of {len(own)}")
            ax.set(title=title, xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return fig


def halves(left: pd.DataFrame, columns: pd.Index, rights: Mapping[str, np.ndarray]) -> plt.Figure:
    """A row per entry of `rights` (title -> (n, F), of these `columns`): digits of the given left halves and these
    right ones, a line where they meet."""
    fig, axes = plt.subplots(len(rights), len(left), figsize=(WIDTH, 0.68 * len(rights) + 0.1), squeeze=False)
    for row, (title, right) in zip(axes, rights.items()):
        for ax, a, b in zip(row, _grid(left.to_numpy(), left.columns), _grid(np.clip(right, 0, MOST), columns)):
            whole = np.concatenate([a, b], 1)
            ax.imshow(whole, cmap="gray_r", vmin=0, vmax=MOST)
            ax.axvline(HALF - 0.5, color=MODALITY_COLOURS[1], linewidth=0.8)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=SMALLEST)
    return fig


def errors(boards: Mapping[str, pd.Series]) -> plt.Figure:
    """Bars of errors, one panel per board (title -> Series by name), the first, the model's, in colour and the smallest
    in a frame, sharing no axis."""
    fig, axes = plt.subplots(1, len(boards), figsize=(WIDTH, 2.5), squeeze=False)
    for ax, (title, board) in zip(axes[0], boards.items()):
        bars = ax.barh(board.index, board, color=[MODALITY_COLOURS[0], *[MUTED] * (len(board) - 1)])
        bars[int(np.argmin(board))].set_edgecolor(INK)
        bars[int(np.argmin(board))].set_linewidth(1.8)
        ax.bar_label(bars, fmt="%.2f", padding=4, fontsize=SMALLEST)
        ax.set(title=title.replace(" (", "\n("), xlim=(0, 1.22 * board.max()))
        ax.invert_yaxis()
        ax.xaxis.set_major_locator(MaxNLocator(4))
    fig.supxlabel("root mean squared error", fontsize=10)
    return fig


def pairs(divergence: np.ndarray, kinds: Mapping[str, np.ndarray], most: float) -> plt.Figure:
    """Left, the disagreement (N,) in nats, a histogram (of its own total) for each of `kinds` (title -> (N,) bool), up
    to `most`; right, the share of the last kinds found when so many of the most disagreeing pairs are looked at."""
    fig, (ax, found) = plt.subplots(1, 2, figsize=(WIDTH, 2.6))
    bins = np.linspace(0, most, 31)
    for m, (title, chosen) in enumerate(kinds.items()):
        ax.hist(divergence[chosen], bins, density=True, histtype="step", linewidth=1.6, color=MODALITY_COLOURS[m],
                label=title)
    ax.axvline(most, color=MUTED, linestyle=":")
    ax.set(xlabel="disagreement (nats)", ylabel="density")
    order = np.argsort(-divergence)
    looked = 100 * np.arange(1, len(order) + 1) / len(order)
    for m, (title, chosen) in list(enumerate(kinds.items()))[1:]:
        found.plot(looked, 100 * np.cumsum(chosen[order]) / chosen.sum(), color=MODALITY_COLOURS[m], label=title)
    found.plot([0, 100], [0, 100], color=MUTED, linestyle=":")
    found.set(xlabel="pairs looked at (%)", ylabel="of them found (%)", xlim=(0, 100), ylim=(0, 102))
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
