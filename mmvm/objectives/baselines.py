"""The methods that the paper compares with: one joint posterior for all modalities, or a shared and a private part.

Where an original method and the released code of the MMVM paper differ, both are here and an option says what it does.
Without options these are the paper's baselines: beta-VAEs with the networks of the others, no sub-sampled objectives,
no importance samples. JMVAE is not among them: its joint encoder reads the inputs, while an objective sees posteriors.

Letters: K components of a joint posterior, S sources, M modalities, B batch, D latent, N draws.
"""

import itertools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives.base import Objective, Shared, log_normalised, one_of, standard_normal_log_prob

MOST_SUBSETS = 10  # modalities; 2^10 - 1 subsets


class Aggregated(Objective):
    """One joint posterior q(z | X) made of the unimodal ones; one z for all decoders; R = KL(q(z | X) || N(0, I)).

    kind  "avg"    one Gaussian with the averages of means and variances (AVG; Hosoya 2018)
          "poe"    the normalised product (MVAE; Wu and Goodman 2018)
          "moe"    the equal mixture of the M posteriors (MMVAE; Shi et al. 2019)
          "mopoe"  the equal mixture of the products of all 2^M - 1 subsets (MoPoE; Sutter et al. 2021)

    average          avg: what is averaged beside the mean, "variance" (released code) or "deviation" (the paper's
                     equation 15)
    prior_expert     multiply N(0, I) into products: "never" (released code), "full_set" (MoPoE's own code: only the
                     product of all M), "always" (MVAE)
    sampling         mixtures, which component z is drawn from: "random", one per example; "stratified", every
                     component, each a source of its own (MMVAE; K times the decoding); "contiguous", by the position
                     in the batch (released code and MoPoE's own: not random, also at evaluation)
    kl               "components", the mean of the components' KL to N(0, I), an upper bound by convexity, exact for avg
                     and poe; "drawn", that of the drawn component (released code; the same in expectation);
                     "mixture", log q(z | X) - log p(z) at the draw with the mixture's own density (MMVAE)
    kl_per_modality  count R once per modality, as the released code does (`mv_joint_vae.py`): beta acts as M beta,
                     also on the unimodal bounds
    unimodal_elbos   poe: add the M unimodal evidence bounds in training, each of one posterior and its own decoder
                     (MVAE's sub-sampling without its random subsets); without them a unimodal posterior is never
                     asked to stand alone

    Components made of an absent modality do not exist for that sample.
    """

    KINDS = ("avg", "poe", "moe", "mopoe")
    AVERAGES = ("variance", "deviation")
    PRIOR_EXPERTS = ("never", "full_set", "always")
    SAMPLINGS = ("random", "stratified", "contiguous")
    KLS = ("components", "drawn", "mixture")

    def __init__(self, kind: str, average: str = "variance", prior_expert: str = "never", sampling: str = "random",
                 kl: str = "components", kl_per_modality: bool = False, unimodal_elbos: bool = False):
        super().__init__()
        self.kind = one_of(kind, self.KINDS, "kind")
        self.average = one_of(average, self.AVERAGES, "average")
        self.prior_expert = one_of(prior_expert, self.PRIOR_EXPERTS, "prior_expert")
        self.sampling = one_of(sampling, self.SAMPLINGS, "sampling")
        self.kl = one_of(kl, self.KLS, "kl")
        self.kl_per_modality, self.unimodal_elbos = kl_per_modality, unimodal_elbos
        if unimodal_elbos and kind != "poe":
            raise UserError(f"unimodal_elbos belong to kind='poe', not to {kind!r}: leave them out")

    def effective_beta(self, beta, n_modalities):
        return beta * n_modalities if self.kl_per_modality else beta

    def components(self, q: DiagonalGaussian, observed: Tensor) -> tuple[DiagonalGaussian, Tensor]:
        """The K Gaussians (K, B, D) that the joint posterior mixes, and their log-weights (K, B); -inf where a
        component needs what is not observed."""
        q = q.where(observed)
        if self.kind == "moe":
            return q, log_normalised(observed.to(q.mean.dtype))
        if self.kind == "avg":
            present = observed.unsqueeze(-1).to(q.mean.dtype)
            present = present / present.sum(0).clamp(min=1)
            mean = (present * q.mean).sum(0)
            if self.average == "variance":
                logvar = _log((present * q.var).sum(0))
            else:
                logvar = 2 * _log((present * q.std).sum(0))
            joint = DiagonalGaussian(mean, logvar).where(observed.any(0))
            return joint[None], q.mean.new_zeros(1, q.shape[1])
        if self.kind == "poe":
            members = observed.unsqueeze(0)                                                # (1, M, B)
            exists = torch.ones_like(observed[:1])
        else:
            subsets = _subsets(len(observed), observed.device)                             # (K, M)
            exists = (observed.unsqueeze(0) | ~subsets.unsqueeze(-1)).all(1)               # (K, B)
            members = subsets.unsqueeze(-1) & exists.unsqueeze(1)                          # (K, M, B)
        products = self._product(q, members)
        return products, log_normalised(exists.to(q.mean.dtype))

    def _product(self, q: DiagonalGaussian, members: Tensor) -> DiagonalGaussian:
        """Products of the Gaussians in `members` (K, M, B): (K, B, D); N(0, I) of none."""
        precision = (-q.logvar).exp()
        chosen = members.to(precision.dtype)
        total = torch.einsum("kmb,mbd->kbd", chosen, precision)
        weighted = torch.einsum("kmb,mbd->kbd", chosen, precision * q.mean)
        if self.prior_expert == "never":
            expert = ~members.any(1)
        elif self.prior_expert == "full_set":
            expert = members.all(1) | ~members.any(1)
        else:
            expert = torch.ones_like(members[:, 0])
        total = total + expert.unsqueeze(-1)
        return DiagonalGaussian(weighted / total, -total.log())

    def forward(self, q, observed, step=0):
        parts, log_weights = self.components(q, observed)
        kl = parts.kl_standard_normal()                                                    # (K, B)
        if self.sampling == "stratified":
            z = parts.sample()                                                             # (S, B, D), S = K
            weights = log_weights.exp()
        else:
            chosen = (_choose if self.sampling == "random" else _choose_by_position)(log_weights)  # (B,)
            z = _pick(parts, chosen).sample().unsqueeze(0)
            weights = log_weights.new_ones(z.shape[:2])
        if self.kl == "mixture":
            ratio = parts.mixture_log_prob(z, log_weights) - standard_normal_log_prob(z)   # (S, B)
            regulariser = (weights * ratio).sum(0)
        elif self.kl == "drawn" and self.sampling != "stratified":
            regulariser = kl.gather(0, chosen.unsqueeze(0)).squeeze(0)
        else:
            regulariser = (log_weights.exp() * kl).sum(0)
        regulariser = regulariser.masked_fill(~observed.any(0), 0.0)
        latents = z.unsqueeze(1).expand(-1, len(observed), -1, -1)
        per_target = weights.unsqueeze(1).expand(-1, len(observed), -1) if len(z) > 1 else None
        shared = Shared(latents, regulariser, {"kl_joint": regulariser}, per_target)
        return self._with_unimodal_elbos(shared, q, observed) if self.unimodal_elbos and self.training else shared

    def _with_unimodal_elbos(self, shared: Shared, q: DiagonalGaussian, observed: Tensor) -> Shared:
        """One more source per modality, which explains that modality alone and pays its own KL."""
        n = len(observed)
        alone = torch.eye(n, dtype=torch.bool, device=observed.device).unsqueeze(-1) & observed   # (M, M, B)
        each = self._product(q.where(observed), alone)                                            # (M, B, D)
        kl = each.kl_standard_normal().masked_fill(~observed, 0.0).sum(0)
        own = each.sample().unsqueeze(1).expand(-1, n, -1, -1)
        weights = torch.cat([torch.ones_like(alone[:1]), alone]).to(kl.dtype)
        return Shared(torch.cat([shared.latents, own]), shared.regulariser + kl, {**shared.parts, "kl_unimodal": kl},
                      weights)

    def impute_latents(self, q, observed):
        z = _draw(*self.components(q, observed))
        return z.expand(len(observed), *z.shape)

    def importance_draws(self, q, observed, n):
        parts, log_weights = self.components(q, observed)
        z = torch.stack([_draw(parts, log_weights) for _ in range(n)])                     # (N, B, D)
        ratio = standard_normal_log_prob(z) - parts.mixture_log_prob(z, log_weights)
        return z.unsqueeze(1).expand(-1, len(observed), -1, -1), ratio.unsqueeze(1)


class MVTCAE(Objective):
    """A product-of-experts posterior trained on a bound of the total correlation (Hwang et al. 2021).

    loss = -(M - alpha)/M log p(X | z) + beta [(1 - alpha) KL(q || N(0, I)) + alpha/M sum_m KL(q || q_m)], where q is
    the product of the posteriors without a prior expert. The last term draws every unimodal posterior to the joint
    one, so that one modality can stand for all. What is absent has no term; M stays the number of all modalities.

    alpha  in [0, 1]; None: M / (M + 1), the original's 5/6 on five modalities
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

    def effective_beta(self, beta, n_modalities):
        weight = self._log_likelihood_weight(n_modalities)
        return beta / weight if weight else math.inf  # one modality and alpha = 1: nothing is reconstructed

    def loss(self, log_likelihood, shared, beta):
        weight = self._log_likelihood_weight(log_likelihood.shape[1])
        return -weight * shared.reconstruction(log_likelihood) + beta * shared.regulariser

    def forward(self, q, observed, step=0):
        q, alpha = q.where(observed), self._alpha(len(observed))
        joint = self._product.components(q, observed)[0][0]                                # (B, D)
        nothing = ~observed.any(0)
        prior = joint.kl_standard_normal().masked_fill(nothing, 0.0)
        unimodal = joint.kl(q).masked_fill(~observed, 0.0).sum(0) / len(observed)
        z = joint.sample().expand(1, len(observed), *joint.shape)
        return Shared(z, (1 - alpha) * prior + alpha * unimodal, {"kl_joint": prior, "kl_unimodal": unimodal})

    def impute_latents(self, q, observed):
        return self._product.impute_latents(q, observed)

    def importance_draws(self, q, observed, n):
        return self._product.importance_draws(q, observed, n)


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

    When the model imputes, an absent modality's private part comes from N(0, I) (appendix B.2.2, as in the original).
    """

    KLS = ("mixture", "components")
    ESTIMATORS = ("elbo", "iwae", "dreg")

    def __init__(self, n_modalities: int, private_dim: int, kl: str = "mixture", kl_per_modality: bool = False,
                 n_samples: int = 1, estimator: str = "elbo", learn_private_mean: bool = False):
        super().__init__()
        self.kl = one_of(kl, self.KLS, "kl")
        self.estimator = one_of(estimator, self.ESTIMATORS, "estimator")
        if private_dim < 0 or n_samples < 1:
            raise UserError(f"private_dim must be at least 0 and n_samples at least 1, got {private_dim} and "
                            f"{n_samples}")
        if estimator != "elbo" and kl != "mixture":
            raise UserError(f"estimator {estimator!r} weighs draws by their density: it needs kl='mixture', not {kl!r}")
        self.private_dim, self.kl_per_modality, self.n_samples = private_dim, kl_per_modality, n_samples
        self.private_mean = nn.Parameter(torch.zeros(n_modalities, private_dim), requires_grad=learn_private_mean)
        self.private_logvar = nn.Parameter(torch.zeros(n_modalities, private_dim))

    def effective_beta(self, beta, n_modalities):
        return beta * n_modalities if self.kl_per_modality else beta

    def _split(self, q: DiagonalGaussian) -> tuple[DiagonalGaussian, DiagonalGaussian]:
        """The shared (M, B, D - P) and the private (M, B, P) part of the posteriors."""
        cut = q.shape[-1] - self.private_dim
        if cut < 1:
            raise UserError(f"private_dim={self.private_dim} leaves nothing of the {q.shape[-1]} latent dimensions to "
                            "be shared: make it smaller")
        if len(q.mean) != len(self.private_mean):
            raise UserError(f"this MMVAEPlus was made for {len(self.private_mean)} modalities, it got {len(q.mean)}")
        return q[..., :cut], q[..., cut:]

    def forward(self, q, observed, step=0):
        q = q.where(observed)
        m, b = observed.shape
        shared, private = self._split(q)
        z = torch.stack([shared.sample() for _ in range(self.n_samples)])                  # (N, M, B, D - P)
        w = torch.stack([private.sample() for _ in range(self.n_samples)])                 # (N, M, B, P)
        auxiliary = DiagonalGaussian(self.private_mean, self.private_logvar)
        noise = torch.randn(self.n_samples, m, m, b, self.private_dim, dtype=w.dtype, device=w.device)
        borrowed = auxiliary.mean[:, None] + auxiliary.std[:, None] * noise                # (N, S, M, B, P)
        own = torch.eye(m, dtype=torch.bool, device=w.device)[:, :, None, None]
        per_target = torch.where(own, w.unsqueeze(2), borrowed)
        latents = torch.cat([z.unsqueeze(2).expand(-1, -1, m, -1, -1), per_target], -1).flatten(0, 1)

        log_weights = self.log_weights(q, observed)
        present = log_weights.exp().masked_fill(~observed, 0.0)                            # (M, B)
        shared_fixed, private_fixed = shared, private
        if self.estimator == "dreg":  # the density's own parameters get no gradient: only the path through the draws
            shared_fixed = DiagonalGaussian(shared.mean.detach(), shared.logvar.detach())
            private_fixed = DiagonalGaussian(private.mean.detach(), private.logvar.detach())
        log_ratio = (standard_normal_log_prob(z) - shared_fixed.mixture_log_prob(z, log_weights)
                     + standard_normal_log_prob(w) - private_fixed.log_prob(w))            # (N, M, B)
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

    def loss(self, log_likelihood, shared, beta):
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
        for draw in shared.draws:  # the encoder's gradient gets share^2, the decoder's share
            if draw.requires_grad:
                shared.hooks.append(draw.register_hook(lambda gradient: gradient * share.unsqueeze(-1)))
        surrogate = -(shared.present * (share * log_w).sum(0)).sum(0)
        return bound.detach() + surrogate - surrogate.detach()

    def impute_latents(self, q, observed):
        q = q.where(observed)
        shared, private = self._split(q)
        z = super().impute_latents(shared, observed)
        # an absent modality's posterior is N(0, I) here, which is what its private part is drawn from
        return torch.cat([z, private.sample()], -1)

    def importance_draws(self, q, observed, n):
        """Of the generative model p(z) prod_m p(w_m) p(x_m | z, w_m): z from the mixture, w_m from q_m(w_m | x_m)."""
        q = q.where(observed)
        shared, private = self._split(q)
        log_weights = self.log_weights(q, observed)
        z = torch.stack([_draw(shared, log_weights) for _ in range(n)])                    # (N, B, D - P)
        w = torch.stack([private.sample() for _ in range(n)])                              # (N, M, B, P)
        ratio_w = (standard_normal_log_prob(w) - private.log_prob(w)).masked_fill(~observed, 0.0).sum(1)
        ratio = standard_normal_log_prob(z) - shared.mixture_log_prob(z, log_weights) + ratio_w
        return torch.cat([z.unsqueeze(1).expand(-1, len(observed), -1, -1), w], -1), ratio.unsqueeze(1)


def _subsets(n_modalities: int, device: torch.device) -> Tensor:
    """All non-empty subsets as rows of a bool table (2^M - 1, M), small ones first."""
    if n_modalities > MOST_SUBSETS:
        raise UserError(f"mopoe mixes 2^M - 1 subsets, {2**n_modalities - 1:,} for {n_modalities} modalities: use at "
                        f"most {MOST_SUBSETS}, or kind='moe'")
    rows = [[m in subset for m in range(n_modalities)] for size in range(1, n_modalities + 1)
            for subset in itertools.combinations(range(n_modalities), size)]
    return torch.tensor(rows, device=device)


def _choose(log_weights: Tensor) -> Tensor:
    """One component per example by its weight: (K, B) -> (B,)."""
    if len(log_weights) == 1:
        return log_weights.new_zeros(log_weights.shape[1], dtype=torch.long)
    return torch.multinomial(log_weights.exp().t(), 1).squeeze(1)


def _choose_by_position(log_weights: Tensor) -> Tensor:
    """The batch cut into as many contiguous pieces as there are components, the remainder to the last one: (B,).

    An example of which fewer components exist is placed as if its batch had those alone.
    """
    exists = ~log_weights.isneginf()                                                       # (K, B)
    n, batch = exists.sum(0), log_weights.shape[1]
    length = batch // n
    position = torch.arange(batch, device=n.device)
    rank = torch.where(length > 0, (position // length.clamp(min=1)).minimum(n - 1), n - 1)
    return (exists & (exists.cumsum(0) == rank + 1)).int().argmax(0)


def _pick(parts: DiagonalGaussian, chosen: Tensor) -> DiagonalGaussian:
    """Component `chosen` (B,) of each example: (K, B, D) -> (B, D)."""
    index = chosen[None, :, None].expand(1, *parts.shape[1:])
    return DiagonalGaussian(parts.mean.gather(0, index)[0], parts.logvar.gather(0, index)[0])


def _draw(parts: DiagonalGaussian, log_weights: Tensor) -> Tensor:
    """One draw of a mixture (K, B, D) per example: (B, D)."""
    return _pick(parts, _choose(log_weights)).sample()


def _log(x: Tensor) -> Tensor:
    """log that stays finite where nothing is observed and x is 0."""
    return x.clamp(min=torch.finfo(x.dtype).tiny).log()
