"""Convolutional encoders and decoders of pictures of any size and number of channels."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmvm.errors import UserError

SMALLEST, LARGEST, ENOUGH = 8, 512, 8  # pixels of a side that are taken; a side that is halved no more
WIDEST = 8                             # times `channels`


class ImageEncoder(nn.Module):
    """C x H x W -> a convolution at full size, then halved by strides of 2 while a side is above 8 pixels, `channels` x
    (1, 2, 4, 8, 8, ...) wide, each with group normalisation and ReLU -> mean, logvar.

    Groups, not batches: missing rows and batches of one change nothing for the others. Raises `UserError` for
    pictures below 8 or above 512 pixels.

    >>> mean, logvar = mmvm.networks.ImageEncoder((1, 20, 32), latent_dim=8)(torch.zeros(5, 1, 20, 32))
    >>> mean.shape
    torch.Size([5, 8])
    """

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, channels: int = 16):
        super().__init__()
        sizes, widths = stages(shape[1:], channels)
        self.trunk = nn.Sequential(*(layer for i, (n_in, n_out) in enumerate(zip((shape[0], *widths), widths))
                                     for layer in _block(nn.Conv2d(n_in, n_out, 3, 2 if i else 1, 1))), nn.Flatten())
        n_features = widths[-1] * sizes[-1][0] * sizes[-1][1]
        self.mean = nn.Linear(n_features, latent_dim)
        self.logvar = nn.Linear(n_features, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h), self.logvar(h)


class ImageDecoder(nn.Module):
    """Mirror of `ImageEncoder`, with nearest-neighbour upsampling; linear output of `shape`: (C, H, W), or (C, H, W, k)
    of likelihoods with k numbers an entry.

    >>> mmvm.networks.ImageDecoder((1, 20, 32), latent_dim=8)(torch.zeros(5, 8)).shape
    torch.Size([5, 1, 20, 32])
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, channels: int = 16):
        super().__init__()
        self.shape = tuple(shape)
        self.sizes, widths = stages(shape[1:3], channels)
        self.first = (widths[-1], *self.sizes[-1])
        self.project = nn.Linear(latent_dim, widths[-1] * self.sizes[-1][0] * self.sizes[-1][1])
        self.blocks = nn.ModuleList(nn.Sequential(*_block(nn.Conv2d(n_in, n_out, 3, padding=1)))
                                    for n_in, n_out in zip(widths[:0:-1], widths[-2::-1]))
        self.out = nn.Conv2d(widths[0], shape[0] * (shape[3] if len(shape) > 3 else 1), 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.project(z)).view(-1, *self.first)
        for block, size in zip(self.blocks, self.sizes[-2::-1]):
            h = block(F.interpolate(h, size=size))
        h = self.out(h)
        return h if len(self.shape) == 3 else h.unflatten(1, (self.shape[0], -1)).movedim(2, -1)


def stages(size: tuple[int, ...], channels: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Heights and widths in pixels at every stage, and how many channels there are."""
    if not all(SMALLEST <= side <= LARGEST for side in size):
        last = "if channels stand last give x.transpose(0, 3, 1, 2), else " * (size[1] in (1, 3, 4))
        raise UserError(f"pictures of {size[0]} x {size[1]} pixels: sides of {SMALLEST} to {LARGEST} are taken; {last}"
                        "resize them, or give an encoder and a decoder of your own")
    sizes = [tuple(size)]
    while max(sizes[-1]) > ENOUGH:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    return sizes, [channels * min(2**i, WIDEST) for i in range(len(sizes))]


def _block(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    n = convolution.out_channels
    return convolution, nn.GroupNorm(next(g for g in (8, 4, 2, 1) if n % g == 0), n), nn.ReLU()
