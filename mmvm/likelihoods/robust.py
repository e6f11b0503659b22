"""Reals with outliers, and fractions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.likelihoods.base import positive
from mmvm.likelihoods.counts import gamma, logarithm
from mmvm.likelihoods.several import Several


@dataclass(frozen=True)
class StudentT(Several):
    """Independent Student t of `df` degrees of freedom around the decoder's output: an outlier costs a logarithm of its
    distance, not its square.

    scale  its width, or None: the decoder gives its logarithm, an entry each, behind the location. The mean is the
           location, also where df <= 1 leaves none.

    Raises `UserError` for degrees of freedom or a scale that is not positive.

    >>> far = torch.full((1, 1), 100.0)
    >>> StudentT().log_prob(0 * far, far, 1) > Normal().log_prob(0 * far, far, 1)
    tensor([True])
    """

    df: float = 4.0
    scale: float | None = 1.0

    def __post_init__(self) -> None:
        positive("StudentT df", self.df)
        if self.scale is not None:
            positive("StudentT scale", self.scale)

    @property
    def per_entry(self) -> int:
        return 1 + (self.scale is None)

    def entries(self, parameters: Sequence[Tensor], x: Tensor, event_ndim: int, seen: Tensor | None) -> Tensor:
        log_scale = logarithm(self.scale, parameters)
        squared = ((x - parameters[0]) * (-log_scale).exp()).square()
        return -self._constant - log_scale - 0.5 * (self.df + 1) * (squared / self.df).log1p()

    @property
    def _constant(self) -> float:
        return 0.5 * math.log(self.df * math.pi) + math.lgamma(self.df / 2) - math.lgamma((self.df + 1) / 2)

    def mean(self, params: Tensor) -> Tensor:
        return self.split(params)[0]

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        parameters = self.split(params)
        location = parameters[0]
        noise = torch.randn(location.shape, generator=generator, device=location.device, dtype=location.dtype)
        chi2 = 2 * gamma(torch.full_like(noise, self.df / 2), generator)
        return location + logarithm(self.scale, parameters).exp() * noise * (self.df / chi2).sqrt()

    def floor(self, n: int) -> float:
        """At scale 1 where it is learned, for which there is no smallest value."""
        return n * (math.log(self.scale or 1.0) + self._constant)


@dataclass(frozen=True)
class Beta(Several):
    """Fractions: independent Beta of mean m, the sigmoid of the decoder's output, and density
    x^(m c - 1) (1 - x)^((1 - m) c - 1) / B(m c, (1 - m) c).

    concentration  c, the larger the narrower, or None: the decoder gives its logarithm, an entry each, behind the logit
    margin         the density is 0 or infinite at 0 and 1, so x is moved into [margin, 1 - margin]

    Raises `UserError` for a concentration that is not positive, or a margin outside 0 to 0.5.

    >>> Beta(concentration=10.0).mean(torch.zeros(3))
    tensor([0.5000, 0.5000, 0.5000])
    """

    concentration: float | None = None
    margin: float = 1e-3

    lowest, highest = 0, 1

    def __post_init__(self) -> None:
        if self.concentration is not None:
            positive("Beta concentration", self.concentration)
        if not 0 < self.margin < 0.5:
            raise UserError(f"Beta margin must lie between 0 and 0.5, got {self.margin}")

    @property
    def per_entry(self) -> int:
        return 1 + (self.concentration is None)

    def _shapes(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Both parameters of the usual form, at least 1e-10: a sigmoid of -80 times a concentration is none."""
        c = logarithm(self.concentration, parameters).exp()
        return [(torch.sigmoid(sign * parameters[0]) * c).clamp(min=1e-10) for sign in (1, -1)]

    def entries(self, parameters: Sequence[Tensor], x: Tensor, event_ndim: int, seen: Tensor | None) -> Tensor:
        a, b = self._shapes([p.double() for p in parameters])
        x = x.double().clamp(self.margin, 1 - self.margin)
        return (torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b) + (a - 1) * x.log() + (b - 1) * (-x).log1p())

    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(self.split(params)[0])

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        a, b = (gamma(shape, generator).clamp(min=1e-30) for shape in self._shapes(self.split(params)))
        return a / (a + b)
