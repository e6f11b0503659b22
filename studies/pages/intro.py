"""The figure of the landing page."""

import matplotlib.pyplot as plt
import numpy as np

from mmvm.study.figures import INK, METHOD_COLOURS, MUTED, WIDTH, label_panels, modality_colour


def idea() -> plt.Figure:
    """Three posteriors on one latent dimension, and what each family of methods asks of them."""
    z = np.linspace(-3.6, 4.6, 400)
    means, deviations = np.array([-0.9, 0.7, 2.1]), np.array([0.55, 0.45, 0.7])

    def normal(mean, deviation):
        return np.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))

    posteriors = [normal(mean, deviation) for mean, deviation in zip(means, deviations)]
    precision = (1 / deviations**2).sum()
    product = normal((means / deviations**2).sum() / precision, precision**-0.5)
    prior, mixture = normal(0, 1), np.mean(posteriors, axis=0)

    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.5), sharey=True)
    for ax, alone in zip(axes, (True, False, True)):
        for m, density in enumerate(posteriors):
            ax.plot(z, density, color=modality_colour(m), alpha=1.0 if alone else 0.35,
                    label=f"$q_{m + 1}(z|x_{m + 1})$")
        ax.set(xlabel="$z$", yticks=[], xticks=[], ylim=(0, 1.5))
        ax.spines["left"].set_visible(False)
    axes[0].fill_between(z, prior, color=MUTED, alpha=0.35, linewidth=0, label=r"prior $\mathcal{N}(0, I)$")
    axes[1].fill_between(z, prior, color=MUTED, alpha=0.35, linewidth=0)
    axes[1].plot(z, product, color=INK, label="$q(z|X)$, for all")
    axes[2].fill_between(z, mixture, color=METHOD_COLOURS["mmvm"], alpha=0.3, linewidth=0, label="prior $h(z|X)$")
    axes[0].legend(loc="upper left", fontsize=8)
    axes[1].legend(handles=axes[1].lines[-1:], loc="upper left", fontsize=8)
    axes[2].legend(handles=axes[2].collections[-1:], loc="upper left", fontsize=8)
    label_panels(axes, ["independent", "one joint posterior", "MMVM"])
    return fig
