"""Figures of new-study: each takes numbers, draws one figure and returns it."""

import matplotlib.pyplot as plt
import numpy as np

from mmvm.study.figures import WIDTH, modality_colour


def latents(means: np.ndarray, labels: np.ndarray, names: list[str], label_names: tuple[str, ...]) -> plt.Figure:
    """Posterior means (M, N, D), a panel per modality, the first two dimensions, coloured by label (N,)."""
    fig, axes = plt.subplots(1, len(means), figsize=(WIDTH, 3.2), sharex=True, sharey=True, squeeze=False)
    for ax, z, name in zip(axes[0], means, names):
        for c, label in enumerate(label_names):
            ax.scatter(*z[labels == c, :2].T, s=10, color=modality_colour(c), label=label)
        ax.set(title=name, xlabel="first latent")
    axes[0, 0].set_ylabel("second latent")
    axes[0, 0].legend()
    return fig
