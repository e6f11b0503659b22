"""The network of a latent diffusion: noisy latents and their times -> the velocity v."""

import math

import torch
from torch import Tensor, nn

FREQUENCIES = 16   # of the sines and cosines that tell a network the time
FASTEST = 60.0     # of them, in radians over the whole of time; the slowest goes a quarter of a turn


class Denoiser(nn.Module):
    """Noisy latents and their times -> v. A residual MLP over the M latents side by side; the M times set scale and
    shift of every block. It begins as v = 0, which is right for latents that are independent N(0, I).

    Where M D is more than `width`, two things must not pass through it: the noise of some modalities would drown what
    others say, so each is also read weighed by what is left of its latent, cos(a); and that part of v which is in
    proportion to z goes to the output directly, a factor of the times for every dimension."""

    def __init__(self, n_modalities: int, latent_dim: int, width: int = 512, blocks: int = 4):
        super().__init__()
        n = n_modalities * latent_dim
        self.shape = (n_modalities, latent_dim)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES * n_modalities, width), nn.SiLU())
        self.into = nn.Linear(2 * n, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(blocks)])
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, n)
        self.direct = nn.Linear(width, n)
        for layer in (self.out, self.direct):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        """(M, B, D) and times (M, B) from 0 to 1 -> (M, B, D)."""
        rates = torch.logspace(math.log10(math.pi / 2), math.log10(FASTEST), FREQUENCIES, device=z.device)
        angles = (time.t().unsqueeze(-1) * rates).flatten(1)
        told = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        left = (time * math.pi / 2).cos().unsqueeze(-1) * z
        flat = z.transpose(0, 1).flatten(1)
        h = self.into(torch.cat([flat, left.transpose(0, 1).flatten(1)], 1))
        for block in self.blocks:
            h = block(h, told)
        return (self.out(self.norm(h)) + self.direct(told) * flat).unflatten(1, self.shape).transpose(0, 1)


class Block(nn.Module):
    """h + MLP(h), its input normalised, scaled and shifted by what is told of the times; both (B, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.told = nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told).chunk(2, 1)
        return h + self.mlp(self.norm(h) * (1 + scale) + shift)


def without(z: Tensor, times: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with what is `hidden` (M, B) as at time 1, when nothing is left of it."""
    return z.masked_fill(hidden.unsqueeze(-1), 0.0), times.masked_fill(hidden, 1.0)
