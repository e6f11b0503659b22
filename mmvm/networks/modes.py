"""Networks as they are measured: evaluation mode, seeded draws, and everything as it was afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seeded(seed: int | None, device: torch.device | None = None) -> Iterator[None]:
    """Random numbers from `seed` on (None: from where they are) for the CPU, and for `device` where that is a GPU; the
    caller's are put back."""
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        if seed is not None:
            # `fork_rng` puts back no other device's numbers than it was given
            (torch.manual_seed if on_gpu else torch.default_generator.manual_seed)(seed)
        yield


@contextmanager
def evaluating(model: nn.Module, seed: int | None = None) -> Iterator[torch.device]:
    """Eval mode on the model's own device, seeded draws, everything put back afterwards."""
    device = next(model.parameters(), torch.empty(0)).device
    training = {module: module.training for module in model.modules()}
    with seeded(seed, device):
        model.eval()
        try:
            yield device
        finally:
            for module, mode in training.items():
                module.training = mode
