"""Real and imagined images, batch by batch, in the form that a feature network asks for."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import BATCH, evaluating
from mmvm.model import MultimodalVAE


def conditional_images(model: MultimodalVAE, data: MultimodalData, source: str | int | None, target: str | int,
                       seed: int = 0) -> Iterator[Tensor]:
    """Images of `target` generated from `source` alone, batch by batch: (B, *shape) in [0, 1] on the model's device.

    Modalities go by name or position. The samples are those that have the source, in their order; `source=None`: all,
    each from whatever is observed of it. The image is the mean of p(x_t | z) with one draw of z. What a seed gives for
    one pair does not depend on the pairs asked for besides. Raises `UserError` for unknown modalities, for targets
    that are no images, and where the model's output is not finite.
    """
    target = position_of(data, target)
    if not is_image(data.specs[target]):
        raise UserError(f"modality {data.names[target]!r} of shape {data.specs[target].shape} is no image: choose "
                        f"{' or '.join(spec.name for spec in data.specs if is_image(spec)) or 'other data'}")
    batches = generated_features(model, data, None if source is None else position_of(data, source), [target], seed)
    return (images[0] for images in batches)


@torch.no_grad()
def generated_features(model: MultimodalVAE, data: MultimodalData, source: int | None, targets: list[int],
               seed: int) -> Iterator[list[Tensor]]:
    """Per batch, the images of each target from the source alone, or from all that is observed."""
    rows = torch.arange(len(data), device=data.device)
    if source is not None:
        rows = rows[data.observed[source]]
    for k, index in enumerate(rows.split(BATCH) if len(rows) else ()):
        batch = data.batch(index)
        # a seed of its own for every batch: nothing the caller draws between two of them can change the next
        state = np.random.SeedSequence((seed % 2**64, 0 if source is None else source + 1, k)).generate_state(1)
        with evaluating(model, int(state[0])) as device:
            observed = batch.observed.to(device)
            if source is not None:
                observed = torch.zeros_like(observed)
                observed[source] = True
            means = model.impute([x.to(device) for x in batch.x], observed, [data.names[t] for t in targets])
        for name, images in means.items():
            if not torch.isfinite(images).all():
                raise UserError(f"the model's images of {name!r} hold NaN or infinity: its training has diverged, "
                                "lower the learning rate or clip gradients (max_grad_norm)")
        yield [means[data.names[t]].float().clamp(0, 1) for t in targets]


def real_features(data: MultimodalData, target: int, device: torch.device) -> Iterator[Tensor]:
    """Per batch, the observed images of a modality, as the networks see them."""
    spec, rows = data.specs[target], torch.nonzero(data.observed[target]).squeeze(1)
    for index in rows.split(BATCH):
        images = spec.prepare(data.modalities[spec.name].index_select(0, index).to(device))
        if not ((images >= 0) & (images <= 1)).all():
            raise UserError(f"images of {spec.name!r} reach from {images.min():.3g} to {images.max():.3g} as the "
                            "networks see them: describe them with a `scale` that brings them to [0, 1]")
        yield images


class BytesTo(nn.Module):
    """A feature network as torchmetrics wants it: it knows its number of features, so that none is inferred from an
    image of 299 pixels on the CPU; and it is not moved, for the network may be the user's own."""

    def __init__(self, network: nn.Module, spec: Modality, device: torch.device):
        super().__init__()
        self._network = [network]  # in a list, so that it is no submodule
        self.num_features = self(to_bytes(torch.zeros(2, *spec.shape, device=device))).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        network, = self._network
        own = next((tensor for tensors in (network.parameters(), network.buffers()) for tensor in tensors), images)
        features = network(images.to(own.device))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(f"{type(network).__name__} returns {found} for {len(images)} images: a feature network "
                            "must return one row of features each, (B, F)")
        return features.to(images.device).double()


def to_bytes(images: Tensor) -> Tensor:
    """(B, H, W), (B, 1, H, W) or (B, 3, H, W) in [0, 1] -> uint8 (B, 3, H, W); rounded, so that bytes come back as
    they were stored."""
    if images.ndim == 3:
        images = images.unsqueeze(1)
    return (images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def is_image(spec: Modality) -> bool:
    channels = spec.shape[0] if len(spec.shape) == 3 else 1
    return not spec.likelihood.discrete and len(spec.shape) in (2, 3) and channels in (1, 3)


def position_of(data: MultimodalData, modality: str | int) -> int:
    if modality in data.names:
        return data.names.index(modality)
    if not isinstance(modality, int) or not 0 <= modality < len(data.names):
        raise UserError(f"unknown modality {modality!r}: use one of {data.names} or their positions, from 0")
    return modality
