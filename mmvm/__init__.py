"""The MMVM VAE and its relatives: models, objectives, training and evaluation, thin enough to read in an afternoon."""

from mmvm.choose import suggest_weights
from mmvm.data import Batch, Modality, MultimodalData
from mmvm.diffusion import LatentDiffusion, fit_latent_diffusion
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.likelihoods import Bernoulli, Beta, Categorical, Laplace, NegativeBinomial, Normal, Poisson, StudentT
from mmvm.likelihoods.counts import ZeroInflatedNegativeBinomial
from mmvm.model import MultimodalVAE, fit_latent_density
from mmvm.objectives import MMVM, MVTCAE, Aggregated, Gated, Independent, MMVAEPlus, Objective, Schedule
from mmvm.pretrained import pretrained
from mmvm.search import best_beta, sweep
from mmvm.training import fit, split

__all__ = ["Aggregated", "Batch", "Bernoulli", "Beta", "Categorical", "DiagonalGaussian", "Gated", "Independent",
           "Laplace", "LatentDiffusion", "MMVAEPlus", "MMVM", "MVTCAE", "Modality", "MultimodalData", "MultimodalVAE",
           "NegativeBinomial", "Normal", "Objective", "Poisson", "Schedule", "StudentT", "UserError",
           "ZeroInflatedNegativeBinomial", "best_beta", "fit", "fit_latent_density", "fit_latent_diffusion",
           "pretrained", "split", "suggest_weights", "sweep"]
