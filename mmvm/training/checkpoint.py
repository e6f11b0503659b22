"""Files that are whole or absent: a checkpoint and what is in it; versions and commit that a result depends on."""

import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmvm import paths
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "mmvm-checkpoint-1"


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a checkpoint. Raises `UserError` for a missing, cut or foreign file."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: train first, or correct the path")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it to start over, or copy it again") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is no checkpoint of this program (its format is {metadata.get('format')!r}, expected "
                        f"{FORMAT!r}): name a checkpoint.safetensors that `python -m mmvm train` wrote")
    return tensors, metadata


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


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))
    except SafetensorError as error:
        raise UserError(f"{path} cannot be written ({error}): make room on the disk, or choose another "
                        "folder") from None


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_atomically(path: Path, write) -> None:
    """Writes to a file beside `path`, syncs it and moves it in place, so that no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """The versions a result depends on."""
    found = {}
    for package in ("mmvm", "torch", "numpy", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str:
    """Short commit of the project, "+" appended when `mmvm` or `studies` has uncommitted changes, "" without git."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(paths.REPOSITORY), *words], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--", "mmvm", "studies")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
