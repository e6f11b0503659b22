"""What a pool of pairs, of exponent 1/2, computes in every update, with gradients by hand.

`affinities` of all pairs, and `moments` of the pool. Pair after pair, so that what one needs stays in the processor's
cache: autograd would keep a dozen tensors of all pairs, and an update of five modalities would take a tenth longer.
Gradients of gradients, `torch.func` and `vmap` are not there.

Letters: M modalities, B batch, D latent, K = M (M + 1) / 2 pairs (m, n), m <= n, in the order of
`itertools.combinations_with_replacement`. v are variances, t = v_m + v_n.
"""

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def affinities(mean: Tensor, logvar: Tensor) -> Tensor:
    """log BC of the pairs m < n of Gaussians (M, B, D): (M (M - 1) / 2, B). One dimension is
    (log v_m + log v_n) / 4 - log(t / 2) / 2 - (mu_m - mu_n)^2 / (4 t)."""
    return _Affinities.apply(mean, logvar)


def moments(mean: Tensor, logvar: Tensor, log_weights: Tensor, per_dimension: bool) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, D) of the mixture of the pairs' normalised geometric means, which have mean
    (v_n mu_m + v_m mu_n) / t and variance 2 v_m v_n / t.

    log_weights    (K, B) of the mixture, not normalised; with `per_dimension` of each dimension before its affinity,
                   which is multiplied in here: w_m w_n, twice for m != n
    """
    return _Moments.apply(mean, logvar, log_weights, per_dimension)


class _Affinities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, logvar: Tensor) -> Tensor:
        var, found = logvar.exp(), []
        for m, n in itertools.combinations(range(len(mean)), 2):
            total = var[m] + var[n]
            distance = (mean[m] - mean[n]).square_().div_(total)
            found.append(distance.add_(total.mul_(0.5).log_(), alpha=2).sub_(logvar[m]).sub_(logvar[n]).sum(-1))
        ctx.save_for_backward(mean, var)
        return torch.stack(found).mul_(-0.25)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = ctx.saved_tensors
        of_mean, of_var = torch.zeros_like(mean), torch.zeros_like(var)
        of_logvar = torch.zeros_like(gradient[0]).expand(len(mean), -1).clone()
        for g, (m, n) in zip(gradient, itertools.combinations(range(len(mean)), 2)):
            inverse = (var[m] + var[n]).reciprocal_()
            ratio, g = (mean[m] - mean[n]).mul_(inverse), g.unsqueeze(-1)
            pull = ratio * (0.5 * g)
            of_mean[m].sub_(pull)
            of_mean[n].add_(pull)
            both = ratio.square_().mul_(0.25).sub_(inverse, alpha=0.5).mul_(g)
            of_var[m].add_(both)
            of_var[n].add_(both)
            of_logvar[[m, n]] += 0.25 * g.squeeze(-1)
        return of_mean, of_var.mul_(var).add_(of_logvar.unsqueeze(-1))


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, logvar: Tensor, log_weights: Tensor,
                per_dimension: bool) -> tuple[Tensor, Tensor]:
        var, root = logvar.exp(), (0.25 * logvar).exp() if per_dimension else None
        weights = (log_weights - log_weights.amax(0)).exp()  # the largest is 1
        parts, total = [], torch.zeros_like(mean[0])
        for w, (m, n) in zip(weights.unsqueeze(-1), pairs(len(mean))):
            _, _, affinity, centre, spread = _component(mean, var, root, m, n)
            parts.append((w * affinity, centre, spread))
            total += parts[-1][0]
        middle = sum(weight * centre for weight, centre, _ in parts) / total
        # around the mean: nothing large is subtracted
        width = sum((centre - middle).square_().add_(spread).mul_(weight) for weight, centre, spread in parts) / total
        ctx.save_for_backward(mean, var, root, weights, total, middle, width)
        return middle, width

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_middle: Tensor, of_width: Tensor) -> tuple[Tensor | None, ...]:
        mean, var, root, weights, total, middle, width = ctx.saved_tensors
        of_mean, of_var, of_weights = torch.zeros_like(mean), torch.zeros_like(var), torch.zeros_like(weights)
        of_logvar = torch.zeros_like(var) if root is not None else None
        of_middle, of_width = of_middle / total, of_width / total
        for w, of_weight, (m, n) in zip(weights.unsqueeze(-1), of_weights, pairs(len(mean))):
            inverse, share, affinity, centre, spread = _component(mean, var, root, m, n)
            weight = w * affinity                                # times 1 / total: the component's probability
            off = centre.sub(middle)
            of_centre = (of_width * off).mul_(2).add_(of_middle).mul_(weight)
            of_spread = of_width * weight
            # d / d log of the component's weight: the normaliser's part, sum_k p_k (...) = of_width width, is taken off
            of_log = (off * off).add_(spread).sub_(width).mul_(of_width).addcmul_(of_middle, off).mul_(weight)
            of_weight.copy_(of_log.sum(-1))
            if m == n:
                of_mean[m].add_(of_centre)
                of_var[m].add_(of_spread)
                continue
            apart = mean[m] - mean[n]
            turn = (of_centre * apart).mul_(inverse)
            other = 1 - share
            of_mean[m].addcmul_(of_centre, share)
            of_mean[n].addcmul_(of_centre, other)
            of_var[m].addcmul_(turn, share, value=-1).addcmul_(of_spread, share.square(), value=2)
            of_var[n].addcmul_(turn, other).addcmul_(of_spread, other.square(), value=2)
            if of_logvar is not None:
                ratio = apart.mul_(inverse)
                pull = (ratio * of_log).mul_(0.5)
                of_mean[m].sub_(pull)
                of_mean[n].add_(pull)
                both = ratio.square_().mul_(0.25).sub_(inverse, alpha=0.5).mul_(of_log)
                of_var[m].add_(both)
                of_var[n].add_(both)
                of_logvar[m].add_(of_log, alpha=0.25)
                of_logvar[n].add_(of_log, alpha=0.25)
        of_var.mul_(var)
        return of_mean, of_var if of_logvar is None else of_var.add_(of_logvar), of_weights, None


def pairs(n_modalities: int) -> list[tuple[int, int]]:
    return list(itertools.combinations_with_replacement(range(n_modalities), 2))


def _component(mean: Tensor, var: Tensor, root: Tensor | None, m: int,
               n: int) -> tuple[Tensor, Tensor, Tensor | float, Tensor, Tensor]:
    """Of a pair, each (B, D): 1 / t, the share v_n / t of m in its mean, BC = (v_m v_n)^(1/4) sqrt(2 / t)
    exp(-(mu_m - mu_n)^2 / (4 t)), its mean and its variance. BC is 1 without `root`, v^(1/4), and for m = n."""
    inverse = (var[m] + var[n]).reciprocal_()
    share = var[n] * inverse
    if m == n:
        return inverse, share, 1.0, mean[m], var[m]
    centre, spread = torch.lerp(mean[n], mean[m], share), (var[m] * share).mul_(2)
    if root is None:
        return inverse, share, 1.0, centre, spread
    affinity = (mean[m] - mean[n]).square_().mul_(inverse).mul_(-0.25).exp_()
    return inverse, share, affinity.mul_((2 * inverse).sqrt_()).mul_(root[m]).mul_(root[n]), centre, spread
