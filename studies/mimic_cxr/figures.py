"""Figures of the chapter `mimic-cxr`: scores by label, what more labels and the second view are worth, calibration, and
imagined laterals."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmvm.errors import UserError
from mmvm.study.figures import (
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MUTED,
    SMALLEST,
    WIDTH,
    in_order,
    label_lines,
    label_panels,
    modality_colour,
    row_label,
    show_image,
)

# answers to both views, as the rows of a run name them: label, colour
SECOND_VIEW = {"frontal": ("frontal alone", modality_colour(0)), "lateral": ("lateral alone", modality_colour(1)),
               "average": ("mean of the two answers", modality_colour(4)),
               "both": ("one probe of both", modality_colour(2))}


def views(columns: Mapping[str, Sequence[np.ndarray]], names: Sequence[str]) -> plt.Figure:
    """A column per entry of `columns`, title -> grey images (H, W) uint8, one per row; the rows are called `names`."""
    fig, axes = plt.subplots(len(names), len(columns), figsize=(WIDTH, 1.2 * WIDTH / len(columns) * len(names)),
                             squeeze=False)
    for column, (title, images) in zip(axes.T, columns.items()):
        column[0].set_title(title)
        for ax, image in zip(column, images):
            show_image(ax, np.repeat(image[None] / 255, 3, 0))
    for row, name in zip(axes, names):
        row_label(row[0], name)
    return fig


def auroc_by_label(panels: Mapping[str, pd.DataFrame], labels: Sequence[str], label: str = "AUROC") -> plt.Figure:
    """A line per label from top to bottom, a mark per method with a bar of one standard deviation; a panel per entry of
    `panels` (title -> columns method, label, value, sd). Chance, 0.5, is dotted."""
    fig, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 0.36 * len(labels) + 1.0), squeeze=False, sharex=True,
                             sharey=True)
    methods = _methods(*panels.values())
    for ax, (title, table) in zip(axes[0], panels.items()):
        for i, method in enumerate(methods):
            own = table[table["method"] == method].set_index("label").reindex(labels)
            at = np.arange(len(labels)) + 0.7 * ((i + 0.5) / len(methods) - 0.5)
            ax.errorbar(own["value"], at, xerr=own["sd"], linestyle="", **_style(method), markersize=4, elinewidth=0.8)
        for line in range(1, len(labels)):
            ax.axhline(line - 0.5, color=MUTED, linewidth=0.3)
        ax.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
        ax.set(xlabel=label, yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))
        ax.set_title(title, loc="left")
    return _with_legend(fig, axes[0, 0])


def label_efficiency(table: pd.DataFrame, panels: Mapping[str, str], label: str = "AUROC, mean over labels"
                     ) -> plt.Figure:
    """Score of the probe against the number of labelled training samples, a line per method; columns method, source
    (the number), target, value and seed; a panel per entry of `panels` (target -> title)."""
    fig, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.0), squeeze=False, sharey=True)
    for ax, (target, title) in zip(axes[0], panels.items()):
        for method in _methods(table):
            own = table[(table["method"] == method) & (table["target"] == target)]
            values = own["value"].groupby(own["source"].astype(int))
            ax.errorbar(values.mean().index, values.mean(), yerr=values.std(), linewidth=1.2, elinewidth=0.8,
                        **_style(method))
        ax.set(xscale="log", xlabel="labelled training samples")
        ax.set_title(title, loc="left")
        label_lines(ax)
    axes[0, 0].set_ylabel(label)
    return fig


def reliability_curves(panels: Mapping[str, Mapping[str, pd.DataFrame]]) -> plt.Figure:
    """Share of samples that have the label against the probability that they were given, a line per method and a panel
    per entry of `panels` (title -> method -> columns confidence, frequency, count); the area of a mark grows with the
    number of samples. On the dotted line probabilities mean what they say."""
    fig, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.6), squeeze=False, sharey=True)
    for ax, (title, curves) in zip(axes[0], panels.items()):
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
        for method in in_order(curves):
            curve = curves[method].sort_values("confidence")
            ax.plot(curve["confidence"], curve["frequency"], linewidth=1.0, color=METHOD_COLOURS[method])
            ax.scatter(curve["confidence"], curve["frequency"], color=METHOD_COLOURS[method],
                       marker=METHOD_MARKERS[method], label=METHOD_NAMES[method],
                       s=6 + 60 * curve["count"] / curve["count"].max(), zorder=3)
        ax.set(xlabel="probability given", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        ax.set_title(title, loc="left")
    axes[0, 0].set_ylabel("share that has the label")
    return _with_legend(fig, axes[0, 0])


def imagined_laterals(data, outputs: Mapping[str, np.ndarray], titles: Sequence[str] = ()) -> plt.Figure:
    """A column per sample of `data`: its frontal view, its lateral view, and what each method of `outputs`, method ->
    (N, 1, H, W) in [0, 1], makes of the first alone; `titles` go above. Refuses images that are not the stand-in's:
    single patients' are not to be shown."""
    if not data.standin:
        raise UserError("these are images of patients, which are not to be shown one by one: use the stand-in "
                        "(leave root empty), or figures of averages")
    rows = [("frontal", None), ("lateral", None), *(("lateral", method) for method in outputs)]
    upright = len(titles) > 5  # too many for names side by side
    fig, axes = plt.subplots(len(rows), len(data), squeeze=False, figsize=(
        WIDTH, WIDTH / (len(data) + 1.5) * len(rows) + (1.9 if upright else 0.3)))
    for row, (view, method) in zip(axes, rows):
        images = data.modalities[view][:].numpy() / 255 if method is None else outputs[method]
        for ax, image in zip(row, images):
            show_image(ax, np.repeat(image, 3, 0))
        row_label(row[0], f"{view}, given" if (view, method) == ("frontal", None) else
                  f"{view}, true" if method is None else METHOD_NAMES[method])
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=SMALLEST, rotation=90 if upright else 0)
    return fig


def second_view(table: pd.DataFrame, label: str = "AUROC, mean over labels") -> plt.Figure:
    """One group of bars per method: what each view, the mean of the two answers and one probe of both say; columns
    method, answer (of `SECOND_VIEW`), value, sd. Bars begin at 0.5, chance."""
    methods = _methods(table)
    fig, ax = plt.subplots(figsize=(WIDTH, 2.8))
    width = 0.84 / len(SECOND_VIEW)
    for i, (answer, (name, colour)) in enumerate(SECOND_VIEW.items()):
        own = table[table["answer"] == answer].set_index("method").reindex(methods)
        at = np.arange(len(methods)) + (i - (len(SECOND_VIEW) - 1) / 2) * width
        ax.bar(at, own["value"] - 0.5, width, bottom=0.5, yerr=own["sd"], color=colour, label=name,
               error_kw={"elinewidth": 0.8})
    ax.set(xticks=range(len(methods)), xticklabels=[METHOD_NAMES[method] for method in methods], ylabel=label)
    fig.legend(loc="outside lower center", ncols=2)
    return fig


def over_missing(table: pd.DataFrame, metrics: Mapping[str, str]) -> plt.Figure:
    """A panel per entry of `metrics` (column of `table` -> label): a line per method over `share`, the share of
    training rows without their lateral view, a bar of one standard deviation where "<column> sd" is a number."""
    columns = min(len(metrics), 2)
    rows = -(-len(metrics) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.5 * rows), squeeze=False)
    for ax in axes.flat[len(metrics):]:
        ax.axis("off")
    for ax, (metric, label) in zip(axes.flat, metrics.items()):
        for method in _methods(table):
            own = table[table["method"] == method].sort_values("share")
            ax.errorbar(100 * own["share"], own[metric], yerr=own.get(f"{metric} sd"), linewidth=1.2, elinewidth=0.8,
                        **_style(method))
        ax.set(xlabel="training rows without lateral view, %", ylabel=label)
        label_lines(ax)
    label_panels(axes.flat[:len(metrics)])
    return fig


def _methods(*tables: pd.DataFrame) -> list[str]:
    """The methods of the tables in the book's order."""
    return in_order(method for table in tables for method in table["method"])


def _style(method: str) -> dict:
    return {"color": METHOD_COLOURS[method], "marker": METHOD_MARKERS[method], "label": METHOD_NAMES[method],
            "capsize": 2, "zorder": 3 if method == "mmvm" else 2}


def _with_legend(fig: plt.Figure, ax) -> plt.Figure:
    """The methods of one panel, below all of them."""
    handles, names = ax.get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=4)
    return fig
