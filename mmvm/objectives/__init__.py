"""How posteriors are shared between modalities and how they are regularised: one class per method."""

from mmvm.objectives.base import Independent, Objective, Schedule, Shared
from mmvm.objectives.baselines import MVTCAE, Aggregated, MMVAEPlus
from mmvm.objectives.gates import Gated
from mmvm.objectives.mixture_prior import (
    MMVM,
    mixture_kl_monte_carlo,
    mixture_kl_pairwise,
    mixture_kl_variational,
)

__all__ = ["MMVM", "MVTCAE", "Aggregated", "Gated", "Independent", "MMVAEPlus", "Objective", "Schedule", "Shared",
           "mixture_kl_monte_carlo", "mixture_kl_pairwise", "mixture_kl_variational"]
