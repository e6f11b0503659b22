"""Distances in the features of a classifier, and all cross-modal measures in one walk."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import BATCH, evaluating, from_each_source, mean_over_batches
from mmvm.evaluation.frechet.images import generated_features, real_features
from mmvm.evaluation.frechet.moments import WIDEST, RunningMoments, frechet_distance
from mmvm.model import MultimodalVAE


@torch.no_grad()
def features_of(classifier: nn.Module, images: Tensor) -> Tensor:
    """What the classifier's last layer sees of prepared images (B, 3, 28, 28): `classifier.features`, (B, F).

    Always without dropout. Where F exceeds 2,048 they are averaged over positions, as Inception's are, 12,544 -> 256
    for the paper's ResNet: 10,000 images give 12,544 features a singular covariance of 1.3 GB.
    """
    if not callable(getattr(classifier, "features", None)):
        raise UserError(f"{type(classifier).__name__} has no method `features`: give networks with a "
                        "`features(images)` that returns (B, F)")
    with evaluating(classifier) as device:
        features = classifier.features(images.to(device)).flatten(1)
    return pooled(classifier, features)


def pooled(classifier: nn.Module, features: Tensor) -> Tensor:
    channels = [module.out_channels for module in classifier.modules() if isinstance(module, nn.Conv2d)][-1:]
    if features.shape[1] > WIDEST and channels and features.shape[1] % channels[0] == 0:
        return features.unflatten(1, (channels[0], -1)).mean(-1)
    return features


def classifier_distance(model: MultimodalVAE, data: MultimodalData, classifiers: Sequence[nn.Module | None],
                        seed: int = 0) -> np.ndarray:
    """The classifier-feature Frechet distance, (M, M): FID's formula on our own classifiers' features, no FID.

    Entry [s, t]: `frechet_distance` of `features_of` classifier t between all real images of modality t and those
    generated from s; the diagonal is self-reconstruction. Every classifier has a scale of its own: numbers, averages
    too, compare only between models that the same classifiers judge.

    n images against F features: two samples of one distribution
    lie apart by up to F / (2n) of their total variance, so take n >= 10 F and compare at one n only. For n <= F the
    covariances are singular, which the formula bears, but then this bias is most of what is measured.

    NaN in row and column of a modality that is never observed, and in the column of a classifier that is None. Raises
    `UserError` for n < 2.
    """
    if len(classifiers) != len(data.specs):
        raise UserError(f"{len(classifiers)} classifiers for {len(data.specs)} modalities: give one each, in the order "
                        f"{data.names}, None where there is none")
    metrics = [None if classifier is None else Distances(classifier) for classifier in classifiers]
    return distance_matrix(model, data, metrics, seed, BATCH)


@torch.no_grad()
def cross_modal(model: MultimodalVAE, data: MultimodalData, classifiers: Sequence[nn.Module],
                seed: int = 0) -> dict[str, np.ndarray]:
    """`coherence`, `imputation` (error) and `classifier_distance` of images, each (M, M), in one pass per source: every
    latent is decoded once and every image classified once, clamped to [0, 1]. NaN where nothing is observed.

    `evaluation.coherence` classifies what the decoder says, unclamped, hence may differ in a few of 10,000 images;
    `classifier_distance` draws other latents for the same seed.
    """
    m = len(data.specs)
    right, nll, both = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    moments = [[RunningMoments() for _ in range(m)] for _ in range(m + 1)]  # the last row: real images
    for target, classifier in enumerate(classifiers):
        for images in real_features(data, target, next(model.parameters()).device):
            moments[m][target].update(features_of(classifier, images))
    with evaluating(nn.ModuleList(classifiers)):
        for source, batch, index, parameters in from_each_source(model, data, seed):
            labels = data.labels.index_select(0, index).to(parameters[0].device)
            for target, (spec, classifier, out) in enumerate(zip(data.specs, classifiers, parameters)):
                x, seen = spec.prepare(batch.x[target].to(out.device)), batch.observed[target].to(out.device)
                nll[source, target] -= spec.likelihood.log_prob(out, x, len(spec.shape))[seen].double().sum().item()
                both[source, target] += seen.sum().item()
                features = classifier.features(spec.likelihood.mean(out).float().clamp(0, 1))
                right[source, target] += (classifier.head(features).argmax(-1) == labels).sum().item()
                moments[source][target].update(pooled(classifier, features))
    distance = np.full((m, m), np.nan)
    for s, t in np.ndindex(m, m):
        real, generated = moments[m][t], moments[s][t]
        if real.n > 1 and generated.n > 1:
            distance[s, t] = frechet_distance(real.mean, real.cov, generated.mean, generated.cov)
    return {"coherence": mean_over_batches(right, data.observed.sum(1, keepdim=True).cpu().numpy()),
            "imputation": mean_over_batches(nll, both), "classifier_distance": distance}


class Distances:
    """`classifier_distance` of one target, with the methods of a torchmetrics metric that `distance_matrix` calls."""

    def __init__(self, classifier: nn.Module):
        self.classifier = classifier
        self.real, self.generated = RunningMoments(), RunningMoments()

    def update(self, images: Tensor, real: bool) -> None:
        (self.real if real else self.generated).update(features_of(self.classifier, images))

    def compute(self) -> float:
        return frechet_distance(self.real.mean, self.real.cov, self.generated.mean, self.generated.cov)

    def reset(self) -> None:
        self.generated = RunningMoments()


@torch.no_grad()
def distance_matrix(model: MultimodalVAE, data: MultimodalData, metrics: Sequence, seed: int, batch_size: int,
            convert=lambda images: images) -> np.ndarray:
    """(M, M) of one metric per target, None for none, in one pass per source."""
    counts = data.observed.sum(1).tolist()
    if len(data) < 2 or 1 in counts:
        name, n = (data.names[counts.index(1)], 1) if 1 in counts else (data.names[0], 0)
        raise UserError(f"these data hold {n} samples of {name!r}, a covariance needs at least 2 (and ten times the "
                        "number of features to mean something): give more data")
    targets = [t for t, metric in enumerate(metrics) if metric is not None and counts[t]]

    def update(target, images, real):
        for part in convert(images).split(batch_size):
            metrics[target].update(part, real=real)

    device = next(model.parameters()).device
    for t in targets:
        for images in real_features(data, t, device):
            update(t, images, True)
    values = np.full((len(counts),) * 2, np.nan)
    for s in (s for s, n in enumerate(counts) if n and targets):
        for generated in generated_features(model, data, s, targets, seed):
            for t, images in zip(targets, generated):
                update(t, images, False)
        for t in targets:
            values[s, t] = float(metrics[t].compute())
            metrics[t].reset()
    return values
