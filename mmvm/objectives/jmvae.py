"""JMVAE: a joint encoder beside the unimodal ones, which learn to stand for it (Suzuki et al. 2017)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives.base import Objective, Shared, standard_normal_log_prob
from mmvm.objectives.joint import Aggregated
from mmvm.objectives.spec import method
from mmvm.options import Option


@method("jmvae", "JMVAE", "#9580FF", "d", "Suzuki et al. 2017 (JMVAE-kl); not compared with in the paper", [
    Option("alpha", 0.1, "weight of the divergence between the joint and each unimodal posterior", at_least=0,
           paper="original: 0.01 to 1"),
    Option("width", 256, "of the joint encoder's two hidden layers", at_least=1)])
class JMVAE(Objective):
    """A joint posterior of a network of its own, to which every unimodal posterior is fitted (Suzuki et al. 2017).

    R = KL(q(z | X) || N(0, I)) + alpha sum_m KL(q(z | X) || q_m(z | x_m)), and one z ~ q(z | X) for all decoders.

    The original's joint encoder reads the inputs. An objective sees posteriors, so here a dense network reads the M
    means and log-variances and which of them are there; the unimodal encoders are its first layers and get the
    gradient of both terms. Where modalities are absent, the joint posterior is that of the others, and the sum leaves
    them out.

    Imputation: with everything observed from q(z | X), else from the product of the observed posteriors, which is the
    posterior itself where there is one; the original has one given modality alone.

    >>> joint = mmvm.objectives.JMVAE(n_modalities=2, latent_dim=2)
    >>> joint(q, observed).latents.shape, joint.posterior(q, observed).shape
    (torch.Size([1, 2, 60, 2]), torch.Size([60, 2]))
    """

    @classmethod
    def from_options(cls, options: Mapping, latent_dim: int, n_modalities: int) -> "Objective":
        return cls(n_modalities, latent_dim, options["alpha"], options["width"])

    def __init__(self, n_modalities: int, latent_dim: int, alpha: float = 0.1, width: int = 256):
        super().__init__()
        self.alpha = alpha
        self.joint = nn.Sequential(
            nn.Linear(n_modalities * (2 * latent_dim + 1), width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 2 * latent_dim))
        self._product = Aggregated("poe")

    def posterior(self, q: DiagonalGaussian, observed: Tensor) -> DiagonalGaussian:
        """q(z | X) (B, D) of posteriors (M, B, D), of those that are observed; N(0, I) where none is."""
        q = q.where(observed)
        read = torch.cat([q.mean, q.logvar, observed.unsqueeze(-1).to(q.mean.dtype)], -1)  # (M, B, 2 D + 1)
        out = self.joint(read.transpose(0, 1).flatten(1).to(next(self.joint.parameters()).dtype))
        return DiagonalGaussian(*out.chunk(2, -1)).where(observed.any(0))

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        joint = self.posterior(q, observed)
        prior = joint.kl_standard_normal()
        unimodal = joint.kl(q.where(observed)).masked_fill(~observed, 0.0).sum(0)
        z = joint.sample().expand(1, len(observed), *joint.shape)
        return Shared(z, prior + self.alpha * unimodal, {"kl_joint": prior, "kl_unimodal": unimodal})

    def impute_latents(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        of_some = self._product.impute_latents(q, observed)
        return torch.where(observed.all(0).unsqueeze(-1), self.posterior(q, observed).sample(), of_some)

    def importance_draws(self, q: DiagonalGaussian, observed: Tensor, n: int) -> tuple[Tensor, Tensor]:
        joint = self.posterior(q, observed)
        z = torch.stack([joint.sample() for _ in range(n)])                                # (N, B, D)
        ratio = standard_normal_log_prob(z) - joint.log_prob(z)
        return z.unsqueeze(1).expand(-1, len(observed), -1, -1), ratio.unsqueeze(1)
