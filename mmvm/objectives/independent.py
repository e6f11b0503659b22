"""M separate models, VAEs or plain autoencoders: the lower end of every comparison."""

import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.gaussian import LOGVAR_LIMIT, DiagonalGaussian
from mmvm.objectives.base import Objective, Shared, standard_normal_log_prob
from mmvm.objectives.spec import method
from mmvm.options import Option


@method("independent", "Independent", "#4D4D4D", "s", "the paper's baseline, section 5", [
    Option("square_beta", False, "weigh R by beta squared", paper="released code: true")])
class Independent(Objective):
    """M separate VAEs: R = sum_m KL(q_m || N(0, I)). Nothing is shared; the lower end of every comparison.

    square_beta  weigh R by beta squared, as the released code does on one data set (`mv_unimodal_vae.py`)

    >>> kl = Independent()(q, observed).regulariser
    >>> torch.allclose(kl, q.kl_standard_normal().sum(0))
    True
    """

    def __init__(self, square_beta: bool = False):
        super().__init__()
        self.square_beta = square_beta

    def effective_beta(self, beta: float, n_modalities: int) -> float:
        return beta**2 if self.square_beta else beta

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        q = q.where(observed)
        kl = q.kl_standard_normal().masked_fill(~observed, 0.0).sum(0)
        return Shared(q.sample().unsqueeze(0), kl, {"kl_standard_normal": kl})

    def prior_latents(self, n: int, n_modalities: int, latent_dim: int) -> Tensor:
        return torch.randn(n_modalities, n, latent_dim)

    def importance_draws(self, q: DiagonalGaussian, observed: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The M models are separate, p(X) = prod_m p(x_m), each with its own prior N(0, I)."""
        q = q.where(observed)
        z = torch.stack([q.sample() for _ in range(n)])  # (N, M, B, D)
        return z, (standard_normal_log_prob(z) - q.log_prob(z)).masked_fill(~observed, 0.0)


@method("autoencoder", "Autoencoders", "#8C8C46", ">", "Bounoua et al. 2024, arXiv 2306.04445, section 3.1")
class Autoencoder(Objective):
    """M separate deterministic autoencoders: z_m is the encoder's mean, R = 0, so beta is without effect. What
    `fit_latent_diffusion` fits to their latents is multimodal latent diffusion.

    The encoders' log-variances are not read: posteriors have the smallest standard deviation that `DiagonalGaussian`
    knows (4.5e-5), in place of none. Nothing fixes the latents' scale; the diffusion standardises them.

    >>> objective = mmvm.objectives.Autoencoder()
    >>> round(float(objective.posteriors(q).std.max()), 6), float(objective(q, observed).regulariser.sum())
    (4.5e-05, 0.0)
    """

    def posteriors(self, q: DiagonalGaussian) -> DiagonalGaussian:
        # no gradient, but in the graph: DistributedDataParallel waits for every parameter's
        return q.within_limits(q.mean, 0.0 * q.logvar - LOGVAR_LIMIT)

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        z = q.where(observed).sample()
        return Shared(z.unsqueeze(0), z.new_zeros(z.shape[1]))

    def prior_latents(self, n: int, n_modalities: int, latent_dim: int) -> Tensor:
        raise UserError("autoencoders have no prior to sample from: give a density, such as one of "
                        "fit_latent_diffusion(model, data)")
