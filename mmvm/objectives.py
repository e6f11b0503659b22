"""How posteriors are shared between modalities and how they are regularised: one class per method.

An objective takes the M posteriors q_m(z_m | x_m) of a batch and says what every decoder gets (`latents`) and what
that costs (`regulariser`, nats per sample). The model decodes and weighs; the loop optimises. A new method is a new
class here and touches neither.

Letters: S sources, M modalities, B batch, D latent.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian


@dataclass
class Shared:
    """What an objective returns.

    latents      (S, M, B, D)  what decoder m is given when source s speaks; S = 1 unless every source must explain
                               every target
    regulariser  (B,)          nats, before beta
    parts        name -> (B,)  the pieces of the regulariser and what is worth watching, nats
    """

    latents: Tensor
    regulariser: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """Base class of all methods."""

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        """Posteriors (M, B, D), `observed` (M, B) bool, number of updates made so far -> `Shared`."""
        raise NotImplementedError

    def log_weights(self, observed: Tensor) -> Tensor:
        """log w (M, B) of the mixture of what is observed, normalised; -inf for what is not. Where nothing is, all
        count alike."""
        return _log_normalised(observed.float())

    def impute_latents(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        """One latent per decoder, (M, B, D), when only `observed` (M, B) is known (paper, appendix B.2.2).

        A decoder whose own modality is present gets a draw from its own posterior; the others get a draw from the
        mixture of the present ones, which with one present modality is that modality's posterior.
        """
        own = q.where(observed).sample()
        weights = self.log_weights(observed).exp().t()  # (B, M)
        source = torch.multinomial(weights, len(observed), replacement=True).t()  # (M, B), one per target
        borrowed = own.gather(0, source.unsqueeze(-1).expand_as(own))
        return torch.where(observed.unsqueeze(-1), own, borrowed)


@dataclass(frozen=True)
class Schedule:
    """A number that moves from `start` to `end` in `steps` updates and then stays.

    `form="exponential"` is the released code's: start * (1e-10 / start)^(t / steps) on the way to an `end` of 0,
    that is 0.1 after a tenth of the way and 1e-3 after three tenths when it starts at 1.
    """

    start: float
    end: float
    steps: int
    form: Literal["exponential", "linear", "cosine"] = "exponential"

    def __post_init__(self):
        if self.form not in ("exponential", "linear", "cosine"):
            raise UserError(f"unknown schedule form {self.form!r}: use 'exponential', 'linear' or 'cosine'")
        if self.steps < 1:
            raise UserError(f"a schedule needs at least one step, got {self.steps}")

    def __call__(self, step: int) -> float:
        t = min(max(step / self.steps, 0.0), 1.0)
        if t == 1.0:
            return self.end
        if self.form == "linear":
            return self.start + (self.end - self.start) * t
        if self.form == "cosine":
            return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * t))
        start, end = max(self.start, 1e-10), max(self.end, 1e-10)
        return start * (end / start) ** t


class Independent(Objective):
    """M separate VAEs: R = sum_m KL(q_m || N(0, I)). Nothing is shared; the lower end of every comparison."""

    def forward(self, q, observed, step=0):
        q = q.where(observed)
        kl = q.kl_standard_normal().masked_fill(~observed, 0.0).sum(0)
        return Shared(q.sample().unsqueeze(0), kl, {"kl_standard_normal": kl})


class MMVM(Objective):
    """The mixture-of-experts prior h(z | X) = sum_m w_m q_m(z | x_m) (paper, equation 3), w_m = 1/M by default.

    R = sum_m KL(q_m || h) has no closed form. `bound` chooses what is trained in its place:

    "pairwise"     sum_m sum_n w_n KL(q_m || q_n): an upper bound by convexity, closed form and unbounded; what the
                   released code trains
    "variational"  -sum_m log sum_n w_n exp(-KL(q_m || q_n)): closed form, between R and "pairwise" and, like R,
                   at most M log M with equal weights (the variational bound of Hershey and Olsen, 2007)
    "monte_carlo"  sum_m [log q_m(z_m) - log h(z_m)] at the drawn z_m: unbiased for R, the paper's equation

    weights                 "uniform", or M positive numbers (they are normalised over the observed modalities)
    standard_normal_weight  alpha, a number in [0, 1] or a `Schedule`: R_total = (1 - alpha) R + alpha sum_m
                            KL(q_m || N(0, I)). 0 is the paper's method, 1 is `Independent`. With 0 nothing fixes
                            where the latents lie or how wide they are; only their agreement counts.

    The mixture covers the observed modalities of each sample, and only these are regularised.
    """

    BOUNDS = ("pairwise", "monte_carlo", "variational")

    def __init__(self, bound: str = "pairwise", weights="uniform", standard_normal_weight: float | Schedule = 0.0):
        super().__init__()
        if bound not in self.BOUNDS:
            raise UserError(f"unknown bound {bound!r}: use one of {', '.join(map(repr, self.BOUNDS))}")
        if isinstance(weights, str):
            if weights != "uniform":
                raise UserError(f"unknown weights {weights!r}: use 'uniform' or a sequence of M positive numbers")
            weights = None
        else:
            weights = torch.as_tensor(weights, dtype=torch.float32)
            if weights.ndim != 1 or not len(weights) or not bool(((weights > 0) & weights.isfinite()).all()):
                raise UserError(f"weights must be M positive finite numbers, got {weights.tolist()}")
        alpha = standard_normal_weight
        for value in (alpha.start, alpha.end) if isinstance(alpha, Schedule) else (alpha,):
            if not 0 <= value <= 1:
                raise UserError(f"standard_normal_weight must lie in [0, 1], got {value}")
        self.bound = bound
        self.standard_normal_weight = alpha
        self.register_buffer("weights", weights, persistent=False)

    def log_weights(self, observed: Tensor) -> Tensor:
        if self.weights is None:
            return super().log_weights(observed)
        if len(self.weights) != len(observed):
            raise UserError(f"{len(self.weights)} mixture weights for {len(observed)} modalities: give one each")
        return _log_normalised(observed * self.weights.unsqueeze(-1))

    def forward(self, q, observed, step=0):
        q = q.where(observed)
        z = q.sample()
        log_weights = self.log_weights(observed)

        if self.bound == "pairwise":
            kl_mixture = mixture_kl_pairwise(q, log_weights)
        elif self.bound == "variational":
            kl_mixture = mixture_kl_variational(q, log_weights)
        else:
            kl_mixture = mixture_kl_monte_carlo(q, log_weights, z)

        absent = ~observed
        kl_mixture = kl_mixture.masked_fill(absent, 0.0).sum(0)
        kl_standard_normal = q.kl_standard_normal().masked_fill(absent, 0.0).sum(0)
        alpha = self.standard_normal_weight
        alpha = alpha(step) if isinstance(alpha, Schedule) else alpha
        # at both ends the other term is left out, not multiplied by zero: 0 * inf is NaN
        if alpha == 0:
            regulariser = kl_mixture
        elif alpha == 1:
            regulariser = kl_standard_normal
        else:
            regulariser = (1 - alpha) * kl_mixture + alpha * kl_standard_normal
        return Shared(z.unsqueeze(0), regulariser,
                      {"kl_mixture": kl_mixture, "kl_standard_normal": kl_standard_normal})


def _log_normalised(weights: Tensor) -> Tensor:
    # equal weights where nothing is observed: such a sample costs nothing, but -inf would make its gradient NaN
    weights = weights.masked_fill(weights.sum(0) == 0, 1.0)
    return weights.log() - weights.sum(0).log()


def mixture_kl_pairwise(q: DiagonalGaussian, log_weights: Tensor) -> Tensor:
    """sum_n w_n KL(q_m || q_n) >= KL(q_m || h): (M, B, D), log-weights (M, B) -> (M, B) nats."""
    return (q.pairwise_kl() * log_weights.exp()).sum(1)


def mixture_kl_variational(q: DiagonalGaussian, log_weights: Tensor) -> Tensor:
    """-log sum_n w_n exp(-KL(q_m || q_n)), (M, B) nats.

    Between KL(q_m || h) and `mixture_kl_pairwise`; at most -log w_m, because KL(q_m || q_m) = 0.
    """
    return -torch.logsumexp(log_weights - q.pairwise_kl(), dim=1)


def mixture_kl_monte_carlo(q: DiagonalGaussian, log_weights: Tensor, z: Tensor | None = None,
                           n_samples: int = 1) -> Tensor:
    """log q_m(z_m) - log sum_n w_n q_n(z_m), an unbiased estimate of KL(q_m || h), (M, B) nats.

    `z` (M, B, D) are draws from q; without it `n_samples` draws are made and averaged.
    """
    draws = [q.sample() for _ in range(n_samples)] if z is None else [z]
    return torch.stack([q.log_prob(z) - q.mixture_log_prob(z, log_weights) for z in draws]).mean(0)


OBJECTIVES = {"independent": Independent, "mmvm": MMVM}
