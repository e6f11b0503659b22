"""A checkpoint: the weights, the optimiser's state and what a run must agree on to be continued."""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.files import read_safetensors
from mmvm.identity import differences
from mmvm.model import MultimodalVAE

CHECKPOINT = "checkpoint.safetensors"
"""Name of the file in a run's folder that holds weights, the optimiser's state and all that a run must agree on.

>>> mmvm.training.CHECKPOINT
'checkpoint.safetensors'
"""
FORMAT = "mmvm-checkpoint-2"
"""What a checkpoint says of itself; another format is refused where it is read.

>>> mmvm.training.FORMAT.startswith("mmvm-checkpoint")
True
"""
OLD_FORMAT = "mmvm-checkpoint-1"  # has no digest
BEST = "best."  # of the weights with the best validation, beside the last ones
MOST_DIFFERENCES = 6  # that an error names


class TrainingWarning(UserWarning):
    """The run goes on, but it will not, or cannot be known to, give what was asked for.

    >>> issubclass(mmvm.training.TrainingWarning, UserWarning)
    True
    """


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a checkpoint; a `TrainingWarning` for one from before a checkpoint knew its data.
    Raises `UserError` for a missing, cut, changed or foreign file.

    >>> history = fit(model, data, epochs=1, out=folder)
    >>> tensors, metadata = mmvm.training.read_checkpoint(folder / mmvm.training.CHECKPOINT)
    >>> metadata["plan"]
    'plain'
    """
    tensors, metadata = read_safetensors(path, FORMAT, "checkpoint", "`python -m mmvm train`", undigested=(OLD_FORMAT,))
    if "data" not in metadata:
        warnings.warn(f"{path} was written by an earlier version, which recorded neither data nor model: it cannot "
                      "vouch that they are those of now", TrainingWarning, stacklevel=2)
    return tensors, metadata


def load_weights(model: MultimodalVAE, path: str | os.PathLike) -> dict:
    """Puts the weights of a checkpoint into a model of the same shape, of a run with patience those of its best epoch;
    returns the checkpoint's config.

    >>> history = fit(model, data, epochs=1, out=folder)
    >>> mmvm.training.load_weights(model, folder / mmvm.training.CHECKPOINT)["batch_size"]
    60
    """
    tensors, metadata = read_checkpoint(path)
    put_weights(model, tensors, path, BEST if any(name.startswith(BEST) for name in tensors) else "model.")
    return json.loads(metadata["config"])


def put_weights(model: MultimodalVAE, tensors: dict[str, Tensor], path: str | os.PathLike,
                prefix: str = "model.") -> None:
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path} holds another model: {str(error).splitlines()[-1].strip()} Build the model from the "
                        "checkpoint's own parameters") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state under the names it has in a checkpoint."""
    return {f"optimizer.{i}.{name}": value for i, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()}


def put_optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor],
                        parameters: Sequence[Tensor]) -> None:
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


def check_config(config: Any) -> None:
    """Raises `UserError` for what a checkpoint could not hold: before the training, not where it is first written."""
    if not isinstance(config, Mapping | None):
        raise UserError(f"config is a {type(config).__name__}: give a dictionary, name -> value")
    for name, value in (config or {}).items():
        try:
            json.dumps({name: value})
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"config[{name!r}] cannot be kept in a checkpoint ({error}): give numbers, texts, bools or "
                            "None under names, or lists and dictionaries, as float(x) and x.tolist()") from None


def check_same_run(path: Path, metadata: Mapping[str, str], config: dict, data: str, architecture: dict) -> None:
    """Raises `UserError` that names what differs between the run of the checkpoint and this one."""
    found = differences(json.loads(metadata["config"]), json.loads(json.dumps(config)))
    if "data" in metadata:
        if metadata["data"] != data:
            found["data"] = f"data (there {metadata['data'][:10]}..., here {data[:10]}...)"
        # written before layers had options, a checkpoint names a layer's class alone
        theirs = {name: architecture[name] if value == str(architecture.get(name)).partition("(")[0] else value
                  for name, value in json.loads(metadata["architecture"]).items()}
        found.update({name: text for name, text in differences(theirs, architecture).items() if name not in found})
    if found:
        first = sorted(found, key=lambda name: name.startswith(("layer ", "weights of ")))  # what was chosen says more
        what = ", ".join(found[name] for name in first[:MOST_DIFFERENCES])
        more = f" and {len(found) - MOST_DIFFERENCES} more" if len(found) > MOST_DIFFERENCES else ""
        raise UserError(f"{path} belongs to another run: {what}{more}. Choose another folder, or delete it to start "
                        "over")
