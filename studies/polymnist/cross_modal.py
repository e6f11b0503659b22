"""Coherence, imputation error and the distance of imagined from real images, in one walk over the data."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import BATCH, evaluating, from_each_source, labels_of, mean_or_nan
from mmvm.evaluation.errors import nats
from mmvm.model import MultimodalVAE
from studies.polymnist.frechet import RunningMoments, features_of, frechet_distance, pooled


@torch.no_grad()
def cross_modal(model: MultimodalVAE, data: MultimodalData, classifiers: Sequence[Any],
                seed: int = 0) -> dict[str, np.ndarray]:
    """`coherence`, `imputation` (error) and `classifier_distance` of images, each (M, M), in one pass per source: every
    latent is decoded once and every image classified once, clamped to [0, 1]. NaN where nothing is observed.

    `evaluation.coherence` classifies what the decoder says, unclamped, hence may differ in a few of 10,000 images.

    classifier_distance is FID's formula on our own classifiers' features, no FID. Entry [s, t]: `frechet_distance` of
    `features_of` classifier t between all real images of modality t and those generated from s; the diagonal is
    self-reconstruction. Every classifier has a scale of its own: numbers, averages too, compare only between models
    that the same classifiers judge. n images against F features: two samples of one distribution lie apart by up to
    F / (2n) of their total variance, so take n >= 10 F and compare at one n only. For n <= F the covariances are
    singular, which the formula bears, but then this bias is most of what is measured.
    """
    m, known = len(data.specs), labels_of(data)
    right, nll, both = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    moments = [[RunningMoments() for _ in range(m)] for _ in range(m + 1)]  # the last row: real images
    for target, classifier in enumerate(classifiers):
        for images in real_images(data, target, next(model.parameters()).device):
            moments[m][target].update(features_of(classifier, images))
    with evaluating(nn.ModuleList(classifiers)):
        for source, batch, index, parameters in from_each_source(model, data, seed):
            labels = known.index_select(0, index).to(parameters[0].device)
            for target, (spec, classifier, out) in enumerate(zip(data.specs, classifiers, parameters)):
                total, n = nats(spec, out, batch.x[target], batch.observed[target])
                nll[source, target] += total
                both[source, target] += n
                features = classifier.features(spec.likelihood.mean(out).float().clamp(0, 1))
                right[source, target] += (classifier.head(features).argmax(-1) == labels).sum().item()
                moments[source][target].update(pooled(classifier, features))
    distance = np.full((m, m), np.nan)
    for s, t in np.ndindex(m, m):
        real, generated = moments[m][t], moments[s][t]
        if real.n > 1 and generated.n > 1:
            distance[s, t] = frechet_distance(real.mean, real.cov, generated.mean, generated.cov)
    return {"coherence": mean_or_nan(right, data.observed.sum(1, keepdim=True).cpu().numpy()),
            "imputation": mean_or_nan(nll, both), "classifier_distance": distance}


def real_images(data: MultimodalData, target: int, device: torch.device) -> Iterator[Tensor]:
    """Per batch, the observed images of a modality, as the networks see them."""
    spec, rows = data.specs[target], torch.nonzero(data.observed[target]).squeeze(1)
    for index in rows.split(BATCH):
        images = spec.prepare(data.modalities[spec.name].index_select(0, index).to(device))
        if not ((images >= 0) & (images <= 1)).all():
            raise UserError(f"images of {spec.name!r} reach from {images.min():.3g} to {images.max():.3g} as the "
                            "networks see them: describe them with a `scale` that brings them to [0, 1]")
        yield images
