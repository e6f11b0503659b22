"""What an encoder's heads read: its last hidden features, of any encoder, without a line of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmvm.errors import UserError
from mmvm.networks.modes import evaluating


class WithFeatures(nn.Module):
    """An encoder that gives (mean, logvar, features): x (B, *shape) -> (B, D) twice and (B, F).

    The features are what goes into the encoder's layer named `mean`, as in all of ours; an encoder without such a layer
    returns them itself, after mean and logvar. Raises `UserError` where it does neither.

    >>> from mmvm.networks.features import WithFeatures
    >>> WithFeatures(mmvm.networks.MLPEncoder((3,), latent_dim=8, widths=(32,)))(a)[2].shape
    torch.Size([60, 32])
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder, self.training = encoder, encoder.training

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        read: list[Tensor] = []
        head = getattr(self.encoder, "mean", None)
        heads = [head] if isinstance(head, nn.Module) else []
        hooks = [head.register_forward_pre_hook(lambda _, given: read.append(given[0])) for head in heads]
        try:
            mean, logvar, *features = self.encoder(x)
        finally:
            for hook in hooks:
                hook.remove()
        found = [*features, *read[-1:]]
        if not found or found[0].ndim < 2 or len(found[0]) != len(mean):
            raise UserError(f"{type(self.encoder).__name__} does not show its features: name the layer of an encoder "
                            "that gives the mean `mean`, or return (mean, logvar, features), or let the gate read the "
                            "posteriors")
        return mean, logvar, found[0].flatten(1)


@torch.no_grad()
def feature_widths(modalities: Sequence[Any], encoders: Sequence[nn.Module]) -> list[int]:
    """F_m of each encoder, from two samples of zeros; encoders and random numbers stay as they are."""
    found = []
    for modality, encoder in zip(modalities, encoders):
        with evaluating(encoder, 0) as device:
            weight = next((p for p in encoder.parameters() if p.is_floating_point()), torch.zeros(()))
            x = torch.zeros(2, *modality.input_shape, device=device,
                            dtype=torch.long if modality.likelihood.discrete else weight.dtype)
            found.append(WithFeatures(encoder)(x)[2].shape[1])
    return found
