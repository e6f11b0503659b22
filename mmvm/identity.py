"""What a run belongs to: a fingerprint of its training data, and what its model is made of.

A checkpoint holds both, so that weights are never taken for those of other data or of another model.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvm.data import MultimodalData, Repeated
from mmvm.files import digest
from mmvm.model import MultimodalVAE
from mmvm.schedule import plain

WHOLE = 2**28   # bytes of a memory-mapped array up to which all of it is read, 268 MB
SAMPLED = 1_000  # rows that are read of a larger one, evenly spread
# attributes of PyTorch's layers that change no number, or that the weights' shapes tell
NO_OPTION = {"training", "inplace", "in_features", "out_features", "in_channels", "out_channels", "num_features",
             "normalized_shape", "num_embeddings", "embedding_dim", "input_size", "hidden_size"}


def fingerprint(data: MultimodalData) -> str:
    """SHA-256, in hex, of every array of `data`: modalities, masks, labels; names, shapes, types and order included.

    What a modality stores counts, so `Repeated` rows are their values and their rows. Of a memory-mapped array above
    268 MB only the size and 1,000 rows count: an edit of other rows goes unnoticed. Where the files lie and when they
    were written does not count: a copy is the same data. About 0.6 s for 423 MB on one core.
    """
    arrays = {}
    for field in fields(data):
        value = getattr(data, field.name)
        for name, x in value.items() if isinstance(value, Mapping) else [("", value)]:
            if isinstance(x, Repeated):
                arrays[f"{field.name} {name} rows"], x = x.rows, x.values
            if isinstance(x, Tensor):
                arrays[f"{field.name} {name}"] = x
    about = {"names": json.dumps(data.names), "shapes": json.dumps([list(x.shape) for x in arrays.values()])}
    return digest({name: (_sample(x) if data.files else x).cpu() for name, x in arrays.items()}, about)


def _sample(x: Tensor) -> Tensor:
    if x.numel() * x.element_size() <= WHOLE:
        return x
    return x.index_select(0, torch.linspace(0, len(x) - 1, SAMPLED, dtype=torch.float64).long().to(x.device))


def architecture(model: MultimodalVAE) -> dict:
    """Name -> value of everything that makes the model: beta, modalities, the objective's class and options, the
    networks' layers, PyTorch's with their options (a dropout's share, a stride; a user's own layer may keep a state in
    its attributes), and the shape of every weight. As JSON gives it back."""
    found = {"beta": _plain(model.beta), "modalities": [modality.name for modality in model.modalities],
             "objective": type(model.objective).__qualname__}
    for modality in model.modalities:
        found.update({f"{modality.name}'s {field.name}": _plain(getattr(modality, field.name))
                      for field in fields(modality)})
    for path, part in model.objective.named_modules(prefix="objective's"):
        saved = part.state_dict()
        options = {name: value for name, value in vars(part).items()
                   if not name.startswith("_") and name not in ("training", "text") and _is_plain(value)}
        options.update({name: buffer.tolist() for name, buffer in part.named_buffers(recurse=False)
                        if name not in saved})  # given by the user: fixed weights of a mixture
        found.update({f"{path} {name}".replace("'s.", "'s "): _plain(value) for name, value in options.items()})
    found.update({f"layer {path}": _layer(part) for path, part in model.named_modules() if "." in path})
    found.update({f"weights of {name}": list(value.shape) for name, value in model.state_dict().items()})
    return json.loads(json.dumps(found))


def _layer(part: nn.Module) -> str:
    """Class of a layer, with its options where it is one of PyTorch's."""
    own = vars(part).items() if type(part).__module__.startswith("torch.nn.") else ()
    options = [f"{name}={x!r}" for name, x in own if name[0] != "_" and name not in NO_OPTION and _is_plain(x)]
    return type(part).__qualname__ + (f"({', '.join(options)})" if options else "")


def _is_plain(value: object) -> bool:
    return value is None or isinstance(plain(value), (bool, int, float, str)) or is_dataclass(value) or (
        isinstance(value, (list, tuple)) and all(map(_is_plain, value)))


def _plain(value: object) -> Any:
    """Numbers, texts and lists of them as they are; of anything else its class, with its own plain attributes."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if not _is_plain(value) or is_dataclass(value):
        own = ", ".join(f"{name}={_plain(part)!r}" for name, part in getattr(value, "__dict__", {}).items()
                        if _is_plain(part))
        return f"{type(value).__qualname__}({own})"
    return plain(value)


def differences(theirs: Mapping, ours: Mapping) -> dict[str, str]:
    """Name -> "name (there ..., here ...)" of all that is not equal; long values cut."""
    def shown(value: object) -> str:
        return text if len(text := repr(value)) <= 100 else text[:97] + "..."
    return {name: f"{name} (there {shown(theirs.get(name))}, here {shown(ours.get(name))})"
            for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)}
