"""Files that are whole or absent, and that notice when a bit of them has changed; the versions a result depends on.

Everything the project keeps of tensors is a safetensors file whose metadata hold a digest of all tensors and all other
metadata. It is checked at every read.
"""

import gzip
import hashlib
import json
import os
import subprocess
import tokenize
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from mmvm import paths
from mmvm.errors import UserError


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Tensors of any device, and texts about them, with their digest. Raises `UserError` where the disk is full."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    metadata = {**metadata, "digest": digest(tensors, metadata)}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))
    except (SafetensorError, OSError) as error:
        cure = "make room on the disk, or use another folder" if path.parent.is_dir() else f"make folder {path.parent}"
        raise UserError(f"{path} cannot be written ({error}): {cure}") from None


def read_safetensors(path: str | os.PathLike, format: str | tuple[str, ...], what: str, made_by: str,
                     undigested: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata that `write_safetensors` wrote with this `metadata["format"]`, or one of these.

    `what` is what such a file is called, `made_by` who writes it, for the errors. Files of the formats `undigested`,
    from before there were digests, are read without one. Raises `UserError` for one missing, cut, changed or foreign.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no {what} {path}: correct the path, or make one with {made_by}")
    try:
        if not path.is_file():  # a pipe would be waited for, a device read for ever
            raise OSError("it is no file")
        content = path.read_bytes()  # at once: `safe_open` opens twice, and a writer may have moved another in place
        tensors = load(content)
        metadata = json.loads(content[8:8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # as the header has it
        cure = "delete it to start over" if path.suffix == ".safetensors" else f"name one that {made_by} wrote"
        raise UserError(f"{path} cannot be read ({error}): {cure}, or copy it again") from None
    if metadata.get("format") not in (*([format] if isinstance(format, str) else format), *undigested):
        raise UserError(f"{path} is no {what} of this program (its format is {metadata.get('format')!r}, expected "
                        f"{format!r}): name one that {made_by} wrote")
    stated = metadata.pop("digest", None)
    if stated != digest(tensors, metadata) and not (stated is None and metadata["format"] in undigested):
        raise UserError(f"{path} was changed after it was written, or its disk fails (it does not have the digest that "
                        "it states): delete it to start over, or copy it again")
    return tensors, metadata


def read_array(path: Path, mmap_mode: Literal["r", "c"] | None = None) -> np.ndarray:
    """The array of a .npy file, or of a .npy.gz, which cannot be memory-mapped. Raises `UserError` for whatever else
    lies there, pickles included, which are not opened."""
    try:
        if not path.is_file():
            raise OSError("it is no file")
        if path.suffix != ".gz":
            found = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        else:
            with gzip.open(path) as file:
                found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("it is an archive, no array")
    except (OSError, EOFError, ValueError, zlib.error, SyntaxError, tokenize.TokenError, OverflowError, TypeError,
            KeyError, RecursionError, MemoryError) as error:  # as the header has it
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as a numpy array ({why:.300}): copy it, or make it, anew") from None
    return found


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256 of names, types, shapes and bytes of the tensors, which are on the CPU, and of the metadata; in hex."""
    found = hashlib.sha256(json.dumps(sorted((metadata or {}).items())).encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return found.hexdigest()


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
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
    """Short commit of the project, "+" appended when `mmvm` or `studies` has uncommitted changes. Without git what the
    environment variable MMVM_COMMIT says, or ""."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(paths.REPOSITORY), *words], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--", "mmvm", "studies")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("MMVM_COMMIT", "")
