"""Figures of the chapter `cub`: images with sentences, and scores by attribute."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

from mmvm.study.figures import (
    METHOD_COLOURS,
    METHOD_NAMES,
    MUTED,
    SMALLEST,
    WIDTH,
    row_label,
    show_image,
)


def pairs(images, captions: list[str], labels: list[str]) -> plt.Figure:
    """Images (N, 3, H, W) in [0, 1], in rows of four, each over its caption and the names of its labels."""
    columns = 4
    rows = -(-len(captions) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.9 * rows), squeeze=False)
    for ax in axes.flat[len(captions):]:
        ax.axis("off")
    for ax, image, caption, names in zip(axes.flat, images, captions, labels):
        show_image(ax, image)
        ax.set_title("\n".join(textwrap.wrap(names, 24)), fontsize=SMALLEST)
        ax.set_xlabel("\n".join(textwrap.wrap(caption, 24)), fontsize=SMALLEST)
    return fig


def image_to_caption(images, rows: dict[str, list[str]]) -> plt.Figure:
    """A line per image: the image (N, 3, H, W), then for each entry of `rows` (label -> N captions) what it says."""
    n, columns = len(images), len(rows) + 1
    fig, axes = plt.subplots(n, columns, figsize=(WIDTH, 1.0 * n), squeeze=False,
                             width_ratios=[0.62] + [1.0] * len(rows))
    for i, line in enumerate(axes):
        show_image(line[0], images[i])
        for ax, (label, captions) in zip(line[1:], rows.items()):
            ax.axis("off")
            ax.text(0, 0.5, "\n".join(textwrap.wrap(captions[i], 62 // len(rows) + 4)), fontsize=SMALLEST, va="center",
                    transform=ax.transAxes)
            if i == 0:
                ax.set_title(label, loc="left", fontsize=SMALLEST)
    return fig


def caption_to_image(captions: list[str], outputs: dict[str, np.ndarray]) -> plt.Figure:
    """A column per caption, written above it; a row of images per entry of `outputs` (label -> (N, 3, H, W))."""
    fig, axes = plt.subplots(len(outputs), len(captions), figsize=(WIDTH, 1.05 * len(outputs) + 1.5), squeeze=False)
    for row, (label, images) in zip(axes, outputs.items()):
        for ax, image in zip(row, images):
            show_image(ax, image)
        row_label(row[0], label)
    for ax, caption in zip(axes[0], captions):
        ax.set_title("\n".join(textwrap.wrap(caption, 12)), fontsize=SMALLEST)
    return fig


def by_attribute(panels: dict[str, dict[str, np.ndarray]], attributes: list[str], label: str) -> plt.Figure:
    """Bars per attribute, a group of methods each; one panel per entry of `panels` (title -> method -> (C,)); chance,
    0.5, is where the bars begin."""
    fig, axes = plt.subplots(len(panels), 1, figsize=(WIDTH, 1.95 * len(panels) + 0.4), squeeze=False, sharex=True,
                             sharey=True)
    for ax, (title, values) in zip(axes[:, 0], panels.items()):
        width = 0.84 / len(values)
        for i, (method, scores) in enumerate(values.items()):
            at = np.arange(len(attributes)) + (i - (len(values) - 1) / 2) * width
            ax.bar(at, np.asarray(scores) - 0.5, width, bottom=0.5, color=METHOD_COLOURS[method],
                   label=METHOD_NAMES[method])
        ax.axhline(0.5, color=MUTED, linewidth=0.8)
        ax.set(xticks=range(len(attributes)), xticklabels=attributes, ylabel=label)
        ax.set_title(title, loc="left")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig
