"""Networks as they are measured: evaluation mode, seeded draws, and everything as it was afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module, seed: int | None = None) -> Iterator[torch.device]:
    """Eval mode on the model's own device, seeded draws, everything put back afterwards."""
    device = next(model.parameters(), torch.empty(0)).device
    training = {module: module.training for module in model.modules()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if seed is not None:
            # a model on the CPU draws there alone, and `fork_rng` puts no other device's numbers back
            (torch.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed)(seed)
        model.eval()
        try:
            yield device
        finally:
            for module, mode in training.items():
                module.training = mode
