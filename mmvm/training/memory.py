"""How much memory a model takes, how much there is, and how much a process has taken."""

import math
import sys
from pathlib import Path

import torch
from torch import nn

from mmvm.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

COPIES = 4  # of the weights: themselves, gradients, two of Adam
GB = 1e9


def require(model: nn.Module | None, device: torch.device) -> None:
    """Raises `UserError` where training `model`, which may be on the "meta" device, takes more than is free on
    `device` by its weights alone. What a batch needs comes on top and is not known before. None is not judged."""
    if model is None:
        return
    weights = {name: value.numel() * value.element_size() for name, value in model.named_parameters()}
    needed, free = COPIES * sum(weights.values()), available(device)
    if needed > free:
        largest = max(weights, key=weights.__getitem__)
        shape = tuple(model.get_parameter(largest).shape)
        raise UserError(f"the weights, their gradients and Adam's state take {needed / GB:,.1f} GB (the largest is "
                        f"{largest} {shape}), {free / GB:,.1f} GB are free on {device}: choose a smaller latent_dim or "
                        "network")


def available(device: torch.device) -> float:
    """Bytes that are free on `device`; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [math.inf]
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            found.append(1024 * int(line.split()[1]))
    for limit, used in (("memory.max", "memory.current"),
                        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):  # cgroups, version 2 and 1
        words = [*_lines(f"/sys/fs/cgroup/{limit}"), *_lines(f"/sys/fs/cgroup/{used}")]
        if len(words) == 2 and all(word.isdigit() for word in words):
            found.append(int(words[0]) - int(words[1]))
    return min(found)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def peak(device: torch.device) -> dict[str, float]:
    """{"peak_memory_gb": ...}, the most that this process has held so far: resident, or allocated on a GPU. Empty
    where the system does not say."""
    if device.type == "cuda":
        return {"peak_memory_gb": round(torch.cuda.max_memory_allocated(device) / GB, 3)}
    if resource is None:
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_memory_gb": round(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GB, 3)}
