"""One way to walk over data with a trained model: encodings, and means over what is observed."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mmvm.data import MultimodalData, check_units
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import evaluating

BATCH = 500


@torch.no_grad()
def encode_means(model: MultimodalVAE, data: MultimodalData) -> Tensor:
    """The means of the unimodal posteriors, (M, N, D) float32 on the CPU; NaN where a modality is not observed.

    >>> mmvm.evaluation.encode_means(model, data).shape
    torch.Size([2, 60, 2])
    """
    return torch.cat([q.mean.masked_fill(~seen.unsqueeze(-1), float("nan")) for q, seen in _encoded(model, data)], 1)


@torch.no_grad()
def posteriors(model: MultimodalVAE, data: MultimodalData) -> tuple[DiagonalGaussian, Tensor]:
    """The unimodal posteriors (M, N, D) in float64 and what is observed (M, N), on the CPU."""
    parts, seen = zip(*_encoded(model, data))
    mean, logvar = (torch.cat([getattr(q, name) for q in parts], 1).double() for name in ("mean", "logvar"))
    return parts[0].within_limits(mean, logvar), torch.cat(seen, 1)


def _encoded(model: MultimodalVAE, data: MultimodalData) -> Iterator[tuple[DiagonalGaussian, Tensor]]:
    """Posteriors (M, B, D) and what is observed (M, B), batch by batch, in float32 on the CPU."""
    check_units(model, data)
    with evaluating(model) as device:
        for batch in data.batches(BATCH):
            q = model.encode([x.to(device) for x in batch.x], batch.observed.to(device))
            q = DiagonalGaussian.within_limits(q.mean.float().cpu(), q.logvar.float().cpu())
            yield model.objective.posteriors(q), batch.observed.cpu()


def means_of(model: MultimodalVAE, data: MultimodalData) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per modality, posterior means (n, D) of the n samples that have it, and which these are (N,)."""
    return [(m[o].numpy(), o.numpy()) for m, o in zip(encode_means(model, data), data.observed.cpu())]


@torch.no_grad()
def from_each_source(model: MultimodalVAE, data: MultimodalData, seed: int) -> Iterator[tuple]:
    """(source, batch, index, decoder outputs) with only the source's modality given, over the samples that have it."""
    check_units(model, data)
    with evaluating(model, seed) as device:
        for source in range(len(data.specs)):
            rows = torch.nonzero(data.observed[source]).squeeze(1)
            for index in rows.split(BATCH):
                batch = data.batch(index)
                observed = torch.zeros_like(batch.observed, device=device)
                observed[source] = True
                q = model.encode([x.to(device) for x in batch.x], observed)
                yield source, batch, index, model.decode(model.objective.impute_latents(q, observed))


def means_and_labels(model: MultimodalVAE, data: MultimodalData) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per modality, posterior means and labels of the samples that have it."""
    labels, found = labels_of(data).cpu().numpy(), means_of(model, data)
    return [means for means, _ in found], [labels[seen] for _, seen in found]


def some_of(data: MultimodalData, n: int | None, seed: int) -> MultimodalData:
    """`n` random samples, in random order; all, as they are, for None or where there are no more."""
    return data if n is None or n >= len(data) else data.subset(some_rows(len(data), n, seed))


def some_rows(rows: int, n: int | None, seed: int) -> Tensor:
    """The numbers of the samples that `some_of` takes of so many."""
    return torch.arange(rows) if n is None or n >= rows else torch.randperm(
        rows, generator=torch.Generator().manual_seed(seed))[:n]


def labels_of(data: MultimodalData) -> Tensor:
    """(N,) or (N, C). Raises `UserError` where there are none."""
    if data.labels is None:
        raise UserError("this measure needs labels: give `labels` with the data")
    return data.labels


def check_class_labels(*sets: MultimodalData) -> None:
    if any(data.labels is None or data.labels.ndim != 1 for data in sets):
        raise UserError("probe and coherence need one class number per sample in `labels`; of labels (N, C) use "
                        "mmvm.evaluation.multilabel")
    _check_label_names(sets)


def check_binary_labels(*sets: MultimodalData) -> None:
    if any(data.labels is None or data.labels.ndim != 2 for data in sets):
        raise UserError("these scores need labels (N, C) of zeros and ones; for one class number per sample use "
                        "mmvm.evaluation")
    _check_label_names(sets)


def _check_label_names(sets: Sequence[MultimodalData]) -> None:
    named = list(dict.fromkeys(data.label_names for data in sets if data.label_names))
    if len(named) > 1:  # one number would mean two classes
        raise UserError(f"labels are named {', '.join(named[0])} in one set and {', '.join(named[1])} in another: make "
                        "the test data with label_names=train.label_names, so that one number is one class")


def mean_or_nan(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count, NaN where nothing was counted."""
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
