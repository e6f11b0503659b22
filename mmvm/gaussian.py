"""Diagonal Gaussians, the only distribution an encoder emits, and the closed forms built on them.

A `DiagonalGaussian` of shape (M, B, D) holds the M posteriors q_m(z_m | x_m) of a batch. Everything is in nats,
and sums over the D latent dimensions are always taken: a log-density or a divergence has one number per Gaussian.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor

# Standard deviations from 4.5e-5 to 2.2e4. Beyond that, the ratio of two variances or its square (Adam's second
# moment) leaves float32. The gradient passes through, so that an encoder that strays outside can come back.
LOGVAR_LIMIT = 20.0


def in_float32(like: Tensor) -> AbstractContextManager:
    """While open, products of matrices on the device of `like` stay in float32, in an update under autocast too."""
    return torch.autocast(like.device.type, enabled=False) if like.device.type in ("cpu", "cuda") else nullcontext()


class DiagonalGaussian:
    """N(mean, diag(exp(logvar))), both of shape (..., D), usually (M, B, D).

    Half-precision inputs (autocast) are widened to float32: a variance ratio in bfloat16 has two decimals.

    >>> standard = DiagonalGaussian(torch.zeros(2), torch.zeros(2))
    >>> standard.kl(DiagonalGaussian(torch.ones(2), torch.zeros(2)))  # 2 dimensions, 1/2 nat each
    tensor(1.)
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
        return cls.within_limits(torch.stack([q.mean for q in gaussians]), torch.stack([q.logvar for q in gaussians]))

    @classmethod
    def within_limits(cls, mean: Tensor, logvar: Tensor) -> Self:
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

    def __getitem__(self, index: Any) -> "DiagonalGaussian":
        return self.within_limits(self.mean[index], self.logvar[index])

    def information(self) -> Tensor:
        """What each dimension tells of its sample, (..., D) nats for N posteriors (..., N, D): 0.5 log(1 + Var[mean] /
        E[var]), the information of a Gaussian channel. In units of the posteriors' own width, so it also tells where no
        prior fixes the scale."""
        return 0.5 * (self.mean.var(-2) / self.var.mean(-2)).log1p()

    def centre_and_spread(self) -> tuple[float, float]:
        """Of N Gaussians (N, D) together: how far their centre is from 0, and the root of their variance around it."""
        centre = self.mean.mean(0)
        return float(centre.norm()), float(((self.mean - centre).square() + self.var).sum(-1).mean().sqrt())

    def where(self, keep: Tensor) -> "DiagonalGaussian":
        """N(0, I) wherever `keep` (...) is false: what is absent can neither be read nor get a gradient."""
        keep = keep.unsqueeze(-1)
        zero = self.mean.new_zeros(())
        return self.within_limits(torch.where(keep, self.mean, zero), torch.where(keep, self.logvar, zero))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One reparametrised draw (..., D)."""
        return self.mean + self.std * self.noise(self.mean.shape, self.mean, generator)

    @staticmethod
    def noise(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws of mean 0 and variance 1, of the type and on the device of `like`."""
        return torch.randn(tuple(shape), generator=generator, device=like.device, dtype=like.dtype)

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

        From sums over n, in O(M) time and memory instead of the O(M^2) of `pairwise_kl`. A Gaussian of weight zero has
        no influence on the others, whatever it is.
        """
        return _MeanKL.apply(self.mean, self.logvar, weights)

    def pairwise_kl(self, of: "DiagonalGaussian | None" = None) -> Tensor:
        """All KL(q_m || q_n) at once: (M, B, D) -> (M, M, B), entry [m, n]; the q_n are these, or those `of` others."""
        return self[:, None].kl((self if of is None else of)[None])

    def detach(self) -> "DiagonalGaussian":
        """The same numbers, through which no gradient passes."""
        return self.within_limits(self.mean.detach(), self.logvar.detach())

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
        """log sum_m w_m N(z; q_m) for z (..., B, D) and log-weights (M, B), or (..., M, B) of each z: (..., B).

        A weight of zero (log-weight -inf) leaves its component out without a NaN.
        """
        components = self.log_prob(z.unsqueeze(-3))  # (..., M, B)
        return torch.logsumexp(components + log_weights, dim=-2)


class _MeanKL(torch.autograd.Function):
    """`DiagonalGaussian.mean_kl` and its gradient, both from the same few sums over n.

    With c = sum_n w_n log var_n, r_n = log var_n - c, p_n = w_n e^-r_n, T = sum_n p_n, the precision-weighted mean
    a = sum_n p_n mean_n / T and d_n = mean_n - a, one latent dimension of sum_n w_n KL(q_m || q_n) is

        1/2 [ e^r_m T - 1 - r_m + e^-c (T d_m^2 + sum_n p_n d_n^2) ],

    in which large means and common scales have cancelled before anything is squared. Written out because autograd
    takes three times as many passes over (M, B, D), and this term should not be seen beside the networks.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, logvar: Tensor, weights: Tensor) -> Tensor:
        w = weights.unsqueeze(-1)
        none = w == 0
        known_mean, known_logvar = mean, logvar
        if bool(none.any()) if mean.device.type == "cpu" else True:  # a look that would make a GPU wait
            known_mean, known_logvar = mean.masked_fill(none, 0.0), logvar.masked_fill(none, 0.0)  # 0 * inf is NaN
        centre = (w * known_logvar).sum(0)
        p = (centre - known_logvar).exp_().mul_(w)
        total = p.sum(0)
        middle = (p * known_mean).sum(0).div_(total)
        spread = (known_mean - middle).square_().mul_(p).sum(0)
        r, d = logvar - centre, mean - middle
        e, scale = r.exp(), (-centre).exp()
        value = torch.addcmul(e * total - 1 - r, d.square().mul_(total).add_(spread), scale).sum(-1).mul_(0.5)
        ctx.save_for_backward(p, d, r, e, total, scale, w)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        p, d, r, e, total, scale, w = ctx.saved_tensors
        g = gradient.unsqueeze(-1)
        everything = g.sum(0)                                                       # (B, 1)
        gd = g * d
        sum_d, sum_dd, sum_e = gd.sum(0), (gd * d).sum(0), (g * e).sum(0)           # (B, D)
        of_mean = gd.mul_(total).add_(p * (everything * d - sum_d)).mul_(scale)
        # sum_m g_m e^(r_m) [1 + (mean_m - mean_n)^2 / var_m ...]: what q_n's precision multiplies
        seen = (everything * d - 2 * sum_d).mul_(d).add_(sum_dd).mul_(scale).add_(sum_e)
        of_logvar = (e * total - 1).mul_(g).add_(w * everything).sub_(p * seen).mul_(0.5)
        of_weights = None
        if ctx.needs_input_grad[2]:
            inverse = (-r).exp()
            of_weights = 0.5 * (inverse * seen - everything - (g * r).sum(0) + everything * r).sum(-1)
        return of_mean, of_logvar, of_weights
