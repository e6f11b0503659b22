"""M networks of one shape computed as one: grouped convolutions and batched matrix products.

The weights stay in the M networks, so checkpoints, optimiser and everything else see no difference; each call lays
them side by side. Whether that is faster than M calls depends on the machine: see `mmvm.training.plan`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvm.networks.conv import ConvDecoder, ConvEncoder
from mmvm.networks.mlp import Log1p, MLPDecoder, MLPEncoder
from mmvm.networks.resnet import ResidualBlock, ResNetDecoder, ResNetEncoder

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.AvgPool2d, nn.Upsample, Log1p)  # the same for all channels
Networks = Sequence[nn.Module] | nn.ModuleList
KNOWN = (*ELEMENTWISE, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Flatten, nn.Sequential, ResidualBlock, ConvEncoder,
         ResNetEncoder, MLPEncoder, ConvDecoder, ResNetDecoder, MLPDecoder)


def can_group(networks: Networks) -> bool:
    """Whether the M networks are of one shape and made of layers that `forward_grouped` knows."""
    def shape(network: nn.Module) -> list:
        return [repr(network), *(tuple(p.shape) for p in network.parameters())]
    return (all(type(layer) in KNOWN for layer in networks[0].modules())
            and all(shape(network) == shape(networks[0]) for network in networks))


def forward_grouped(networks: Networks, inputs: Sequence[Tensor], features: bool = False) -> list:
    """[network(x) for ...], for M networks that `can_group` and M inputs (B, ...) of one shape; with `features` of
    encoders, these after mean and logvar (`mmvm.networks.features`)."""
    first = networks[0]
    x = torch.cat(list(inputs), 1) if inputs[0].ndim == 4 else torch.stack(list(inputs))
    if isinstance(first, (ConvEncoder, ResNetEncoder, MLPEncoder)):
        h = _forward(_of(networks, "trunk"), _flat(x, len(networks)) if isinstance(first, MLPEncoder) else x)
        means, logvars = (_forward(_of(networks, head), h) for head in ("mean", "logvar"))
        return list(zip(means, logvars, h) if features else zip(means, logvars))
    if isinstance(first, MLPDecoder):
        x = _forward(_of(networks, "out"), _forward(_of(networks, "trunk"), x))
        return [out.view(-1, *first.shape) for out in x]
    if isinstance(first, (ConvDecoder, ResNetDecoder)):
        side = 4 if isinstance(first, ConvDecoder) else 7
        x = _forward(_of(networks, "project"), x)                  # (M, B, C * side^2)
        x = x.transpose(0, 1).reshape(x.shape[1], -1, side, side)                   # (B, M * C, side, side)
        x = _forward(_of(networks, "trunk"), x)
    else:
        x = _forward(networks, x)
    return list(x.unbind(0)) if x.ndim == 3 else list(x.chunk(len(networks), 1))


def _forward(layers: Networks, x: Tensor) -> Tensor:
    """M layers of one kind at once. Pictures are (B, M * C, H, W), vectors (M, B, F)."""
    first, n = layers[0], len(layers)
    if isinstance(first, nn.Sequential):
        for children in zip(*layers):
            x = _forward(children, x)
        return x
    if isinstance(first, ResidualBlock):
        dx = _forward(_of(layers, "conv0"), F.leaky_relu(x, 0.2))
        dx = _forward(_of(layers, "conv1"), F.leaky_relu(dx, 0.2))
        return _forward(_of(layers, "shortcut"), x) + 0.1 * dx
    if isinstance(first, nn.Conv2d):
        return F.conv2d(x, _side_by_side(layers, "weight"), _side_by_side(layers, "bias"), first.stride, first.padding,
                        first.dilation, groups=n)
    if isinstance(first, nn.ConvTranspose2d):
        return F.conv_transpose2d(x, _side_by_side(layers, "weight"), _side_by_side(layers, "bias"), first.stride,
                                  cast(Any, first.padding), first.output_padding, groups=n, dilation=first.dilation)
    if isinstance(first, nn.Linear):
        weight = torch.stack(_of(layers, "weight"))
        bias = torch.stack(_of(layers, "bias")).unsqueeze(1)
        return torch.baddbmm(bias, x, weight.transpose(1, 2))
    if isinstance(first, nn.Flatten):
        return _flat(x, n)
    return first(x)


def _of(layers: Iterable[nn.Module], name: str) -> list:
    return [getattr(layer, name) for layer in layers]


def _side_by_side(layers: Networks, name: str) -> Any:
    """M weights as one; None of layers that have none."""
    values = _of(layers, name)
    return None if values[0] is None else torch.cat(values)


def _flat(x: Tensor, n: int) -> Tensor:
    """(B, M * C, H, W) or (M, B, ...) -> (M, B, F)."""
    return x.reshape(len(x), n, -1).transpose(0, 1) if x.ndim == 4 else x.flatten(2)
