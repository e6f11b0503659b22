"""What a file of ours holds, in lines for people: `python -m mmvm show FILE`. Nothing that it names is imported."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from mmvm import keep, paths
from mmvm.errors import UserError
from mmvm.files import read_safetensors
from mmvm.study.study import CLASSIFIER
from mmvm.training import checkpoint

KINDS = {keep.FORMAT: "kept model", checkpoint.FORMAT: "checkpoint", CLASSIFIER: "classifier"}
OLD = {checkpoint.OLD_FORMAT: "checkpoint from before there were digests"}


def lines(path: str | os.PathLike) -> Iterator[str]:
    """Of a kept model, a checkpoint, a classifier or a prepared array (.npy), or of all of them in a folder. Raises
    `UserError` for another file, and for one that was changed."""
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
        about = {keep.FORMAT: _kept, CLASSIFIER: lambda read: []}.get(metadata["format"], _checkpoint)
        try:
            read = {name: json.loads(text) if text[:1] in ("{", "[") else text for name, text in metadata.items()}
            yield from (f"  {line}" for line in [*about(read), *_tensors(tensors)])
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise UserError(f"{path} says of itself what no version of this program wrote ({type(error).__name__}: "
                            f"{error}): copy it again, or make it anew") from None


def _array(path: Path) -> list[str]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:  # as the header has it
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}): prepare the data again") from None
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
    root = read["recipe"]["model"]
    model = root["attributes"]
    yield _origin(read)
    yield (f"{_class(root['module'])}, {read['latent_dim']} latent dimensions, beta {_said(model['beta'])}, in "
           f"{'training' if root['training'] else 'evaluation'} mode")
    objective = root["layers"]["objective"]
    yield f"objective {_tree(objective)}"
    networks = zip(*(root["layers"][kind]["layers"].values() for kind in ("encoders", "decoders")))
    for modality, pair in zip(model["modalities"]["tuple"], networks):
        about = {name: _said(value) for name, value in modality["with"].items()}
        yield f"modality {about.pop('name')}: " + ", ".join(f"{name} {value}" for name, value in about.items())
        yield from (f"  {kind} {_tree(network)}" for kind, network in zip(("encoder", "decoder"), pair))
    if read["classes"]:
        yield f"imports, if load(..., allow=...) names them: {', '.join(read['classes'])}"


def _class(path: str) -> str:
    return path if not path.startswith(("torch.nn.", "mmvm.")) else path.partition(":")[2]


def _tree(part: Mapping) -> str:
    """A module with its attributes, and how many layers of which kind it has; those of torch by their class alone."""
    if "same" in part:
        return f"the same as {part['same']}"
    kinds = Counter(_class(x["module"]) if x["module"].startswith("torch.nn.") else _own(x) for x in _below(part))
    below = ", ".join(f"{n} {kind}" for kind, n in kinds.items() if kind != "Sequential")
    return _own(part) + (f" of {below}" if below else "")


def _own(part: Mapping) -> str:
    own = ", ".join(f"{name}={_said(x)}" for name, x in part["attributes"].items() if name[0] != "_")
    return f"{_class(part['module'])}({own})"


def _below(part: Mapping) -> Iterator[Mapping]:
    for x in part["layers"].values():
        if x and "module" in x:
            yield x
            yield from _below(x)


def _said(x) -> str:
    """A value of a recipe as Python would write it."""
    match x:
        case {"tuple": parts}:
            return f"({', '.join(map(_said, parts))}{',' * (len(parts) == 1)})"
        case {"made": path, "with": parts}:
            return f"{_class(path)}({', '.join(f'{name}={_said(part)}' for name, part in parts.items())})"
        case {"dict": pairs}:
            return "{" + ", ".join(f"{_said(key)}: {_said(part)}" for key, part in pairs) + "}"
        case list():
            return f"[{', '.join(map(_said, x))}]"
        case dict():
            return " ".join(map(str, next(iter(x.items()))))
    return repr(x)
