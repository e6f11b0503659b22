"""MVTCAE: a product of experts trained on a bound of the total correlation (Hwang et al. 2021)."""

import math

from torch import Tensor

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives.base import Objective, Shared
from mmvm.objectives.joint import Aggregated
from mmvm.objectives.spec import method
from mmvm.options import Option


@method("mvtcae", "MVTCAE", "#692D00", "*", "Hwang et al. 2021; not compared with in the paper", [
    Option("alpha", None, "weight of the conditional terms; left out: M / (M + 1)", kind=float, at_least=0, at_most=1,
           paper="original: 5/6 on five modalities")])
class MVTCAE(Objective):
    """A product-of-experts posterior trained on a bound of the total correlation (Hwang et al. 2021).

    loss = -(M - alpha)/M log p(X | z) + beta [(1 - alpha) KL(q || N(0, I)) + alpha/M sum_m KL(q || q_m)], where q is
    the product of the posteriors without a prior expert. The last term draws every unimodal posterior to the joint
    one, so that one modality can stand for all. What is absent has no term; M stays the number of all modalities.

    alpha  in [0, 1]; None: M / (M + 1), the original's 5/6 on five modalities

    Raises `UserError` for an alpha outside 0 to 1.

    >>> sorted(MVTCAE(alpha=0.5)(q, observed).parts)
    ['kl_joint', 'kl_unimodal']
    """

    def __init__(self, alpha: float | None = None):
        super().__init__()
        if alpha is not None and not 0 <= alpha <= 1:
            raise UserError(f"alpha of MVTCAE must lie in [0, 1], got {alpha}")
        self.alpha = alpha
        self._product = Aggregated("poe")

    def _alpha(self, n_modalities: int) -> float:
        return n_modalities / (n_modalities + 1) if self.alpha is None else self.alpha

    def _log_likelihood_weight(self, n_modalities: int) -> float:
        return (n_modalities - self._alpha(n_modalities)) / n_modalities

    def effective_beta(self, beta: float, n_modalities: int) -> float:
        weight = self._log_likelihood_weight(n_modalities)
        return beta / weight if weight else math.inf  # one modality and alpha = 1: nothing is reconstructed

    def loss(self, log_likelihood: Tensor, shared: Shared, beta: float) -> Tensor:
        weight = self._log_likelihood_weight(log_likelihood.shape[1])
        return -weight * shared.reconstruction(log_likelihood) + beta * shared.regulariser

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        q, alpha = q.where(observed), self._alpha(len(observed))
        joint = self._product.components(q, observed)[0][0]                                # (B, D)
        nothing = ~observed.any(0)
        prior = joint.kl_standard_normal().masked_fill(nothing, 0.0)
        unimodal = joint.kl(q).masked_fill(~observed, 0.0).sum(0) / len(observed)
        z = joint.sample().expand(1, len(observed), *joint.shape)
        return Shared(z, (1 - alpha) * prior + alpha * unimodal, {"kl_joint": prior, "kl_unimodal": unimodal})

    def impute_latents(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        return self._product.impute_latents(q, observed)

    def importance_draws(self, q: DiagonalGaussian, observed: Tensor, n: int) -> tuple[Tensor, Tensor]:
        return self._product.importance_draws(q, observed, n)
