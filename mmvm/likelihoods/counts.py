"""Counts that vary more than a Poisson's: negative binomial, with zeros of their own and with a library size.

Computed in float64 whatever comes in: lgamma of a million, in float32, is wrong by a nat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvm.likelihoods.base import positive, sum_event
from mmvm.likelihoods.several import Several, event_softmax

LOG_MEAN, LOG_DISPERSION = 30.0, 15.0  # limits: float32 overflows beyond the one, a Poisson is reached at the other


@dataclass(frozen=True)
class NegativeBinomial(Several):
    """Counts of mean mu and variance mu + mu^2 / r, independent given z; the smaller r, the dispersion, the more they
    vary, and a Poisson is the limit of large ones.

    dispersion  r, or None: the decoder gives its logarithm, an entry each
    library     None: the decoder gives log mu. A number L: it gives logits of the shares of a sample's entries, which
                times the sample's own total are mu (a cell that was sequenced deeply has more of everything); `mean`
                and `sample` are then of a sample with L counts in all. One without a count is taken for one of one.

    Parameters of an entry, in this order: log mu or logit, log r where it is learned. They are limited
    to +-30 and +-15.

    >>> NegativeBinomial().parameter_shape((20,)), NegativeBinomial(dispersion=2.0).parameter_shape((20,))
    ((20, 2), (20,))
    """

    dispersion: float | None = None
    library: float | None = None

    lowest, whole = 0, True
    inflated = False

    def __post_init__(self) -> None:
        for name, value in (("dispersion", self.dispersion), ("library", self.library)):
            if value is not None:
                positive(f"{type(self).__name__} {name}", value)

    @property
    def per_entry(self) -> int:
        return 1 + (self.dispersion is None) + self.inflated

    def entries(self, parameters: Sequence[Tensor], x: Tensor, event_ndim: int, seen: Tensor | None) -> Tensor:
        x, parameters = x.double(), [p.double() for p in parameters]
        log_mean = parameters[0]
        if self.library is not None:
            total = sum_event(x, event_ndim).clamp(min=1.0).log()
            log_mean = event_softmax(log_mean, event_ndim, seen) + total.view(*total.shape, *[1] * event_ndim)
        return self._log_prob(log_mean, parameters, x)

    def _log_prob(self, log_mean: Tensor, parameters: Sequence[Tensor], x: Tensor) -> Tensor:
        log_r = logarithm(self.dispersion, parameters)
        r, log_odds = log_r.exp(), limited(log_mean, LOG_MEAN) - log_r  # log (mu / r)
        return (torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
                - r * F.softplus(log_odds) - x * F.softplus(-log_odds))

    def mean(self, params: Tensor) -> Tensor:
        """mu (..., *shape). With a library size, of a sample with `library` counts in its last dimension."""
        return self._mean(self.split(params)[0])

    def _mean(self, log_mean: Tensor) -> Tensor:
        return limited(log_mean, LOG_MEAN).exp() if self.library is None else self.library * log_mean.softmax(-1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        parameters = self.split(params)
        mean = self._mean(parameters[0])
        r = logarithm(self.dispersion, parameters).exp()
        return torch.poisson(gamma(r.expand_as(mean), generator) * mean / r, generator=generator)


@dataclass(frozen=True)
class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """A `NegativeBinomial` whose counts are 0 with a probability of their own besides: dropouts.

    The last parameter of an entry is the logit of that probability; `mean` has it multiplied in.

    >>> ZeroInflatedNegativeBinomial().mean(torch.zeros(20, 3))[0]  # exp(0) counts, half of them dropped
    tensor(0.5000)
    """

    inflated = True

    def _log_prob(self, log_mean: Tensor, parameters: Sequence[Tensor], x: Tensor) -> Tensor:
        counted = super()._log_prob(log_mean, parameters, x)
        dropped, kept = F.logsigmoid(parameters[-1]), F.logsigmoid(-parameters[-1])
        return torch.where(x == 0, torch.logaddexp(dropped, kept + counted), kept + counted)

    def mean(self, params: Tensor) -> Tensor:
        return super().mean(params) * torch.sigmoid(-self.split(params)[-1])

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        kept = torch.bernoulli(torch.sigmoid(-self.split(params)[-1]), generator=generator)
        return kept * super().sample(params, generator)


def limited(logarithm: Tensor, limit: float) -> Tensor:
    """Within +-limit, and the gradient passes, so that a decoder that strays can come back."""
    return logarithm.detach().clamp(-limit, limit) + (logarithm - logarithm.detach())


def logarithm(fixed: float | None, parameters: Sequence[Tensor]) -> Tensor:
    """Of a dispersion, scale or concentration: () of a `fixed` one; None: the decoder gives each entry's as the second
    parameter."""
    return limited(parameters[1], LOG_DISPERSION) if fixed is None else parameters[0].new_full((), math.log(fixed))


def gamma(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A draw of Gamma(shape, 1) for each entry, not reparametrised."""
    return torch._standard_gamma(shape, generator=generator)
