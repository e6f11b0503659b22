"""What a file of ours holds, in lines for people: `python -m mmvm show FILE`. Nothing that it names is imported."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from mmvm import keep, paths
from mmvm.diffusion import density
from mmvm.errors import UserError
from mmvm.files import read_array, read_safetensors
from mmvm.study.classifiers import CLASSIFIER
from mmvm.training import checkpoint

KINDS = {keep.FORMAT: "kept model", checkpoint.FORMAT: "checkpoint", CLASSIFIER: "classifier",
         density.FORMAT: "kept diffusion"}
OLD = {checkpoint.OLD_FORMAT: "checkpoint from before there were digests"}


def lines(path: str | os.PathLike) -> Iterator[str]:
    """Of a kept model or diffusion, a checkpoint, a classifier or a prepared array (.npy), or of all in a folder.
    Raises `UserError` for another file, and for one that was changed."""
    path = paths.home(path)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in (".npy", ".safetensors"))
        if not found:
            raise UserError(f"{path} has no .npy or .safetensors: name a run's folder, or one of prepared arrays")
        for file in found:
            yield from lines(file)
    elif path.suffix == ".npy":
        yield from _array(path)
    else:
        tensors, metadata = read_safetensors(path, tuple(KINDS), "file", "this program", tuple(OLD))
        yield f"{path}: {({**KINDS, **OLD})[metadata['format']]}"
        about = {keep.FORMAT: _kept, density.FORMAT: _diffusion, CLASSIFIER: lambda read: []}.get(
            metadata["format"], _checkpoint)
        try:
            read = {name: json.loads(text) if text.startswith(("[", "{")) else text for name, text in metadata.items()}
            for line in [*about(read), *_tensors(tensors)]:
                yield "  " + "".join(sign if sign.isprintable() else "?" for sign in line)  # a terminal obeys some
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise UserError(f"{path} says of itself what no version of this program wrote ({type(error).__name__}: "
                            f"{error}): copy it again, or make it anew") from None


def _array(path: Path) -> list[str]:
    array = read_array(path, mmap_mode="r")
    fields = ", ".join(f"{name} {array.dtype[name]}" for name in array.dtype.names or ())
    return [f"{path}: array {array.shape} of {fields or array.dtype}, {array.nbytes / 1e6:,.1f} MB"]


def _tensors(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """One line per kind of tensor."""
    kinds: dict[str, list[Tensor]] = {}
    for name, x in tensors.items():
        kinds.setdefault(name.partition(".")[0] if "." in name else "weights", []).append(x)
    for kind, some in sorted(kinds.items()):
        types = ", ".join(sorted({str(x.dtype).removeprefix("torch.") for x in some}))
        yield (f"{kind}: {len(some)} tensors of {types}, {sum(x.numel() for x in some):,} numbers, "
               f"{sum(x.numel() * x.element_size() for x in some) / 1e6:,.1f} MB")


def _origin(read: Mapping) -> str:
    known = ", ".join(f"{name} {of}" for name, of in read["versions"].items())
    return f"written with {known}; commit {read['commit'] or 'unknown'}"


def _checkpoint(read: Mapping) -> Iterator[str]:
    yield ", ".join(f"{name} {value}" for name, value in read["progress"].items())
    yield _origin(read)
    yield f"trained on data {str(read['data'])[:10]}..." if "data" in read else "does not say on which data"
    for name, value in read["config"].items():
        yield f"{name} = {value!r}"
    for name, value in read.get("architecture", {}).items():
        if not name.startswith(("layer ", "weights of ")):
            yield f"{name} = {value!r}"


def _kept(read: Mapping) -> Iterator[str]:
    yield _origin(read)
    yield from read["about"]
    named = re.findall(r'"(?:module|made|named)": "(.*?)"', json.dumps(read["recipe"]))
    if outside := [path for path in dict.fromkeys(named) if not keep.belongs(path, keep.trusted())]:
        yield f"imports, if load(..., allow=...) names them: {', '.join(outside)}"


def _diffusion(read: Mapping) -> Iterator[str]:
    yield _origin(read)
    yield f"over the latents of {', '.join(read['names'])}, of a model with the weights {str(read['model'])[:10]}..."
    yield f"{read['steps']} steps, guidance {read['guidance']}"
