"""The style of all figures, and the figures that several chapters draw.

A function takes numbers, draws one figure and returns it; what it shows was computed by the caller.
Colours are those of Okabe and Ito and two darker ones, told apart with colour-vision deficiencies too
(tests/mmvm/study/test_figures.py); a method or modality has one colour and marker everywhere, letters 9 points or more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from sklearn.isotonic import isotonic_regression

from mmvm.errors import UserError
from mmvm.objectives import Appearance, spec
from mmvm.search import best_of
from mmvm.training import PREFIX, History

INK = "#333333"      # text, axes, and whatever is exact
MUTED = "#8c8c8c"    # reference lines

# trained on the labels themselves: no method, but drawn beside them
REFERENCES = {"supervised": Appearance("Supervised", "#B3B3B3", "p")}


class _Shown(Mapping):
    """Method, as the rows name it, -> one thing that figures show of it; in the book's order. Classes are asked each
    time, so that a method registered later is drawn too. What has no appearance of its own is no key, but is found."""

    def __init__(self, what: str):
        self.what = what

    def _all(self) -> dict[str, Appearance]:
        return {**spec.appearances(), **REFERENCES}

    def __getitem__(self, method: str) -> str:
        return getattr(self._all().get(method) or spec.appearance(method), self.what)

    def __contains__(self, method: object) -> bool:
        return method in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


METHOD_NAMES, METHOD_COLOURS, METHOD_MARKERS = _Shown("label"), _Shown("colour"), _Shown("marker")

# the m-th modality of any data set; no colour that MMVM or the baseline has
MODALITY_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MODALITY_MARKERS = ("o", "s", "^", "D", "v")

SEQUENTIAL = "cividis"  # heat maps and continuous colour: read the same with and without colour vision
WIDTH = 6.7             # inches: the text's width on paper (A4 less tools/pdf.py's margins)
SMALLEST = 9.0          # points of the smallest letters
UNLIKE = 30             # times another error, which would be a line at 0 beside it


def use_style() -> None:
    """Sets matplotlib's defaults for the book; call it once per notebook."""
    plt.rcParams.update({
        "figure.dpi": 86, "savefig.dpi": 86, "figure.facecolor": "white", "savefig.facecolor": "white",
        "figure.constrained_layout.use": True, "figure.figsize": (WIDTH, 3.0), "font.size": 10.0,
        "axes.titlesize": 10.0, "axes.labelsize": 10.0, "xtick.labelsize": SMALLEST, "ytick.labelsize": SMALLEST,
        "legend.fontsize": SMALLEST, "legend.frameon": False, "text.color": INK, "axes.edgecolor": INK,
        "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": False, "axes.linewidth": 0.8,
        "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.8, "lines.markersize": 5.0,
        "image.cmap": SEQUENTIAL,
    })


def show() -> None:
    """Draws what was made; the last line of a figure's cell."""
    plt.show()


def modality_colour(m: int) -> str:
    """The colour of modality number m; they repeat after five."""
    return MODALITY_COLOURS[m % len(MODALITY_COLOURS)]


def in_order(methods: Iterable[str]) -> list[str]:
    """Each once, in the book's order; options that are not in it last."""
    return sorted(there := set(methods), key=[*METHOD_NAMES, *sorted(there.difference(METHOD_NAMES))].index)


def by_method(board: pd.DataFrame) -> pd.DataFrame:
    """A table with a column `method` as one indexed by it, `in_order`."""
    return board.set_index("method").loc[in_order(board["method"])]


def label_panels(axes: Any, labels: Sequence[str] | None = None) -> None:
    """Letters (a), (b), ... or `labels` above the left corner of each panel, for captions to point at."""
    for i, ax in enumerate(axes):
        ax.set_title(labels[i] if labels else f"({chr(97 + i)})", loc="left")


def label_lines(ax: Any) -> None:
    """Each line's name beside its right end in place of a legend, moved apart where names would overlap, with a thin
    line from the one to the other; call it when all lines are drawn."""
    named, ends, placed = _ends(ax)
    for (name, line), end, y in zip(named.items(), ends, placed):
        colour = 0.75 * np.array(to_rgb(line.get_color()))
        ax.annotate(name, end, xytext=(1.06, y), xycoords="axes fraction", textcoords="axes fraction", va="center",
                    fontsize=SMALLEST, color=colour,
                    arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3})


def _ends(ax: Any) -> tuple[dict, np.ndarray, np.ndarray]:
    """Name -> line (n), where each line ends (n, 2) and the heights at which the names have room (n,), in shares of the
    axes."""
    ax.get_ylim()  # brings limits up to date, which matplotlib leaves for later
    named, ends = {}, []
    for handle, name in zip(*ax.get_legend_handles_labels()):
        line = handle[0] if isinstance(handle, ErrorbarContainer) else handle
        points = np.asarray(line.get_xydata(), dtype=float)
        if (known := np.isfinite(points).all(1)).any():
            named[name] = line
            ends.append(points[known][-1])
    ends = np.clip(ax.transAxes.inverted().transform(ax.transData.transform(ends)), 0, 1)  # a line may leave the axes
    step = 1.3 * SMALLEST / 72 / (0.9 * ax.get_position().height * ax.figure.get_figheight())  # of the axes' height
    order, apart = np.argsort(ends[:, 1]), step * np.arange(len(named))
    placed = np.empty(len(named))
    placed[order] = isotonic_regression(ends[order, 1] - apart, y_min=0, y_max=max(1 - apart[-1], 0)) + apart
    return named, ends, placed


def show_image(ax: Any, image: Any) -> None:
    ax.imshow(np.clip(np.moveaxis(np.asarray(image, dtype=float), 0, -1), 0, 1), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def row_label(ax: Any, text: str) -> None:
    ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=SMALLEST)


def fraction(beta: float) -> str:
    """As it is written on axes: 4, 1/16, and below 1/1000 by powers of ten."""
    if 0 < beta < 1e-3:
        mantissa, power = f"{beta:e}".split("e")
        return rf"${float(mantissa):g} \cdot 10^{{{int(power)}}}$".replace(r"$1 \cdot ", "$")
    return f"{beta:g}" if beta >= 1 or beta == 0 else f"1/{1 / beta:g}"


def history(history: History | list[dict], names: Sequence[str] = ()) -> Figure:
    """The training's curves, means over an epoch's samples, and those of the validation rows, of the weights at its
    end; the best epoch is marked. `history` as of `fit` or `read_history`; `names` of its columns, default: the loss,
    the regulariser and the log-likelihoods."""
    history = history if isinstance(history, History) else History(history)
    known = [name for name in dict.fromkeys(name for row in history.epochs for name in row)]
    names = list(names) or [name for name in known if name in ("loss", "regulariser") or name.startswith("log_like")]
    if unknown := [name for name in names or ["loss"] if name not in known]:
        choices = ", ".join(known) or "none, there is no epoch: train first"
        raise UserError(f"the history has no column {unknown[0]!r} to draw: choose from {choices}")
    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = -(-len(names) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.2 * rows + 0.5), squeeze=False)
    for ax, name in zip(axes.flat, names):
        for label, column, colour in zip(("training", "validation"), (name, PREFIX + name), MODALITY_COLOURS):
            points = [(row["epoch"], row[column]) for row in history.epochs if column in row]
            if points:
                ax.plot(*zip(*points), color=colour, label=label, marker="." if len(points) < 30 else "")
        if history.best is not None:
            ax.axvline(history.best, color=MUTED, linestyle=":", label=f"best epoch, {history.best}")
        ax.set(xlabel="epoch", ylabel=name.replace("log_likelihood/", "log-likelihood, "))
    for ax in axes.flat[len(names):]:
        ax.remove()
    fig.supylabel("nats per sample", fontsize="medium")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def sweep(table: pd.DataFrame, by: str = "imputation") -> plt.Figure:
    """What a `mmvm.sweep` found against beta: a panel each for reconstruction, imputation, probe and rate, a line per
    modality through the means over seeds, a point per run; the beta that is best by column `by` is marked."""
    panels = {"error": "reconstruction error (nats)", "imputation": "imputation error (nats)", "probe": "linear probe",
              "rate": "rate (nats)"}
    found = {what: names for what in panels if (
        names := [name for name in table if name.startswith(f"{what}/") and table[name].notna().any()])}
    rows = -(-len(found) // 2)
    fig, axes = plt.subplots(rows, 2, figsize=(WIDTH, 2.3 * rows + 0.4), sharex=True, squeeze=False)
    (best, _), modalities = best_of(table, by), [name.partition("/")[2] for name in found["error"]]
    for ax, (what, names) in zip(axes.flat, found.items()):
        for name in names:
            m = modalities.index(name.partition("/")[2])
            style = {"color": modality_colour(m), "marker": MODALITY_MARKERS[m % len(MODALITY_MARKERS)]}
            ax.scatter(table["beta"], table[name], s=9, alpha=0.5, linewidths=0, **style)
            means = table.groupby("beta")[name].mean()
            ax.plot(means.index, means, linewidth=1.4, label=modalities[m], **style)
        label_lines(ax)
        ax.axvline(best, color=MUTED, linestyle=":")
        positive = table["beta"][table["beta"] > 0].min()
        ax.set_xscale("symlog" if (table["beta"] == 0).any() else "log",
                      **({"linthresh": positive} if (table["beta"] == 0).any() else {}))
        ax.set(ylabel=panels[what])
    for ax in axes.flat[len(found):]:
        ax.remove()
    for ax in axes.flat[max(len(found) - 2, 0):len(found)]:
        ax.set_xlabel(r"$\beta$")
        ax.tick_params(labelbottom=True)
    axes[0, 0].set_title(rf"dotted: $\beta$={best:g}, best by {by}", loc="left")
    return fig


def diagnostics(runs: Mapping[str, History | list[dict]]) -> plt.Figure:
    """How to see what ails a run: a row per entry of `runs` (title -> history with the columns of
    `mmvm.evaluation.diagnostics`); panels of rate, error, distance of the latents' centre from 0 over their spread,
    and mixture weight, over the epochs, a line per modality. Rates have one axis in all rows; errors that differ by
    more than `UNLIKE` times one that is logarithmic beyond 10."""
    panels = {"rate/": "rate (nats)", "log_likelihood/": "error (nats)", "distance": "distance / spread",
              "weight/": "mixture weight"}
    fig, axes = plt.subplots(len(runs), len(panels), figsize=(WIDTH, 1.7 * len(runs) + 0.5), squeeze=False)
    for i, (row, (title, run)) in enumerate(zip(axes, runs.items())):
        epochs = run.epochs if isinstance(run, History) else run
        if not epochs or "distance" not in epochs[-1]:
            raise UserError(f"the history {title!r} has no column 'distance': train with on_epoch=lambda model, epoch: "
                            "mmvm.evaluation.diagnostics(model, data)")
        for ax, (column, label) in zip(row, panels.items()):
            for m, name in enumerate(name for name in epochs[-1] if name.startswith(column)):
                sign = -1 if column == "log_likelihood/" else 1
                ax.plot([epoch["epoch"] for epoch in epochs], [sign * epoch[name] for epoch in epochs],
                        color=INK if column == "distance" else modality_colour(m), label=name.partition("/")[2])
            ax.set(ylim={"rate/": (0, None), "distance": (0, None), "weight/": (0, 1)}.get(column))
            if i == 0:
                ax.set_title(label, loc="left")
        row[0].set_ylabel(title)
        largest = [float(np.nanmax(np.abs(line.get_ydata()))) for line in row[1].get_lines()]
        if max(largest) > UNLIKE * min(largest):  # or the smaller one would lie flat on 0
            row[1].set_yscale("symlog", linthresh=10)
    plt.setp(axes[:, 0], ylim=(0, max(ax.get_ylim()[1] for ax in axes[:, 0])))
    plt.setp(axes[-1], xlabel="epoch")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig


def matrices(values: dict[str, np.ndarray], names: list[str], label: str, limits: tuple[float, float],
             fmt: str = ".2f") -> Figure:
    """One (M, M) matrix per method, [source, target], the numbers written in."""
    fig, axes = plt.subplots(1, n := len(values), figsize=(WIDTH if n > 2 else 1.1 + 2.9 * n, 2.7), squeeze=False)
    for ax, (method, matrix) in zip(axes[0], values.items()):
        picture = ax.imshow(matrix, vmin=limits[0], vmax=limits[1])
        for (s, t), value in np.ndenumerate(matrix):
            dark = (value - limits[0]) / (limits[1] - limits[0]) < 0.5
            ax.text(t, s, f"{value:{fmt}}", ha="center", va="center", color="white" if dark else "black")
        ax.set(xticks=range(len(names)), xticklabels=names, yticks=range(len(names)), yticklabels=names,
               xlabel="target", ylabel="source", title=METHOD_NAMES[method])
    fig.colorbar(picture, ax=axes[0], label=label, shrink=0.9)
    return fig


def over_beta(board: pd.DataFrame, metrics: dict[str, str], lines: dict[str, float],
              limits: dict[str, tuple[float, float]]) -> Figure:
    """`metrics` (column -> label) against beta, one line per method with its name at the end, bars are standard
    deviations; `lines` are drawn dotted (chance, or the best that is to be had); `limits` cut an axis."""
    rows, betas = -(-len(metrics) // 2), sorted(board["beta"].unique())
    fig, axes = plt.subplots(rows, 2, figsize=(WIDTH, 2.4 * rows), sharex=True, squeeze=False)
    for ax, (metric, label) in zip(axes.flat, metrics.items()):
        for method in in_order(board["method"]):
            line = board[board["method"] == method].sort_values("beta")
            ax.errorbar(line["beta"], line[metric], yerr=line.get(f"{metric} sd"), color=METHOD_COLOURS[method],
                        marker=METHOD_MARKERS[method], label=METHOD_NAMES[method], linewidth=1.2, elinewidth=0.8,
                        capsize=1.5, markersize=4, zorder=3 if method == "mmvm" else 2)
        if metric in lines:
            ax.axhline(lines[metric], color=MUTED, linewidth=0.9, linestyle=":")
        ax.set(xscale="log", ylabel=label, ylim=limits.get(metric))
        if betas[0] > 1e-3:
            ax.set_xticks(betas, [fraction(beta) for beta in betas])
            ax.minorticks_off()
    drawn = axes.flat[:len(metrics)]
    if max(np.abs(placed - ends[:, 1]).max() for _, ends, placed in map(_ends, drawn)) > 0.3:  # far from their lines
        fig.legend(*drawn[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    else:
        for ax in drawn:
            label_lines(ax)
    plt.setp(axes[-1], xlabel=r"$\beta$")
    return fig
