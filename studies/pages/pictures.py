"""What the models that ship make of test samples: the pictures of the landing page, half its width each.

Samples are the first ones, in the order of the test set or of the digits: none is chosen by how it came out.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from mmvm.data import MultimodalData
from mmvm.model import MultimodalVAE
from mmvm.pretrained import names as names_of_models, place, pretrained
from mmvm.study import Study
from mmvm.study.figures import INK, MODALITY_COLOURS, show_image
from studies.cub.captions import Vocabulary, as_text
from studies.pages.decoder import means

WIDTH, FONT = 4.0, 10.5  # inches and points: 320 pixels, with text of 11 pixels


def shipped(name: str) -> tuple[MultimodalVAE, dict[str, Tensor], list[str]]:
    """A model, the test samples beside it by modality (N, *shape) and the words of their tokens, if they have some."""
    with np.load(place(name, ".npz")) as file:
        arrays = dict(file)
    words = arrays.pop("words", np.array([])).tolist()
    return pretrained(name), {key: torch.from_numpy(x) for key, x in arrays.items()}, words


def of_folder(folder: str) -> dict[str, MultimodalVAE]:
    """The models of a study, or of translated digits, that ship, by their method: MMVM's, the best rival's, that of
    independent VAEs."""
    methods = [name.partition("/")[2] for name in names_of_models() if name.startswith(f"{folder}/")]
    methods.sort(key=lambda method: (method != "mmvm", method == "independent"))
    return {method: pretrained(f"{folder}/{method}") for method in methods}


def shown(p: Study, trained: dict[str, MultimodalVAE]) -> dict[str, MultimodalVAE]:
    """What a chapter's pictures are of: the models that ship, or, where a rerun has changed a parameter, its own."""
    return of_folder(p.name) if p == type(p).from_profile("smoke") else trained


def samples(study: str, n: int, kind: type[MultimodalData] = MultimodalData,
            **given: Any) -> tuple[MultimodalData, list[str]]:
    """The first n test samples beside MMVM's model, with their labels, as `kind`, and the words of their tokens."""
    model, arrays, words = shipped(f"{study}/mmvm")
    arrays = {name: x[:n] for name, x in arrays.items()}
    return kind(labels=arrays.pop("labels"), modalities=arrays, specs=model.modalities, **given), words


def imagined(model: MultimodalVAE, samples: dict[str, Tensor], source: str, target: str) -> Tensor:
    """What decoder `target` makes of the posterior means of `source`: its parameters, (N, ...)."""
    names = [spec.name for spec in model.modalities]
    with torch.no_grad():
        z = model.encode({source: samples[source]}).mean[names.index(source)]
        return model.decoders[names.index(target)](z)


def sentences(tokens: Tensor, words: Sequence[str]) -> list[str]:
    """Token numbers (N, L), or logits (N, V, L) whose most probable words they are, as text."""
    tokens = tokens.argmax(1) if tokens.ndim == 3 else tokens
    vocabulary = Vocabulary(tuple(words))
    return [as_text(vocabulary.decode(row)) for row in tokens.tolist()]


def grid(rows: dict[str, Sequence]) -> plt.Figure:
    """Rows of small pictures (N, C, H, W) in [0, 1], grey ones with C = 1; the label of a row stands above it."""
    n, label_height = len(next(iter(rows.values()))), 0.24
    row_height = WIDTH / n + label_height
    height = row_height * len(rows)
    fig = plt.figure(figsize=(WIDTH, height), dpi=160, layout="none")
    for i, (label, images) in enumerate(rows.items()):
        for k, image in enumerate(images):
            ax = fig.add_axes((k / n, 1 - (i + 1) * row_height / height, 0.97 / n, 0.97 * WIDTH / n / height))
            show_image(ax, np.broadcast_to(np.asarray(image), (3, *image.shape[1:])))
        fig.text(0, 1 - (i * row_height + label_height - 0.07) / height, label, fontsize=FONT)
    return fig


def between(model: MultimodalVAE, data, first: int, last: int, n: int = 8) -> plt.Figure:
    """What all decoders draw of `n` points z on the line between the first modality's means of two digits."""
    ends = means(model, data)[0, [first, last]]
    z = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, n, dtype=ends.dtype)[:, None])
    with torch.no_grad():
        rows = {f"decoder {name}": decoder(z).numpy() for name, decoder in zip(data.names, model.decoders)}
    return grid(rows)


def with_words(images: Sequence, texts: Sequence[str], picture_first: bool) -> plt.Figure:
    """A line per image (3, H, W): it and its text, what is given on the left."""
    ratios = (0.24, 0.76) if picture_first else (0.76, 0.24)
    fig, axes = plt.subplots(len(texts), 2, figsize=(WIDTH, 0.95 * len(texts)), dpi=160, squeeze=False,
                             width_ratios=ratios)
    for line, image, text in zip(axes, images, texts):
        picture, said = line if picture_first else line[::-1]
        show_image(picture, image)
        said.axis("off")
        said.text(0, 0.5, "\n".join(textwrap.wrap(text, 40)), fontsize=FONT, va="center", transform=said.transAxes)
    return fig


def animals(z: Tensor, labels: Sequence[int], names: Sequence[str], odors: str) -> plt.Figure:
    """Posterior means (M, N, 2), a panel per animal with one pair of axes for all; the colour is the odor."""
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 2.9), dpi=160, sharex=True, sharey=True)
    labels = np.asarray(labels)
    colours = [MODALITY_COLOURS[label] for label in labels]
    order = np.random.default_rng(0).permutation(len(labels))  # no odor lies on top of the others
    for ax, name, own in zip(axes.flat, names, np.asarray(z)):
        ax.scatter(*own[order].T, s=4, c=[colours[i] for i in order], linewidths=0)
        ax.set_title(name, fontsize=FONT, pad=3)
        ax.set(xticks=[], yticks=[])
    legend = axes.flat[len(names)]
    legend.axis("off")
    dots = [plt.Line2D([], [], marker="o", linestyle="", color=colour) for colour in MODALITY_COLOURS[:len(odors)]]
    legend.legend(dots, [f"odor {odor}" for odor in odors], loc="center", fontsize=FONT, labelcolor=INK)
    return fig
