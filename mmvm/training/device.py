"""Where a run computes, and in which precision."""

from pathlib import Path

import torch

from mmvm.errors import UserError
from mmvm.training import distributed


def resolve_device(device: str) -> torch.device:
    """"auto" -> a GPU if there is one; each of several processes its own. Raises `UserError` for a GPU that is not
    there.

    >>> mmvm.training.resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise UserError(f"unknown device {device!r}: use 'auto', 'cpu', 'cuda' or 'cuda:<number>'")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r} asked for, but torch sees no GPU: use device='cpu' or 'auto'")
    ranks = distributed.ranks()
    if ranks.size > 1 and resolved == torch.device("cuda"):
        resolved = torch.device("cuda", ranks.local)
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """"auto" -> "bfloat16" where `device` computes in it, else "float32".

    Raises `UserError` for another text.

    >>> mmvm.training.resolve_precision("float32", torch.device("cpu"))
    'float32'
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"unknown precision {precision!r}: use 'auto', 'float32' or 'bfloat16'")
    if precision != "auto":
        return precision
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu_has_bfloat16()
    return "bfloat16" if native else "float32"


def cpu_has_bfloat16() -> bool:
    # emulated bfloat16 is slower than float32, so only native instructions count; torch has no public question for it
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
