"""How posteriors are shared between modalities and how they are regularised: one class per method."""

from mmvm.objectives.base import Objective, Shared
from mmvm.objectives.gates import Gated
from mmvm.objectives.independent import Independent
from mmvm.objectives.joint import Aggregated
from mmvm.objectives.mixture import mixture_kl_monte_carlo, mixture_kl_pairwise, mixture_kl_variational
from mmvm.objectives.mixture_prior import MMVM
from mmvm.objectives.mmvaeplus import MMVAEPlus
from mmvm.objectives.mvtcae import MVTCAE
from mmvm.schedule import Schedule

__all__ = ["MMVM", "MVTCAE", "Aggregated", "Gated", "Independent", "MMVAEPlus", "Objective", "Schedule", "Shared",
           "mixture_kl_monte_carlo", "mixture_kl_pairwise", "mixture_kl_variational"]
