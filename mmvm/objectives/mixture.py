"""Stand-ins for KL(q_m || h), h a mixture of the posteriors themselves: what the MMVM prior and its gates weigh.

Log-weights are (M, B), or (M, M, B) where each q_m has a mixture of its own, entry [m, n] of q_n in that of q_m. `of`
has the components where these are not the posteriors q themselves: the same with another gradient.
"""

import torch
from torch import Tensor

from mmvm.gaussian import DiagonalGaussian


def keep_largest(log_weights: Tensor, n: int) -> Tensor:
    """The n largest of log-weights (M, B) per sample, renormalised; the others at -inf."""
    if n >= len(log_weights):
        return log_weights
    # stable: among equal weights the modality that comes first stays
    order = log_weights.detach().argsort(dim=0, descending=True, stable=True)
    drop = torch.ones_like(log_weights, dtype=torch.bool).scatter(0, order[:n], False)
    return log_weights.masked_fill(drop, -torch.inf).log_softmax(0)


def of_the_others(log_weights: Tensor) -> Tensor:
    """Log-weights (M, B) without each modality's own, renormalised: (M, M, B). A modality beside which none has weight
    keeps its own, so that it costs nothing."""
    itself = torch.eye(len(log_weights), dtype=torch.bool, device=log_weights.device).unsqueeze(-1)
    others = log_weights.expand(len(log_weights), *log_weights.shape).masked_fill(itself, -torch.inf)
    return others.masked_fill(itself & others.isneginf().all(1, keepdim=True), 0.0).log_softmax(1)


def mixture_kl(bound: str, q: DiagonalGaussian, z: Tensor, log_weights: Tensor,
               of: DiagonalGaussian | None = None) -> Tensor:
    """The chosen stand-in for KL(q_m || h): (M, B) nats."""
    if bound == "pairwise":
        return mixture_kl_pairwise(q, log_weights, of)
    if bound == "variational":
        return mixture_kl_variational(q, log_weights, of)
    return mixture_kl_monte_carlo(q, log_weights, z, of=of)


def mixture_kl_pairwise(q: DiagonalGaussian, log_weights: Tensor, of: DiagonalGaussian | None = None) -> Tensor:
    """sum_n w_n KL(q_m || q_n) >= KL(q_m || h): (M, B, D), log-weights (M, B) -> (M, B) nats.

    >>> from mmvm.objectives import mixture_kl_pairwise
    >>> two = DiagonalGaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.zeros(2, 1, 1))  # N(0, 1) and N(2, 1)
    >>> mixture_kl_pairwise(two, torch.tensor([[0.5], [0.5]]).log()).sum()  # d^2 / 2
    tensor(2.)
    """
    if of is None and log_weights.ndim == 2:
        return q.mean_kl(log_weights.exp())
    return (log_weights.exp() * q.pairwise_kl(of)).sum(1)


def mixture_kl_variational(q: DiagonalGaussian, log_weights: Tensor, of: DiagonalGaussian | None = None) -> Tensor:
    """-log sum_n w_n exp(-KL(q_m || q_n)), (M, B) nats.

    Between KL(q_m || h) and `mixture_kl_pairwise`; at most -log w_m, because KL(q_m || q_m) = 0.

    >>> from mmvm.objectives import mixture_kl_variational
    >>> two = DiagonalGaussian(torch.tensor([[[0.0]], [[20.0]]]), torch.zeros(2, 1, 1))
    >>> mixture_kl_variational(two, torch.tensor([[0.5], [0.5]]).log()).sum()  # M log M, where they are far apart
    tensor(1.3863)
    """
    return -torch.logsumexp(log_weights - q.pairwise_kl(of), dim=1)


def mixture_kl_monte_carlo(q: DiagonalGaussian, log_weights: Tensor, z: Tensor | None = None,
                           n_samples: int = 1, of: DiagonalGaussian | None = None) -> Tensor:
    """log q_m(z_m) - log h(z_m), (M, B) nats: unbiased for KL(q_m || h), may be negative.

    z (M, B, D) are draws, z_m from q_m; without it `n_samples` draws are made and averaged.

    >>> from mmvm.objectives import mixture_kl_monte_carlo
    >>> same = DiagonalGaussian(torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))
    >>> mixture_kl_monte_carlo(same, torch.tensor([[0.5], [0.5]]).log(), n_samples=8).abs().max() < 1e-6
    tensor(True)
    """
    draws = [q.sample() for _ in range(n_samples)] if z is None else [z]
    of = q if of is None else of
    return torch.stack([q.log_prob(z) - of.mixture_log_prob(z, log_weights) for z in draws]).mean(0)
