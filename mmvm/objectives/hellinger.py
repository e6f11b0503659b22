"""One joint posterior by Hellinger pooling, between the product and the mixture of experts (Vo and Valera 2026)."""

import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives.base import Objective, Shared, one_of, standard_normal_log_prob
from mmvm.objectives.pools import Pool
from mmvm.objectives.spec import method
from mmvm.options import Option

POOLS, AFFINITIES = ("matched", "exact", "components"), ("per_dimension", "joint")


@method("hellinger", "Hellinger", "#5A2D96", "H", "after descriptions of HELVAE (arXiv 2601.06572: matched) and "
        "Hölder++ (arXiv 2606.13381: components); not compared with in the paper", [
            Option("pool", "matched", "one Gaussian with the pool's mean and variance, a draw from the pool itself, or "
                   "all of its components, each decoded and weighed", choices=POOLS),
            Option("bhattacharyya", "per_dimension", "what weighs the pairs: affinities of each latent dimension, or "
                   "of all together", choices=AFFINITIES)])
class Hellinger(Objective):
    """One joint posterior q(z | X), proportional to (sum_m w_m sqrt(q_m(z)))^2 over the observed m, w_m equal; one z
    for all decoders; R = KL(q(z | X) || N(0, I)).

    It is the power mean of exponent 1/2 (`mmvm.objectives.pools`): a mixture of K = M (M + 1) / 2 Gaussians, the
    posteriors and their pairwise geometric means, the latter with the more weight the more the two overlap. Posteriors
    that agree are fused, those that do not stay apart. Its variance is never below the product's. Any subset of
    modalities has a pool of its own by leaving experts out, so training draws no subsets. Time and memory: O(M^2).

    pool           "matched": one Gaussian with the mixture's mean and variance, KL in closed form; "exact": z is drawn
                   from the mixture, KL is its log-ratio at the draw; "components": every component is a source of its
                   own, counted by its weight (K times the decoding; joint alone, because dimensions that are pooled on
                   their own have K^D components)
    bhattacharyya  "per_dimension": each latent dimension is pooled on its own; "joint": the densities of all D are, and
                   the pairs' weights are products over D, so that with many dimensions little but the mixture of the
                   M posteriors is left. "exact" then walks through the dimensions one by one and is slow for large D

    HELVAE (Vo and Valera 2026) is known here by its abstract: a moment-matching approximation of Hölder pooling with
    exponent 1/2, without sub-sampling. Hölder++ (Vo, Martínez-García and Valera 2026) by its abstract and others' notes
    on it: the mixture itself with joint affinities, a sum over all components in training, and private latents with
    hierarchical inference, which are not here. The formulas were derived for this module; where else it differs from
    theirs is not known.

    >>> mmvm.objectives.Hellinger()(q, observed).latents.shape  # one z for both decoders
    torch.Size([1, 2, 60, 2])
    """

    def __init__(self, pool: str = "matched", bhattacharyya: str = "per_dimension"):
        super().__init__()
        self.pool = one_of(pool, POOLS, "pool")
        self.bhattacharyya = one_of(bhattacharyya, AFFINITIES, "bhattacharyya")
        if pool == "components" and bhattacharyya != "joint":
            raise UserError("pool=components needs bhattacharyya=joint: dimensions that are pooled on their own have "
                            "too many components to decode")

    def pooled(self, q: DiagonalGaussian, observed: Tensor) -> Pool:
        """The pool of what is observed of posteriors (M, B, D)."""
        q = q.where(observed)
        return Pool(q, self.log_weights(q, observed), 0.5, self.bhattacharyya == "per_dimension")

    def _draw(self, pool: Pool) -> tuple[Tensor, Tensor]:
        """z (B, D), log q(z | X) - log p(z) (B,)."""
        joint = pool.gaussian() if self.pool == "matched" else pool
        z = joint.sample()
        return z, joint.log_prob(z) - standard_normal_log_prob(z)

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        pool, weights = self.pooled(q, observed), None
        if self.pool == "matched":
            joint = pool.gaussian()
            z, regulariser = joint.sample().unsqueeze(0), joint.kl_standard_normal()
        elif self.pool == "exact":
            z, regulariser = self._draw(pool)
            z = z.unsqueeze(0)
        else:
            parts, log_weights = pool.components()
            z, weights = parts.sample(), log_weights.exp()                                 # (K, B, D), (K, B)
            regulariser = (weights * (pool.log_prob(z) - standard_normal_log_prob(z))).sum(0)
            weights = weights.unsqueeze(1).expand(-1, len(observed), -1)
        regulariser = regulariser.masked_fill(~observed.any(0), 0.0)
        return Shared(z.unsqueeze(1).expand(-1, len(observed), -1, -1), regulariser, {"kl_joint": regulariser}, weights)

    def impute_latents(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        z = self._draw(self.pooled(q, observed))[0]
        return z.expand(len(observed), *z.shape)

    def importance_draws(self, q: DiagonalGaussian, observed: Tensor, n: int) -> tuple[Tensor, Tensor]:
        pool = self.pooled(q, observed)
        z, ratio = zip(*(self._draw(pool) for _ in range(n)))
        return torch.stack(z).unsqueeze(1).expand(-1, len(observed), -1, -1), -torch.stack(ratio).unsqueeze(1)
