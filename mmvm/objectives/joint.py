"""The methods that the paper compares with: one joint posterior for all modalities, or a shared and a private part.

Where an original method and the released code of the MMVM paper differ, both are here and an option says what it does.
Without options these are the paper's baselines: beta-VAEs with the networks of the others, no sub-sampled objectives,
no importance samples.

Letters: K components of a joint posterior, S sources, M modalities, B batch, D latent, N draws.
"""

import itertools
from dataclasses import replace
from functools import partialmethod

import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian, in_float32
from mmvm.objectives.base import Objective, Shared, log_normalised, one_of, standard_normal_log_prob
from mmvm.objectives.spec import method
from mmvm.options import Option

MOST_SUBSETS = 10  # modalities; 2^10 - 1 subsets
AVERAGES = ("variance", "deviation")
PRIOR_EXPERTS = ("never", "full_set", "always")
SAMPLINGS = ("random", "stratified", "contiguous")
KLS = ("components", "drawn", "mixture")

AVERAGE = Option("average", "variance", "what is averaged beside the mean", choices=AVERAGES,
                 paper="equation 15: deviation; released code: variance")
PRIOR_EXPERT = Option("prior_expert", "never", "N(0, I) among the experts", choices=PRIOR_EXPERTS,
                      paper="released code: never; original MVAE: always; MoPoE's own code: full_set")
SAMPLING = Option("sampling", "random", "which component is drawn: one per example, all of them, or by position in the "
                  "batch", choices=SAMPLINGS, paper="released code: contiguous; original MMVAE: stratified")
KL = Option("kl", "components", "mean of the components' KL, that of the drawn component, or the log-ratio at the draw",
            choices=KLS, paper="released code: drawn; original MMVAE: mixture")
SUBSETS = Option("subsets", 0, "and of so many random subsets of 2 to M - 1", at_least=0, paper="original MVAE: some")
KL_PER_MODALITY = Option("kl_per_modality", False, "count the KL M times: beta acts as M beta",
                         paper="released code: true")


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
    unimodal_elbos   poe: add the M unimodal evidence bounds in training, each of one posterior and its own decoder;
                     without them a unimodal posterior is never asked to stand alone
    subsets          poe: add the bounds of so many subsets of 2 to M - 1 modalities in training, drawn for every
                     sample (MVAE's sub-sampling, with the unimodal ones)

    Components made of an absent modality do not exist for that sample.

    Raises `UserError` for an unknown option, and for mopoe with more than 10 modalities.

    >>> joint = Aggregated("poe", prior_expert="always")(q, observed)
    >>> torch.equal(joint.latents[0, 0], joint.latents[0, 1])  # one z for all decoders
    True
    """

    KINDS = ("avg", "poe", "moe", "mopoe")
    AVERAGES, PRIOR_EXPERTS, SAMPLINGS, KLS = AVERAGES, PRIOR_EXPERTS, SAMPLINGS, KLS
    def __init__(self, kind: str, average: str = "variance", prior_expert: str = "never", sampling: str = "random",
                 kl: str = "components", kl_per_modality: bool = False, unimodal_elbos: bool = False,
                 subsets: int = 0):
        super().__init__()
        self.kind = one_of(kind, self.KINDS, "kind")
        self.average = one_of(average, AVERAGES, "average")
        self.prior_expert = one_of(prior_expert, PRIOR_EXPERTS, "prior_expert")
        self.sampling = one_of(sampling, SAMPLINGS, "sampling")
        self.kl = one_of(kl, KLS, "kl")
        self.kl_per_modality, self.unimodal_elbos, self.subsets = kl_per_modality, unimodal_elbos, subsets
        if (unimodal_elbos or subsets) and kind != "poe":
            raise UserError(f"unimodal_elbos and subsets belong to kind='poe', not to {kind!r}: leave them out")

    def effective_beta(self, beta: float, n_modalities: int) -> float:
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
                logvar = safe_log((present * q.var).sum(0))
            else:
                logvar = 2 * safe_log((present * q.std).sum(0))
            joint = DiagonalGaussian(mean, logvar).where(observed.any(0))
            return joint[None], q.mean.new_zeros(1, q.shape[1])
        if self.kind == "poe":
            members = observed.unsqueeze(0)                                                # (1, M, B)
            exists = torch.ones_like(observed[:1])
        else:
            subsets = subsets_of(len(observed), observed.device)                             # (K, M)
            exists = (observed.unsqueeze(0) | ~subsets.unsqueeze(-1)).all(1)               # (K, B)
            members = subsets.unsqueeze(-1) & exists.unsqueeze(1)                          # (K, M, B)
        products = self._product(q, members)
        return products, log_normalised(exists.to(q.mean.dtype))

    def _product(self, q: DiagonalGaussian, members: Tensor) -> DiagonalGaussian:
        """Products of the Gaussians in `members` (K, M, B): (K, B, D); N(0, I) of none."""
        precision = (-q.logvar).exp()
        chosen = members.to(precision.dtype)
        with in_float32(precision):
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

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        parts, log_weights = self.components(q, observed)
        kl = parts.kl_standard_normal()                                                    # (K, B)
        if self.sampling == "stratified":
            z = parts.sample()                                                             # (S, B, D), S = K
            weights = log_weights.exp()
        else:
            chosen = (choose if self.sampling == "random" else _choose_by_position)(log_weights)  # (B,)
            z = pick(parts, chosen).sample().unsqueeze(0)
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
        return self._with_bounds(shared, q, observed) if self.training else shared

    def _with_bounds(self, shared: Shared, q: DiagonalGaussian, observed: Tensor) -> Shared:
        """One more source per modality or random subset, which explains its modalities alone and pays its own KL."""
        n, b = observed.shape
        members = {}
        if self.unimodal_elbos:
            members["kl_unimodal"] = torch.eye(n, dtype=torch.bool, device=observed.device).unsqueeze(-1) & observed
        if self.subsets and n > 2:
            some = subsets_of(n, observed.device)[n:-1]                                           # of 2 to M - 1
            chosen = torch.randint(len(some), (self.subsets, b), device=observed.device)
            members["kl_subsets"] = some[chosen].transpose(1, 2) & observed                       # (S', M, B)
        latents, weights = [shared.latents], [torch.ones_like(observed).unsqueeze(0)]
        for name, of in members.items():
            each = self._product(q.where(observed), of)                                           # (S', B, D)
            kl = each.kl_standard_normal().masked_fill(~of.any(1), 0.0).sum(0)
            shared.regulariser, shared.parts = shared.regulariser + kl, {**shared.parts, name: kl}
            latents.append(each.sample().unsqueeze(1).expand(-1, n, -1, -1))
            weights.append(of)
        if members:
            shared.latents, shared.weights = torch.cat(latents), torch.cat(weights).to(shared.regulariser.dtype)
        return shared

    def impute_latents(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        z = draw(*self.components(q, observed))
        return z.expand(len(observed), *z.shape)

    def importance_draws(self, q: DiagonalGaussian, observed: Tensor, n: int) -> tuple[Tensor, Tensor]:
        parts, log_weights = self.components(q, observed)
        z = torch.stack([draw(parts, log_weights) for _ in range(n)])                     # (N, B, D)
        ratio = standard_normal_log_prob(z) - parts.mixture_log_prob(z, log_weights)
        return z.unsqueeze(1).expand(-1, len(observed), -1, -1), ratio.unsqueeze(1)


@method("avg", "AVG", "#56B4E9", "^", "the paper's baseline, equation 15; Hosoya 2018", [AVERAGE, KL, KL_PER_MODALITY])
class AVG(Aggregated):
    """`Aggregated("avg")`: the averages of means and variances, or of deviations (paper, equation 15; Hosoya 2018).
    Latents (1, M, B, D), regulariser (B,) in nats.

    >>> mmvm.objectives.AVG(average="deviation")(q, observed).latents.shape
    torch.Size([1, 2, 60, 2])
    """
    __init__ = partialmethod(Aggregated.__init__, "avg")


@method("poe", "PoE", "#009E73", "v", "the paper's baseline; MVAE, Wu and Goodman 2018", [
    PRIOR_EXPERT, Option("unimodal_elbos", False, "also train the M unimodal bounds", paper="original MVAE: true"),
    SUBSETS, KL, KL_PER_MODALITY])
class PoE(Aggregated):
    """`Aggregated("poe")`: the product of experts (MVAE; Wu and Goodman 2018). Latents (1, M, B, D), with unimodal
    bounds (1 + M, M, B, D) in training; regulariser (B,) in nats.

    >>> mmvm.objectives.PoE(kl_per_modality=True).effective_beta(0.5, n_modalities=2)
    1.0
    """
    __init__ = partialmethod(Aggregated.__init__, "poe")


@method("mvae", "MVAE", "#5136D9", "<", "Wu and Goodman 2018; not compared with in the paper", [
    replace(SUBSETS, default=1)])
class MVAE(Aggregated):
    """The product of experts as its authors train it (Wu and Goodman 2018): N(0, I) is an expert, and every update adds
    the bounds of each modality alone and of `subsets` random subsets. Latents (1 + M + subsets, M, B, D) in training;
    regulariser (B,) in nats.

    >>> mmvm.objectives.MVAE()(q, observed).latents.shape  # of two modalities there are no subsets in between
    torch.Size([3, 2, 60, 2])
    """

    def __init__(self, subsets: int = 1):
        super().__init__("poe", prior_expert="always", unimodal_elbos=True, subsets=subsets)


@method("moe", "MoE", "#E69F00", "D", "the paper's baseline; MMVAE, Shi et al. 2019", [SAMPLING, KL, KL_PER_MODALITY])
class MoE(Aggregated):
    """`Aggregated("moe")`: the mixture of experts (MMVAE; Shi et al. 2019). Latents (S, M, B, D), S = M where
    stratified, else 1; regulariser (B,) in nats.

    >>> mmvm.objectives.MoE(sampling="stratified")(q, observed).latents.shape  # each modality a source
    torch.Size([2, 2, 60, 2])
    """
    __init__ = partialmethod(Aggregated.__init__, "moe")


@method("mopoe", "MoPoE", "#CC79A7", "P", "the paper's baseline; Sutter et al. 2021", [
    PRIOR_EXPERT, SAMPLING, KL, KL_PER_MODALITY])
class MoPoE(Aggregated):
    """`Aggregated("mopoe")`: the mixture of all subsets' products (Sutter et al. 2021). Latents (S, M, B, D),
    S = 2^M - 1 where stratified, else 1; regulariser (B,) in nats.

    >>> len(mmvm.objectives.MoPoE().components(q, observed)[0].mean)  # 2^M - 1 subsets
    3
    """
    __init__ = partialmethod(Aggregated.__init__, "mopoe")


def subsets_of(n_modalities: int, device: torch.device) -> Tensor:
    """All non-empty subsets as rows of a bool table (2^M - 1, M), small ones first."""
    if n_modalities > MOST_SUBSETS:
        raise UserError(f"mopoe mixes 2^M - 1 subsets, {2**n_modalities - 1:,} for {n_modalities} modalities: use at "
                        f"most {MOST_SUBSETS}, or kind='moe'")
    rows = [[m in subset for m in range(n_modalities)] for size in range(1, n_modalities + 1)
            for subset in itertools.combinations(range(n_modalities), size)]
    return torch.tensor(rows, device=device)


def choose(log_weights: Tensor) -> Tensor:
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


def pick(parts: DiagonalGaussian, chosen: Tensor) -> DiagonalGaussian:
    """Component `chosen` (B,) of each example: (K, B, D) -> (B, D)."""
    index = chosen[None, :, None].expand(1, *parts.shape[1:])
    return parts.within_limits(parts.mean.gather(0, index)[0], parts.logvar.gather(0, index)[0])


def draw(parts: DiagonalGaussian, log_weights: Tensor) -> Tensor:
    """One draw of a mixture (K, B, D) per example: (B, D)."""
    return pick(parts, choose(log_weights)).sample()


def safe_log(x: Tensor) -> Tensor:
    """log that stays finite where nothing is observed and x is 0."""
    return x.clamp(min=torch.finfo(x.dtype).tiny).log()
