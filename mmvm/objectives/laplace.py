"""Laplace posteriors for the methods whose originals have them, from the two numbers that an encoder gives."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmvm.gaussian import DiagonalGaussian


class DiagonalLaplace(DiagonalGaussian):
    """Independent Laplace distributions (..., D) with the mean and the variance of the Gaussian of the same numbers,
    so with scale std / sqrt(2). What replaces N(0, I) is mean 0 and variance 1.

    >>> from mmvm.objectives.laplace import DiagonalLaplace
    >>> standard = DiagonalLaplace(torch.zeros(2), torch.zeros(2))
    >>> standard.kl_standard_normal(), standard.log_prob(torch.zeros(2))  # -log sqrt(2) in each dimension
    (tensor(0.), tensor(-0.6931))
    """

    @staticmethod
    def noise(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        one, other = torch.rand((2, *shape), generator=generator, device=like.device, dtype=like.dtype)
        return (torch.log1p(-one) - torch.log1p(-other)) / math.sqrt(2)  # the difference of two exponentials

    def log_prob(self, z: Tensor) -> Tensor:
        scaled = math.sqrt(2) * (z - self.mean).abs() * (-0.5 * self.logvar).exp()
        return -(scaled + 0.5 * self.logvar + 0.5 * math.log(2)).sum(-1)

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """KL(self || other) of two Laplaces, closed form (...)."""
        distance, log_ratio = math.sqrt(2) * (self.mean - other.mean).abs(), 0.5 * (self.logvar - other.logvar)
        overlap = (log_ratio - distance * (-0.5 * self.logvar).exp()).exp()
        return (distance * (-0.5 * other.logvar).exp() + overlap - 1 - log_ratio).sum(-1)

    def kl_standard_normal(self) -> Tensor:
        """KL to mean 0 and variance 1, the prior that these posteriors have."""
        return self.kl(DiagonalLaplace(torch.zeros_like(self.mean), torch.zeros_like(self.logvar)))
