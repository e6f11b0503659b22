"""One joint posterior by Hellinger pooling, between the product and the mixture of experts (Vo and Valera 2026)."""

import torch
from torch import Tensor

from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives.base import Objective, Shared, one_of, standard_normal_log_prob
from mmvm.objectives.pools import Pool
from mmvm.objectives.spec import method
from mmvm.options import Option

POOLS, AFFINITIES = ("matched", "exact"), ("per_dimension", "joint")


@method("hellinger", "Hellinger", "#6A3D9A", "H", "after the abstracts of HELVAE (arXiv 2601.06572, matched) and "
        "Hölder++ (arXiv 2606.13381, exact); not compared with in the paper", [
            Option("pool", "matched", "one Gaussian with the pool's mean and variance, or a draw from the pool itself",
                   choices=POOLS),
            Option("bhattacharyya", "per_dimension", "what weighs the pairs: affinities of each latent dimension, or of "
                   "all together", choices=AFFINITIES)])
class Hellinger(Objective):
    """One joint posterior q(z | X), proportional to (sum_m w_m sqrt(q_m(z)))^2 over the observed m, w_m equal; one z for
    all decoders; R = KL(q(z | X) || N(0, I)).

    It is the power mean of exponent 1/2 (`mmvm.objectives.pools`): a mixture of M (M + 1) / 2 Gaussians, the posteriors
    and their pairwise geometric means, the more of the latter the more the two overlap. Posteriors that agree are
    fused, those that do not stay apart. Its variance is never below the product's. Any subset of modalities has a
    pool of its own by leaving experts out, so training draws no subsets.

    pool           "matched", one Gaussian with the mixture's mean and variance, KL in closed form, or "exact": z is
                   drawn from the mixture, KL is its log-ratio at the draw
    bhattacharyya  "per_dimension": each latent dimension is pooled on its own; "joint": the densities of all D are, and
                   the pairs' weights are products over D, so that with many dimensions little but the mixture of the
                   M posteriors is left. "exact" then walks through the dimensions one by one and is slow for large D

    After the abstracts of HELVAE (Vo and Valera 2026: a moment-matching approximation of Hölder pooling with exponent
    1/2, no sub-sampling), here `pool=matched`, and Hölder++ (Vo, Martínez-García and Valera 2026: the pool without
    approximation, with private latents and hierarchical inference, which are not here), here `pool=exact`. Their texts
    beyond the abstracts were not at hand: the formulas are derived here, and where they differ from theirs is not known.
    """

    def __init__(self, pool: str = "matched", bhattacharyya: str = "per_dimension"):
        super().__init__()
        self.pool = one_of(pool, POOLS, "pool")
        self.bhattacharyya = one_of(bhattacharyya, AFFINITIES, "bhattacharyya")

    def pooled(self, q: DiagonalGaussian, observed: Tensor) -> Pool:
        """The pool of what is observed of posteriors (M, B, D)."""
        q = q.where(observed)
        return Pool(q, self.log_weights(q, observed), 0.5, self.bhattacharyya == "per_dimension")

    def _draw(self, pool: Pool) -> tuple[Tensor, Tensor, Tensor | None]:
        """z (B, D), log q(z | X) - log p(z) (B,), and the KL (B,) where it has a closed form."""
        if self.pool == "exact":
            z = pool.sample()
            return z, pool.log_prob(z) - standard_normal_log_prob(z), None
        joint = pool.gaussian()
        z = joint.sample()
        return z, joint.log_prob(z) - standard_normal_log_prob(z), joint.kl_standard_normal()

    def forward(self, q, observed, step=0):
        z, ratio, kl = self._draw(self.pooled(q, observed))
        regulariser = (ratio if kl is None else kl).masked_fill(~observed.any(0), 0.0)
        return Shared(z.expand(1, len(observed), *z.shape), regulariser, {"kl_joint": regulariser})

    def impute_latents(self, q, observed):
        z = self._draw(self.pooled(q, observed))[0]
        return z.expand(len(observed), *z.shape)

    def importance_draws(self, q, observed, n):
        pool = self.pooled(q, observed)
        z, ratio, _ = zip(*(self._draw(pool) for _ in range(n)))
        return torch.stack(z).unsqueeze(1).expand(-1, len(observed), -1, -1), -torch.stack(ratio).unsqueeze(1)
