"""Why a training cannot begin: layers without a size; and, once something has failed, each network on two samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.networks.given import applied, mean_and_logvar
from mmvm.networks.modes import evaluating


@contextmanager
def explained(model: Any, data: MultimodalData) -> Iterator[None]:
    """What fails before an update has changed the weights becomes a `UserError` that names the network, where one fails
    on two samples of its own; later failures have other causes."""
    before = [weights._version for weights in model.parameters()]
    try:
        yield
    except (RuntimeError, TypeError, AttributeError, IndexError):
        if before == [weights._version for weights in model.parameters()]:
            try_networks(model, data)
        raise


def check_sized(model: Any) -> None:
    """Raises `UserError` for a lazy layer that nothing has gone through: its weights have no shape to be trained in."""
    for path, weights in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(weights):
            kind, m, *_ = f"{path}.".split(".")
            what = f"{kind[:-1]} of {model.modalities[int(m)].name!r}" if m.isdigit() else kind
            raise UserError(f"the {what} has no size yet, {path} is of a lazy layer: run it once on a batch before, "
                            "as model.encode(x) and model.impute(x) do, or give the size, as nn.Linear(n_in, n_out)")


@torch.no_grad()
def try_networks(model: Any, data: MultimodalData) -> None:
    """Raises `UserError` for an encoder or decoder that cannot be run on the first two samples that have its modality,
    or makes NaN of them. Networks and random numbers stay as they are."""
    if not isinstance(model, MultimodalVAE):
        return
    with evaluating(model, 0) as device:
        for m, (spec, encoder, decoder) in enumerate(zip(model.modalities, model.encoders, model.decoders)):
            x = data.modalities[spec.name].index_select(0, data.observed[m].nonzero()[:2, 0]).to(device)
            if not len(x):
                continue
            seen, x = spec.seen(x), spec.prepare(x)
            x = torch.cat([x, seen.to(x.dtype)], 1) if spec.mask_input and seen is not None else x
            mean, _ = mean_and_logvar(applied(encoder, x, f"encoder of {spec.name!r}"), len(x), spec.name)
            spec.check_parameters(applied(decoder, mean, f"decoder of {spec.name!r}"))
