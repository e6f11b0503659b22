"""Encoder and decoder of short sequences of tokens, and of columns of classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvm.errors import UserError


class TokenEncoder(nn.Module):
    """Token numbers (B, L) -> embedding, two convolutions over three tokens each, mean and maximum over the sequence ->
    mean, logvar.

    n_tokens  V, numbers from 0 to V - 1, others raise `UserError`; `ignore` (padding) may be any, and is not looked at

    >>> tokens = torch.zeros(5, 7, dtype=torch.long)
    >>> mmvm.networks.TokenEncoder(n_tokens=10, latent_dim=8)(tokens)[0].shape
    torch.Size([5, 8])
    """

    def __init__(self, n_tokens: int, latent_dim: int, ignore: int | None = None, channels: int = 64):
        super().__init__()
        self.n_tokens, self.ignore = n_tokens, ignore
        self.embedding = nn.Embedding(n_tokens + 1, channels, padding_idx=n_tokens)  # the last one is padding
        self.trunk = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=1) for _ in range(2))
        self.mean = nn.Linear(2 * channels, latent_dim)
        self.logvar = nn.Linear(2 * channels, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.is_floating_point():
            raise UserError("tokens are stored as floats: give integers, as in x.long() or x.astype('int64')")
        gone = torch.zeros_like(x, dtype=torch.bool) if self.ignore is None else x == self.ignore
        known = x[:0] if self.training and x.is_cuda else x[~gone]  # a training on a GPU would wait for every look
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < self.n_tokens:
            raise UserError(f"tokens from {int(known.min())} to {int(known.max())}, but the encoder has 0 to "
                            f"{self.n_tokens - 1}: correct them, or make the model of data that have them all")
        h, seen = self.embedding(x.masked_fill(gone, self.n_tokens)).transpose(1, 2), ~gone.unsqueeze(1)
        for layer in self.trunk:
            h = F.relu(layer(h)) * seen                                              # (B, channels, L), not negative
        h = torch.cat([h.sum(-1) / seen.sum(-1).clamp(min=1), h.amax(-1)], 1)
        return self.mean(h), self.logvar(h)


class TokenDecoder(nn.Module):
    """z (B, D) -> L = `length` positions by two convolutions -> logits (B, V, L) of V = `n_tokens`.

    >>> mmvm.networks.TokenDecoder(n_tokens=10, length=7, latent_dim=8)(torch.zeros(5, 8)).shape
    torch.Size([5, 10, 7])
    """

    def __init__(self, n_tokens: int, length: int, latent_dim: int, channels: int = 64):
        super().__init__()
        self.length = length
        self.project = nn.Linear(latent_dim, channels * length)
        self.trunk = nn.Sequential(nn.ReLU(), nn.Conv1d(channels, channels, 3, padding=1),
                                   nn.ReLU(), nn.Conv1d(channels, n_tokens, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        return self.trunk(self.project(z).view(len(z), -1, self.length))
