"""Diagonal Gaussians, the only distribution an encoder emits, and the closed forms built on them.

A `DiagonalGaussian` of shape (M, B, D) holds the M posteriors q_m(z_m | x_m) of a batch. Everything is in nats,
and sums over the D latent dimensions are always taken: a log-density or a divergence has one number per Gaussian.
"""

import math

import torch
from torch import Tensor

# Standard deviations from 4.5e-5 to 2.2e4. Beyond that, the ratio of two variances or its square (Adam's second
# moment) leaves float32. The gradient passes through, so that an encoder that strays outside can come back.
LOGVAR_LIMIT = 20.0


class DiagonalGaussian:
    """N(mean, diag(exp(logvar))), both of shape (..., D), usually (M, B, D).

    Half-precision inputs (autocast) are widened to float32: a variance ratio in bfloat16 has two decimal digits.
    """

    def __init__(self, mean: Tensor, logvar: Tensor):
        if mean.dtype in (torch.bfloat16, torch.float16):
            mean, logvar = mean.float(), logvar.float()
        self.mean = mean
        # the clamped value plus an exact zero that carries the gradient
        self.logvar = logvar.detach().clamp(-LOGVAR_LIMIT, LOGVAR_LIMIT) + (logvar - logvar.detach())

    @classmethod
    def stack(cls, gaussians: list["DiagonalGaussian"]) -> "DiagonalGaussian":
        """M Gaussians of shape (B, D) as one of shape (M, B, D)."""
        return cls._limited(torch.stack([q.mean for q in gaussians]), torch.stack([q.logvar for q in gaussians]))

    @classmethod
    def _limited(cls, mean: Tensor, logvar: Tensor) -> "DiagonalGaussian":
        """From a float32 mean and a log-variance that is within the limits already."""
        q = cls.__new__(cls)
        q.mean, q.logvar = mean, logvar
        return q

    @property
    def shape(self) -> torch.Size:
        return self.mean.shape

    @property
    def var(self) -> Tensor:
        return self.logvar.exp()

    @property
    def std(self) -> Tensor:
        return (0.5 * self.logvar).exp()

    def __getitem__(self, index) -> "DiagonalGaussian":
        return self._limited(self.mean[index], self.logvar[index])

    def where(self, keep: Tensor) -> "DiagonalGaussian":
        """N(0, I) wherever `keep` (...) is false: what is absent can neither be read nor get a gradient."""
        keep = keep.unsqueeze(-1)
        zero = self.mean.new_zeros(())
        return self._limited(torch.where(keep, self.mean, zero), torch.where(keep, self.logvar, zero))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One reparametrised draw (..., D)."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.std * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z), broadcast over the leading dimensions: (..., D) -> (...)."""
        squared = (z - self.mean).square() * (-self.logvar).exp()
        return -0.5 * (squared + self.logvar + math.log(2 * math.pi)).sum(-1)

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        """KL(self || other), closed form (...), broadcast over the leading dimensions."""
        log_ratio = self.logvar - other.logvar
        distance = (self.mean - other.mean).square() * (-other.logvar).exp()
        # expm1(r) - r instead of exp(r) - 1 - r: exact to rounding where the two variances nearly agree
        return 0.5 * (torch.expm1(log_ratio) - log_ratio + distance).sum(-1)

    def kl_standard_normal(self) -> Tensor:
        """KL(self || N(0, I)), closed form (...)."""
        return 0.5 * (torch.expm1(self.logvar) - self.logvar + self.mean.square()).sum(-1)

    def mean_kl(self, weights: Tensor) -> Tensor:
        """sum_n w_n KL(q_m || q_n) of M Gaussians (M, B, D), for weights (M, B) that sum to one over M: (M, B).

        From sums over n, in O(M) time and memory instead of the O(M^2) of `pairwise_kl`. Means and log-variances are
        taken relative to their weighted averages, so that all terms are squares or of the form e^r - 1 - r >= 0:
        nothing cancels, and the result is exact to rounding also where the Gaussians nearly agree. Gaussians of
        weight zero have no influence on the others, whatever they are.
        """
        w = weights.unsqueeze(-1)
        none = w == 0  # 0 * inf is NaN
        mean, logvar = self.mean.masked_fill(none, 0.0), self.logvar.masked_fill(none, 0.0)
        centre = (w * logvar).sum(0)
        precision = w * (centre - logvar).exp()                     # in units of exp(-centre)
        total = precision.sum(0)
        middle = (precision * mean).sum(0) / total
        spread = (precision * (mean - middle).square()).sum(0)
        excess = (w * (torch.expm1(centre - logvar) - (centre - logvar))).sum(0)
        r = self.logvar - centre
        distance = (-centre).exp() * (total * (self.mean - middle).square() + spread)
        return 0.5 * (torch.expm1(r) - r + r.exp() * excess + distance).sum(-1)

    def pairwise_kl(self) -> Tensor:
        """All KL(q_m || q_n) at once: (M, B, D) -> (M, M, B), entry [m, n]."""
        return self[:, None].kl(self[None])

    def product(self, observed: Tensor | None = None, prior_expert: bool = False) -> "DiagonalGaussian":
        """The normalised product of the M Gaussians, (M, B, D) -> (B, D).

        `observed` (M, B) leaves factors out, whatever they hold; `prior_expert` multiplies N(0, I) in, which also
        makes the product proper where nothing is observed.
        """
        q = self if observed is None else self.where(observed)
        precision = (-q.logvar).exp()
        if observed is not None:
            precision = precision * observed.unsqueeze(-1)
        total = precision.sum(0) + float(prior_expert)
        return DiagonalGaussian((precision * q.mean).sum(0) / total, -total.log())

    def mixture_log_prob(self, z: Tensor, log_weights: Tensor) -> Tensor:
        """log sum_m w_m N(z; q_m) for z (..., B, D) and log-weights (M, B): (..., B).

        A weight of zero (log-weight -inf) leaves its component out without a NaN.
        """
        components = self.log_prob(z.unsqueeze(-3))  # (..., M, B)
        return torch.logsumexp(components + log_weights, dim=-2)
