"""Likelihoods whose decoder gives several numbers an entry: they stand in the last dimension."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmvm.likelihoods.base import Likelihood, sum_event, where_seen, widen


class Several(Likelihood):
    """Base class. k = `per_entry` numbers describe an entry of x, so a decoder gives (B, *shape, k), or (B, *shape)
    where k is 1. `entries(parameters, x, event_ndim, seen)` gets the k of them, each of x's shape, and gives each
    entry's log p.
    """

    @property
    def per_entry(self) -> int:
        return 1

    def parameter_shape(self, shape: tuple[int, ...]) -> tuple[int | str, ...]:
        return (*shape, self.per_entry) if self.per_entry > 1 else tuple(shape)

    def split(self, params: Tensor) -> tuple[Tensor, ...]:
        """(..., *shape, k) -> k tensors (..., *shape)."""
        return widen(params).unbind(-1) if self.per_entry > 1 else (widen(params),)

    def entries(self, parameters: Sequence[Tensor], x: Tensor, event_ndim: int, seen: Tensor | None) -> Tensor:
        raise NotImplementedError

    def log_prob(self, params: Tensor, x: Tensor, event_ndim: int, seen: Tensor | None = None) -> Tensor:
        hidden = tuple(where_seen(p, x, seen)[0] for p in self.split(params))
        values = self.entries(hidden, where_seen(hidden[0], x, seen)[1], event_ndim, seen)
        return sum_event(values if seen is None else values.masked_fill(~seen, 0.0), event_ndim).to(hidden[0].dtype)


def event_softmax(logits: Tensor, event_ndim: int, seen: Tensor | None = None) -> Tensor:
    """Logarithms of shares that add up to one over the entries of an event that are `seen`; 0 elsewhere."""
    if not event_ndim:
        return torch.zeros_like(logits)
    flat = logits.flatten(-event_ndim)
    if seen is None:
        return flat.log_softmax(-1).view_as(logits)
    gone = ~seen.expand_as(logits).flatten(-event_ndim)
    lowest = torch.finfo(flat.dtype).min
    return flat.masked_fill(gone, lowest).log_softmax(-1).masked_fill(gone, 0.0).view_as(logits)
