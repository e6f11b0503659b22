"""Multilayer perceptrons, for vectors, counts and small images."""

import torch
from torch import Tensor, nn


class MLPEncoder(nn.Module):
    """Flattened x -> hidden layers of `widths` -> mean and logvar; for vectors, counts and small images.

    >>> mean, logvar = mmvm.networks.MLPEncoder((3,), latent_dim=8, widths=(32,))(a)
    >>> mean.shape
    torch.Size([60, 8])
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, widths: tuple[int, ...] = (128, 128)):
        super().__init__()
        n_in = int(torch.Size(shape).numel())
        self.trunk = _mlp(n_in, widths)
        n_out = widths[-1] if widths else n_in
        self.mean = nn.Linear(n_out, latent_dim)
        self.logvar = nn.Linear(n_out, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x.flatten(1))
        return self.mean(h), self.logvar(h)


class MLPDecoder(nn.Module):
    """z (B, D) -> hidden layers of `widths` -> (B, *shape), one number per entry of `shape`, linear.

    >>> mmvm.networks.MLPDecoder((3,), latent_dim=8)(torch.zeros(5, 8)).shape
    torch.Size([5, 3])
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, widths: tuple[int, ...] = (128, 128)):
        super().__init__()
        self.shape = tuple(shape)
        self.trunk = _mlp(latent_dim, widths)
        self.out = nn.Linear(widths[-1] if widths else latent_dim, int(torch.Size(shape).numel()))

    def forward(self, z: Tensor) -> Tensor:
        return self.out(self.trunk(z)).view(-1, *self.shape)


class Log1p(nn.Module):
    """log(1 + x), of counts: what a network sees of thousands is then no further away than of tens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log1p()


def _mlp(n_in: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers = []
    for width in widths:
        layers += [nn.Linear(n_in, width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers)
