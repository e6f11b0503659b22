"""Figures of the chapter `polymnist`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmvm.study.figures import (
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MUTED,
    WIDTH,
    in_order,
    label_lines,
    label_panels,
    modality_colour,
    row_label,
    show_image,
)


def tuples(data, columns: int = 10) -> plt.Figure:
    """`columns` image tuples, one per class as far as they go: a row per modality."""
    labels = data.labels.tolist()
    chosen = [labels.index(c) for c in sorted(set(labels))][:columns]
    fig, axes = plt.subplots(len(data.specs), len(chosen), figsize=(WIDTH, 0.74 * len(data.specs)), squeeze=False)
    for row, spec in zip(axes, data.specs):
        for ax, i in zip(row, chosen):
            show_image(ax, data.modalities[spec.name][i] * spec.scale)
        row_label(row[0], spec.name)
    return fig


def latent_maps(means: dict[str, np.ndarray], labels: np.ndarray, names: list[str]) -> plt.Figure:
    """Posterior means (M, N, D) per method on their first two principal components, all modalities in one projection:
    coloured by class on the left, by modality on the right."""
    fig, axes = plt.subplots(len(means), 2, figsize=(WIDTH, 1.8 * len(means)), squeeze=False)
    classes = plt.get_cmap("tab10")
    for row, (method, z) in zip(axes, means.items()):
        flat = z.reshape(-1, z.shape[-1])
        flat = flat - flat.mean(0)
        _, _, directions = np.linalg.svd(flat, full_matrices=False)
        directions = directions[:2] * np.sign(directions[:2].sum(1, keepdims=True))  # a component's sign is arbitrary
        xy = (flat @ directions.T).reshape(*z.shape[:2], 2)
        for c in np.unique(labels):
            row[0].scatter(*xy[:, labels == c].reshape(-1, 2).T, s=3, color=classes(int(c)), label=str(c), linewidths=0)
        for m, name in enumerate(names):
            row[1].scatter(*xy[m].T, s=3, color=modality_colour(m), label=name, linewidths=0)
        row[0].set_title(f"{METHOD_NAMES[method]}, by digit", loc="left")
        row[1].set_title(f"{METHOD_NAMES[method]}, by modality", loc="left")
        for ax in row:
            ax.set(xticks=[], yticks=[], xlabel="first component", ylabel="second component")
            ax.legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.1, columnspacing=0.6,
                      ncols=2 if ax is row[0] else 1)
    return fig


def learning_curves(probe: pd.DataFrame, error: pd.DataFrame, floor: float, limits: tuple[float, float]) -> plt.Figure:
    """Probe accuracy within `limits`, mean over modalities, and reconstruction error against updates, a line per
    method; columns method, source (updates), value; dotted: a probe that is no merit, `floor`."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    for ax, rows, label in zip(axes, (probe, error), ("linear probe, accuracy", "reconstruction error, nats")):
        for method in in_order(rows["method"]):
            own = rows[rows["method"] == method]
            line = own["value"].groupby(own["source"].astype(int)).mean()
            ax.plot(line.index, line, color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method], markersize=3,
                    label=METHOD_NAMES[method])
        ax.set(xlabel="updates", ylabel=label)
    axes[0].axhline(floor, color=MUTED, linewidth=0.8, linestyle=":")
    axes[0].set_ylim(limits)
    for ax in axes:
        label_lines(ax)
    label_panels(axes, ["(a) Probe", "(b) Reconstruction error"])
    return fig


def reconstructions(data, outputs: dict[str, dict], n: int = 10) -> plt.Figure:
    """Originals and, per method in `outputs` (method -> modality -> (N, 3, H, W)), their self-reconstructions."""
    rows, n = [(spec, method) for spec in data.specs for method in (None, *outputs)], min(n, len(data))
    fig, axes = plt.subplots(len(rows), n, figsize=(WIDTH, 0.72 * len(rows)), squeeze=False)
    for row, (spec, method) in zip(axes, rows):
        images = data.modalities[spec.name] * spec.scale if method is None else outputs[method][spec.name]
        for ax, image in zip(row, images):
            show_image(ax, image)
        row_label(row[0], f"{spec.name}, {'data' if method is None else METHOD_NAMES[method]}")
    return fig


def imputations(data, outputs: dict[str, list[dict]], source: int, n: int = 10) -> plt.Figure:
    """What each method imagines of the other modalities from `source` alone.

    `outputs[method]` is modality -> (N, 3, H, W); the first row shows the source's own images.
    """
    spec = data.specs[source]
    targets = [other.name for m, other in enumerate(data.specs) if m != source]
    rows, n = [(None, spec.name)] + [(method, name) for method in outputs for name in targets], min(n, len(data))
    fig, axes = plt.subplots(len(rows), n, figsize=(WIDTH, 0.72 * len(rows)), squeeze=False)
    for row, (method, name) in zip(axes, rows):
        images = data.modalities[name] * spec.scale if method is None else outputs[method][name]
        for ax, image in zip(row, images):
            show_image(ax, image)
        row_label(row[0], f"{name}, given" if method is None else f"{name}, {METHOD_NAMES[method]}")
    return fig
