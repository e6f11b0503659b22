"""What a model makes up: joint draws of all modalities, and some given others, judged by classifiers."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import BATCH, check_class_labels, evaluating, labels_of, some_of
from mmvm.model import MultimodalVAE
from studies.polymnist.frechet import RunningMoments, features_of, frechet_distance


@torch.no_grad()
def generation(model: MultimodalVAE, density: Any, train: MultimodalData, test: MultimodalData,
               classifiers: Sequence[nn.Module], n: int = 1_000, n_train: int = 10_000,
               seed: int = 0) -> dict[str, np.ndarray]:
    """Of n joint draws from a `density` (`fit_latent_density`, `fit_latent_diffusion`; None: the method's own p(z)),
    and of n test samples of which the density, where it can, or else the objective makes up what is not given:

    joint_coherence            share of draws in which all classifiers see one class, (); of M independent draws 1/C
    joint_classes              entropy of the classes seen, (), nats: log C where all are as frequent
    joint_distance             (M,), squared Frechet distance of `features_of` the draws to those of the test samples
    joint_diversity            (M,), variance of these features within a class over that within the test samples' own
    joint_nearest              (M,), median distance of the draws to the nearest of `n_train` training samples over that
                               of what the model makes of test samples: far below 1, the draws are copies
    conditional_coherence_<k>  (), share of what is made up that shows the label, k of M modalities given, mean over
                               all such choices

    Samples that lack a modality are left out; one label a sample is needed. Raises `UserError`.
    """
    check_class_labels(test)
    train, test = (data.subset(torch.nonzero(data.observed.all(0)).squeeze(1)) for data in (train, test))
    if min(len(train), len(test), n) < 2:
        raise UserError("what is generated is judged beside whole samples: give two or more of training and of test "
                        "samples that have every modality, and n of 2 or more")
    train, test = some_of(train, n_train, seed), some_of(test, n, seed)
    with evaluating(model, seed) as device, evaluating(nn.ModuleList(classifiers)):
        drawn = [spec.standardised(x) for spec, x in zip(test.specs, model.generate(n, density).values())]
        conditional = _conditional(model, density if hasattr(density, "sample_given") else None, test, classifiers)
        redone = _made(model, test, torch.ones(len(test.specs), dtype=torch.bool), None)
        own, known = ([spec.prepare(x.to(device)) for spec, x in zip(
            data.specs, data.batch(torch.arange(len(data), device=data.device)).x)] for data in (test, train))
        nearest = [_nearest(a, x) / _nearest(b, x) for a, b, x in zip(drawn, redone, known)]
        seen = torch.stack([net(x.float()).argmax(-1).cpu() for net, x in zip(classifiers, drawn)])
    share = torch.bincount(seen.flatten()).double() / seen.numel()
    theirs, ours = ([features_of(net, x.float()).cpu() for net, x in zip(classifiers, xs)] for xs in (own, drawn))
    labels = labels_of(test).cpu()
    return {"joint_coherence": (seen == seen[0]).all(0).double().mean().numpy(),
            "joint_classes": torch.special.entr(share).sum().numpy(),
            "joint_distance": np.array([_distance(a, b) for a, b in zip(ours, theirs)]),
            "joint_diversity": np.array([_within(a, c) / _within(b, labels) for a, b, c in zip(ours, theirs, seen)]),
            "joint_nearest": np.array(nearest), **conditional}


def _made(model: MultimodalVAE, data: MultimodalData, given: Tensor, density: Any) -> list[Tensor]:
    """What the model makes of samples of which it is `given` some modalities, (M,) bool: (N, *shape) of each."""
    device, parts = next(model.parameters()).device, []
    for batch in data.batches(BATCH):
        observed = given.unsqueeze(1).expand(batch.observed.shape).to(device)
        parts.append(model.impute([x.to(device) for x in batch.x], observed, density=density, trust=batch.trust))
    return [spec.standardised(torch.cat([part[spec.name] for part in parts])) for spec in data.specs]


def _conditional(model: MultimodalVAE, density: Any, test: MultimodalData,
                 classifiers: Sequence[nn.Module]) -> dict[str, np.ndarray]:
    n_modalities, labels, found = len(test.specs), labels_of(test).cpu(), {}
    for k in range(1, n_modalities):
        right = []
        for chosen in itertools.combinations(range(n_modalities), k):
            given = torch.zeros(n_modalities, dtype=torch.bool)
            given[list(chosen)] = True
            made = _made(model, test, given, density)
            right += [(classifiers[m](made[m].float()).argmax(-1).cpu() == labels).double().mean()
                      for m in torch.nonzero(~given).flatten()]
        found[f"conditional_coherence_{k}"] = torch.stack(right).mean().numpy()
    return found


def _nearest(x: Tensor, known: Tensor) -> float:
    """Median over samples x (n, ...) of the Euclidean distance to the nearest of the known ones (N, ...)."""
    return float(torch.cdist(x.float().flatten(1), known.float().flatten(1)).amin(1).median())


def _within(features: Tensor, classes: Tensor) -> float:
    """Variance (summed over features) of features (n, F) around the mean of their class (n,)."""
    moved = features.double()
    for c in (present := classes.unique()):
        moved = torch.where((classes == c).unsqueeze(1), moved - moved[classes == c].mean(0), moved)
    return float(moved.square().sum() / max(len(moved) - len(present), 1))


def _distance(a: Tensor, b: Tensor) -> float:
    moments = RunningMoments(), RunningMoments()
    for of, features in zip(moments, (a, b)):
        of.update(features)
    return frechet_distance(moments[0].mean, moments[0].cov, moments[1].mean, moments[1].cov)
