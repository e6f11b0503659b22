"""Figures of the chapter `polymnist`."""

import matplotlib.pyplot as plt
import numpy as np

from mmvm.study.figures import METHOD_NAMES, WIDTH, modality_colour, row_label, show_image


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
    fig, axes = plt.subplots(len(means), 2, figsize=(WIDTH, 2.9 * len(means)), squeeze=False)
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
            ax.legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.1)
    return fig
