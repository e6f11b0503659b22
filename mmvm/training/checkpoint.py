"""A checkpoint: the weights, the optimiser's state and what a run must agree on to be continued."""

import json
import os
from pathlib import Path

import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.files import read_safetensors
from mmvm.model import MultimodalVAE

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "mmvm-checkpoint-2"
OLD_FORMAT = "mmvm-checkpoint-1"  # has no digest


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a checkpoint. Raises `UserError` for a missing, cut, changed or foreign file."""
    return read_safetensors(path, FORMAT, "checkpoint", "`python -m mmvm train`", undigested=(OLD_FORMAT,))


def load_weights(model: MultimodalVAE, path: str | os.PathLike) -> dict:
    """Puts the weights of a checkpoint into a model of the same shape; returns the checkpoint's config."""
    tensors, metadata = read_checkpoint(path)
    put_weights(model, tensors, path)
    return json.loads(metadata["config"])


def put_weights(model: MultimodalVAE, tensors: dict[str, Tensor], path: str | os.PathLike) -> None:
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path} holds another model: {str(error).splitlines()[-1].strip()} Build the model from the "
                        "checkpoint's own parameters") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state under the names it has in a checkpoint."""
    return {f"optimizer.{i}.{name}": value for i, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()}


def put_optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], parameters: list[Tensor]) -> None:
    """What `optimizer_tensors` gave, put back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            i, _, name = rest.partition(".")
            if value.shape == parameters[int(i)].shape:  # in its layout: the fused Adam walks through both alike
                value = torch.empty_like(parameters[int(i)], dtype=value.dtype).copy_(value)
            state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def check_same_run(path: Path, theirs: dict, ours: dict) -> None:
    """Raises `UserError` where the config of the checkpoint and that of the run differ."""
    differing = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
    if differing:
        what = ", ".join(f"{name} (there {theirs.get(name)!r}, here {ours.get(name)!r})" for name in differing)
        raise UserError(f"{path} belongs to another run: {what}. Choose another folder, or delete it to start over")
