"""MMVAE+, a shared and a private latent per modality (Palumbo et al. 2023), and MMVAE, where all is shared (Shi et al.
2019)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives.base import Objective, Shared, one_of
from mmvm.objectives.joint import draw
from mmvm.objectives.laplace import DiagonalLaplace
from mmvm.objectives.spec import method
from mmvm.options import Option

ESTIMATORS = ("elbo", "iwae", "dreg")
POSTERIORS: dict[str, type[DiagonalGaussian]] = {"normal": DiagonalGaussian, "laplace": DiagonalLaplace}
POSTERIOR = Option("posterior", "normal", "what an encoder's mean and variance mean, and the prior with them",
                   choices=tuple(POSTERIORS), paper="normal; original: laplace")


@dataclass
class ImportanceShared(Shared):
    """`Shared` with what importance weights need.

    log_ratio  (N, M, B)  log p(z) - log q(z | X) of draw n from source m
    draws      the reparametrised draws, each (N, M, B, .), whose gradient DReG weighs by `hooks`
    present    (M, B)     weight of each source, sums to one
    """

    log_ratio: Tensor | None = None
    draws: list[Tensor] = field(default_factory=list)
    hooks: list = field(default_factory=list)
    present: Tensor | None = None


@method("mmvaeplus", "MMVAE+", "#0072B2", "X", "the paper's baseline; Palumbo et al. 2023", [
    Option("private_dim", None, "private ones among the D; 0: MMVAE; left out: 16, or half of a smaller D", kind=int,
           at_least=0),
    Option("kl", "components", "closed form of the source's own posterior, or the log-ratio at the draw",
           choices=("components", "mixture"), paper="released code: components; original: mixture"),
    Option("kl_per_modality", False, "count the KL M times: beta acts as M beta", paper="released code: true"),
    Option("n_importance", 1, "draws per source", at_least=1, paper="1; original: 10"),
    Option("estimator", "elbo", "how draws are weighed; the last two with kl=mixture", choices=ESTIMATORS,
           paper="elbo; original: dreg"),
    Option("learn_private_mean", False, "learn the mean of the auxiliary prior", paper="released code: true"),
    POSTERIOR])
class MMVAEPlus(Objective):
    """A shared and a private latent per modality, every modality explained from every other (Palumbo et al. 2023).

    An encoder's D numbers are D - `private_dim` shared ones z and `private_dim` private ones w. Source s explains
    itself from (z_s, w_s) and modality m from (z_s, w~_m), with w~_m from a learned auxiliary Gaussian r_m that knows
    nothing of x: so the private part cannot be a way around the shared one. Averaged over the sources,

        R = log q(z_s | X) + log q(w_s | x_s) - log p(z_s) - log p(w_s),   q(z | X) = (1/M) sum_m q_m(z | x_m).

    With `private_dim=0` this is MMVAE (Shi et al. 2019), all-pairs reconstruction and importance samples included.

    kl                  "mixture", the draw's own log-ratio as above (original), or "components", closed-form KL of
                        the source's shared and private posterior to N(0, I), an upper bound (released code)
    kl_per_modality     count R once per modality: the released code sums the KL over M but averages the
                        log-likelihood over sources; beta acts as M beta
    n_samples           N draws per source
    estimator           "elbo" (mean over draws), "iwae" (log-mean-exp over draws, mean over sources) or "dreg" (the
                        same value, doubly reparametrised gradient; Tucker et al. 2019); the latter two need
                        kl="mixture". The weights hold the mixture's density, not the source's own, so with several
                        draws and several modalities the shared part of dreg's gradient is biased; with one of either
                        it is not
    learn_private_mean  learn the mean of r_m too (released code); the original learns its variance alone
    posterior           "normal", or "laplace": posteriors, auxiliary and prior are Laplaces of the same means and
                        variances

    When the model imputes, an absent modality's private part comes from N(0, I) (appendix B.2.2, as in the original).

    Raises `UserError` for an unknown option, and where private_dim leaves nothing to share.

    >>> plus = MMVAEPlus(n_modalities=2, private_dim=1)
    >>> plus(q, observed).latents.shape, plus.shared_part(q).shape
    (torch.Size([2, 2, 60, 2]), torch.Size([2, 60, 1]))
    """

    KLS, ESTIMATORS = ("mixture", "components"), ESTIMATORS

    @classmethod
    def from_options(cls, options: Mapping, latent_dim: int, n_modalities: int) -> "Objective":
        private_dim = min(16, latent_dim // 2) if options["private_dim"] is None else options["private_dim"]
        if private_dim >= latent_dim:
            raise UserError(f"private_dim must be below latent_dim ({latent_dim}), got {private_dim}")
        return cls(n_modalities, private_dim, options["kl"], options["kl_per_modality"], options["n_importance"],
                   options["estimator"], options["learn_private_mean"], options["posterior"])

    def __init__(self, n_modalities: int, private_dim: int, kl: str = "mixture", kl_per_modality: bool = False,
                 n_samples: int = 1, estimator: str = "elbo", learn_private_mean: bool = False,
                 posterior: str = "normal"):
        super().__init__()
        self.kl = one_of(kl, self.KLS, "kl")
        self.estimator = one_of(estimator, ESTIMATORS, "estimator")
        self.posterior = one_of(posterior, tuple(POSTERIORS), "posterior")
        if private_dim < 0 or n_samples < 1:
            raise UserError(f"private_dim must be at least 0 and n_samples at least 1, got {private_dim} and "
                            f"{n_samples}")
        if estimator != "elbo" and kl != "mixture":
            raise UserError(f"estimator {estimator!r} weighs draws by their density: it needs kl='mixture', not {kl!r}")
        self.private_dim, self.kl_per_modality, self.n_samples = private_dim, kl_per_modality, n_samples
        self.private_mean = nn.Parameter(torch.zeros(n_modalities, private_dim), requires_grad=learn_private_mean)
        self.private_logvar = nn.Parameter(torch.zeros(n_modalities, private_dim))

    def effective_beta(self, beta: float, n_modalities: int) -> float:
        return beta * n_modalities if self.kl_per_modality else beta

    def posteriors(self, q: DiagonalGaussian) -> DiagonalGaussian:
        """Of the kind that `posterior` names."""
        return POSTERIORS[self.posterior].within_limits(q.mean, q.logvar)

    def _split(self, q: DiagonalGaussian) -> tuple[DiagonalGaussian, DiagonalGaussian]:
        """The shared (M, B, D - P) and the private (M, B, P) part of the posteriors."""
        cut = q.shape[-1] - self.private_dim
        if cut < 1:
            raise UserError(f"private_dim={self.private_dim} leaves nothing of the {q.shape[-1]} latent dimensions to "
                            "be shared: make it smaller")
        if len(q.mean) != len(self.private_mean):
            raise UserError(f"this MMVAEPlus was made for {len(self.private_mean)} modalities, it got {len(q.mean)}")
        q = self.posteriors(q)
        return q[..., :cut], q[..., cut:]

    def _log_prior(self, z: Tensor) -> Tensor:
        zero = torch.zeros_like(z[..., :1])
        return POSTERIORS[self.posterior](zero, zero).log_prob(z)

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        q = q.where(observed)
        m, b = observed.shape
        shared, private = self._split(q)
        z = torch.stack([shared.sample() for _ in range(self.n_samples)])                  # (N, M, B, D - P)
        w = torch.stack([private.sample() for _ in range(self.n_samples)])                 # (N, M, B, P)
        auxiliary = DiagonalGaussian(self.private_mean, self.private_logvar)
        noise = private.noise((self.n_samples, m, m, b, self.private_dim), w)
        borrowed = auxiliary.mean[:, None] + auxiliary.std[:, None] * noise                # (N, S, M, B, P)
        own = torch.eye(m, dtype=torch.bool, device=w.device)[:, :, None, None]
        per_target = torch.where(own, w.unsqueeze(2), borrowed)
        latents = torch.cat([z.unsqueeze(2).expand(-1, -1, m, -1, -1), per_target], -1).flatten(0, 1)

        log_weights = self.log_weights(q, observed)
        present = log_weights.exp().masked_fill(~observed, 0.0)                            # (M, B)
        shared_fixed, private_fixed = shared, private
        if self.estimator == "dreg":  # the density's own parameters get no gradient: only the path through the draws
            shared_fixed, private_fixed = (part.within_limits(part.mean.detach(), part.logvar.detach())
                                           for part in (shared, private))
        log_ratio = (self._log_prior(z) - shared_fixed.mixture_log_prob(z, log_weights)
                     + self._log_prior(w) - private_fixed.log_prob(w))                     # (N, M, B)
        if self.kl == "mixture":
            per_source = -log_ratio.mean(0)
        else:
            per_source = shared.kl_standard_normal() + private.kl_standard_normal()
        regulariser = (present * per_source).sum(0)
        weights = (present / self.n_samples).expand(self.n_samples, -1, -1).flatten(0, 1)  # (S, B)
        return ImportanceShared(
            latents, regulariser,
            {"kl_shared": (present * shared.kl_standard_normal()).sum(0),
             "kl_private": (present * private.kl_standard_normal()).sum(0)},
            weights.unsqueeze(1).expand(-1, m, -1), log_ratio, [z, w], present=present)

    def loss(self, log_likelihood: Tensor, shared: Any, beta: float) -> Tensor:
        if self.estimator == "elbo":
            return super().loss(log_likelihood, shared, beta)
        m = log_likelihood.shape[1]
        per_draw = log_likelihood.sum(1).unflatten(0, (self.n_samples, m))                 # (N, S, B)
        log_w = per_draw + self.effective_beta(beta, m) * shared.log_ratio
        bound = -(shared.present * (log_w.logsumexp(0) - math.log(self.n_samples))).sum(0)
        if self.estimator == "iwae":
            return bound
        share = log_w.detach().softmax(0)
        while shared.hooks:
            shared.hooks.pop().remove()  # of an earlier loss from the same draws
        for z in shared.draws:  # the encoder's gradient gets share^2, the decoder's share
            if z.requires_grad:
                shared.hooks.append(z.register_hook(lambda gradient: gradient * share.unsqueeze(-1)))
        surrogate = -(shared.present * (share * log_w).sum(0)).sum(0)
        return bound.detach() + surrogate - surrogate.detach()

    def shared_part(self, q: DiagonalGaussian) -> DiagonalGaussian:
        return q[..., :q.shape[-1] - self.private_dim]

    def impute_latents(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        q = q.where(observed)
        shared, private = self._split(q)
        z = super().impute_latents(shared, observed)
        # an absent modality's posterior is N(0, I) here, which is what its private part is drawn from
        return torch.cat([z, private.sample()], -1)

    def prior_latents(self, n: int, n_modalities: int, latent_dim: int) -> Tensor:
        noise, like = POSTERIORS[self.posterior].noise, torch.zeros(())
        shared = noise((n, latent_dim - self.private_dim), like).expand(n_modalities, -1, -1)
        return torch.cat([shared, noise((n_modalities, n, self.private_dim), like)], -1)

    def importance_draws(self, q: DiagonalGaussian, observed: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Of the generative model p(z) prod_m p(w_m) p(x_m | z, w_m): z from the mixture, w_m from q_m(w_m | x_m)."""
        q = q.where(observed)
        shared, private = self._split(q)
        log_weights = self.log_weights(q, observed)
        z = torch.stack([draw(shared, log_weights) for _ in range(n)])                    # (N, B, D - P)
        w = torch.stack([private.sample() for _ in range(n)])                              # (N, M, B, P)
        ratio_w = (self._log_prior(w) - private.log_prob(w)).masked_fill(~observed, 0.0).sum(1)
        ratio = self._log_prior(z) - shared.mixture_log_prob(z, log_weights) + ratio_w
        return torch.cat([z.unsqueeze(1).expand(-1, len(observed), -1, -1), w], -1), ratio.unsqueeze(1)


@method("mmvae", "MMVAE", "#D9B56C", "8", "Shi et al. 2019; not compared with in the paper", [
    Option("n_importance", 10, "draws per source", at_least=1, paper="original: 30"),
    Option("estimator", "dreg", "how draws are weighed", choices=ESTIMATORS, paper="original: dreg"),
    replace(POSTERIOR, default="laplace", paper="original: laplace")])
class MMVAE(MMVAEPlus):
    """The mixture of experts with importance samples and Laplace posteriors (Shi et al. 2019): `MMVAEPlus` without
    private latents, every modality explained from every other, loss

        -(1/M) sum_s log (1/N) sum_n p(X, z_n) / q(z_n | X),  z_n ~ q_s(z | x_s),  q(z | X) = (1/M) sum_m q_m(z | x_m).

    The original bounds an encoder's scales by a softmax over the latent dimensions and learns the prior's; neither is
    here. Decodes N M latents with each decoder.

    >>> mmvm.objectives.MMVAE(n_modalities=2, n_samples=3)(q, observed).latents.shape
    torch.Size([6, 2, 60, 2])
    """

    @classmethod
    def from_options(cls, options: Mapping, latent_dim: int, n_modalities: int) -> "Objective":
        return cls(n_modalities, options["n_importance"], options["estimator"], options["posterior"])

    def __init__(self, n_modalities: int, n_samples: int = 10, estimator: str = "dreg", posterior: str = "laplace"):
        super().__init__(n_modalities, 0, "mixture", n_samples=n_samples, estimator=estimator, posterior=posterior)
