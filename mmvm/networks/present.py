"""A network sees what is there: rows that stand for what is absent never pass into statistics over a batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def run_on_present(network: nn.Module, x: Tensor, present: Tensor | None) -> Any:
    """network(x) for x (B, ...): a tensor (B, ...) or a tuple of them.

    In training, a network that normalises over the batch gets only the rows that are `present` (B,) bool; None: all
    are. The rows that it was not given are 0 in what is returned. Fewer than two rows make no statistics: then the
    whole batch is normalised by the running ones, and these stay as they are.

    >>> mmvm.networks.run_on_present(torch.nn.BatchNorm1d(3), a, torch.arange(60) < 50)[50:].abs().sum().item()
    0.0
    """
    if present is None or not network.training or not batch_statistics(network) or bool(present.all()):
        return network(x)
    if int(present.sum()) < 2:
        with _kept(network):
            return network(x)
    out = network(x[present])
    return _spread(out, present) if isinstance(out, Tensor) else tuple(_spread(part, present) for part in out)


def batch_statistics(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that normalise over the batch, or keep statistics of it."""
    return [layer for layer in network.modules() if hasattr(layer, "running_mean")]


def _spread(rows: Tensor, present: Tensor) -> Tensor:
    return rows.new_zeros(len(present), *rows.shape[1:]).index_put((present,), rows)


@contextmanager
def _kept(network: nn.Module) -> Iterator[None]:
    layers = [layer for layer in batch_statistics(network) if layer.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True
