"""What networks of one's own may get wrong, said by the name of the modality before it is trained on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmvm.errors import UserError


def networks_by_name(given: Any, names: Sequence[str], what: str) -> dict[str, nn.Module]:
    """Networks of some modalities as a dictionary of its own, None: of none. Raises `UserError` for anything else."""
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"{what} are a {type(given).__name__}: give a dictionary, name -> network, of some of {names}")
    if unknown := sorted(set(given or {}) - set(names)):
        raise UserError(f"{what} for {unknown}: the modalities are {names}")
    return dict(given or {})


def check_networks(names: Sequence[str], encoders: Sequence[Any], decoders: Sequence[Any]) -> None:
    """Raises `UserError` for what is no module, and for layers that PyTorch does not see: they would be neither
    trained nor kept."""
    known = {id(part) for network in (*encoders, *decoders) if isinstance(network, nn.Module)
             for part in (*network.modules(), *network.parameters())}  # of all: one may refer to another's backbone
    for name, encoder, decoder in zip(names, encoders, decoders):
        _check(encoder, f"encoder of {name!r}", known)
        _check(decoder, f"decoder of {name!r}", known)


def _check(network: Any, what: str, known: set[int]) -> None:
    if not isinstance(network, nn.Module):
        made = f"give an instance, {network.__name__}(...)" if isinstance(network, type) else "give a torch.nn.Module"
        raise UserError(f"the {what} is a {type(network).__name__}: {made}")
    for layer in network.modules():
        for name, value in vars(layer).items():
            if name[0] != "_" and any(id(part) not in known for part in _inside(value)):
                kind = type(value).__name__
                raise UserError(f"the {what} holds layers in the {kind} {name!r}, where they are not trained: use "
                                f"nn.Module{'Dict' if kind == 'dict' else 'List'}, for single weights nn.Parameter"
                                f"{'Dict' if kind == 'dict' else 'List'}")


def _inside(value: Any) -> Iterator[Any]:
    """Layers and weights within lists, tuples and dictionaries."""
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from [part] if isinstance(part, nn.Module | nn.Parameter) else _inside(part)


def mean_and_logvar(out: Any, n: int, name: str) -> tuple[Tensor, Tensor]:
    """Of what the encoder of a modality gives for n samples, each (B, D). Raises `UserError` for another form."""
    pair = list(out[:2]) if isinstance(out, tuple | list) else [out]
    shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in pair]
    if len(pair) < 2 or shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != n:
        raise UserError(f"the encoder of {name!r} gives {', '.join(map(str, shapes))}: it must return two tensors, "
                        f"mean and logvar, each (B, D), here ({n}, D)")
    return pair[0], pair[1]


def applied(network: nn.Module, x: Tensor, what: str) -> Any:
    """network(x). Raises `UserError` where it fails, `what` it is and what it was given, or makes NaN of numbers."""
    try:
        out = network(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, UserError | torch.OutOfMemoryError):
            raise
        raise UserError(f"the {what} fails on an input of shape {tuple(x.shape)} ({error}): make it for these, or "
                        "correct the description of the modality") from error
    if any(bool(part.isnan().any()) for part in (out if isinstance(out, tuple | list) else [out])
           if isinstance(part, Tensor)):
        raise UserError(f"the {what} gives NaN before the first update: look for a division by 0, a logarithm or a "
                        "root of negative numbers in it")
    return out
