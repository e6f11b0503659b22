"""Why a training cannot begin: each network by itself on two samples, after something has failed, never before."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mmvm.data import MultimodalData
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
