"""How posteriors are shared between modalities and how they are regularised: one class per method."""

# in the order that the methods have in the book's figures and lists
# isort: off
from mmvm.objectives.base import Objective, Posteriors, Shared
from mmvm.objectives.gates import Gated
from mmvm.objectives.mixture import mixture_kl_monte_carlo, mixture_kl_pairwise, mixture_kl_variational
from mmvm.objectives.mixture_prior import MMVM
from mmvm.objectives.independent import Autoencoder, Independent
from mmvm.objectives.joint import AVG, MVAE, Aggregated, MoE, MoPoE, PoE
from mmvm.objectives.mmvaeplus import MMVAE, MMVAEPlus
from mmvm.objectives.mvtcae import MVTCAE
from mmvm.objectives.hellinger import Hellinger
from mmvm.objectives.jmvae import JMVAE
from mmvm.objectives.pools import Pool
from mmvm.objectives.spec import METHODS, Appearance, build, method
from mmvm.options import Option
from mmvm.schedule import Schedule
# isort: on

__all__ = ["AVG", "JMVAE", "METHODS", "MMVAE", "MMVM", "MVAE", "MVTCAE", "Aggregated", "Appearance", "Autoencoder",
           "Gated", "Hellinger", "Independent", "MMVAEPlus", "MoE", "MoPoE", "Objective", "Option", "PoE", "Pool",
           "Posteriors", "Schedule", "Shared", "build", "method", "mixture_kl_monte_carlo", "mixture_kl_pairwise",
           "mixture_kl_variational"]
