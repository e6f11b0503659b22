"""What every method has in common: `Objective`, and `Shared`, which it returns.

An objective takes the M posteriors q_m(z_m | x_m) of a batch and says what every decoder gets (`latents`) and what
that costs (`regulariser`, nats per sample). The model decodes and weighs; the loop optimises. A new method is a new
class and touches neither.

Letters: S sources, M modalities, B batch, D latent, N draws.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian

UNTOLD = ("weights=given takes each sample's mixture weights from the data, and these have none: give "
          "MultimodalData(..., trust=...) of shape (M, N), and a batch of its own as in model(x, observed, trust=...)")


class Posteriors(DiagonalGaussian):
    """The M posteriors of a batch, (M, B, D), with what else an objective needs of it (`Objective.needs`).

    trust     (M, B)         how far each is to be trusted against the others, from the data, or None
    features  M of (B, F_m)  what the heads of each encoder read, or None; F_m may differ

    >>> mmvm.objectives.Posteriors.beside(q, trust=torch.ones(2, 60)).where(observed).trust.shape
    torch.Size([2, 60])
    """

    trust: Tensor | None = None
    features: Sequence[Tensor] | None = None

    @classmethod
    def beside(cls, q: DiagonalGaussian, trust: Tensor | None = None,
               features: Sequence[Tensor] | None = None) -> "Posteriors":
        """The Gaussians of q, and these."""
        own = cls.within_limits(q.mean, q.logvar)
        own.trust, own.features = trust, features
        return own

    def where(self, keep: Tensor) -> "Posteriors":
        return self.beside(super().where(keep), self.trust, self.features)


# what an epoch's row of the history holds besides the parts of a regulariser
TAKEN = {"epoch", "step", "seconds", "samples_per_second", "peak_memory_gb", "grad_norm", "loss", "regulariser"}


@dataclass
class Shared:
    """What an objective returns.

    latents      (S, M, B, D)  what decoder m is given when source s speaks
    regulariser  (B,)          nats, before beta
    parts        name -> (B,)  the pieces of the regulariser and what is worth watching
    weights      (S, M, B)     how much target m, decoded from source s, counts in the loss; None: 1/S each

    >>> shared = MMVM()(q, observed)
    >>> shared.latents.shape, shared.regulariser.shape, sorted(shared.parts)
    (torch.Size([1, 2, 60, 2]), torch.Size([60]), ['kl_mixture', 'kl_standard_normal'])
    """

    latents: Tensor
    regulariser: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    weights: Tensor | None = None

    def reconstruction(self, log_likelihood: Tensor) -> Tensor:
        """The log-likelihood that the loss counts: (S, M, B) -> (B,) nats."""
        if self.weights is None:
            return log_likelihood.sum(1).mean(0)
        return (self.weights * log_likelihood).sum((0, 1))

    def mean_over_sources(self, log_likelihood: Tensor) -> Tensor:
        """The log-likelihood that is reported: (S, M, B) -> (M, B) nats, sources in proportion to their weights."""
        if self.weights is None:
            return log_likelihood.mean(0)
        return (self.weights * log_likelihood).sum(0) / self.weights.sum(0).clamp(min=1e-12)


class Objective(nn.Module):
    """Base class of all methods, a module of PyTorch: posteriors (M, B, D) and what is observed (M, B) go in, a
    `Shared` comes out, whose regulariser (B,) is in nats. A new method overrides `forward`, and what else differs.

    >>> Independent().effective_beta(0.5, n_modalities=2), Independent(square_beta=True).effective_beta(0.5, 2)
    (0.5, 0.25)
    """

    text = ""       # that named the method and its options, where `spec.build` was given one
    needs: tuple[str, ...] = ()  # of the batch besides its posteriors: "trust", "features"; then q is a `Posteriors`
    untold = UNTOLD  # the error where "trust" is needed and the data have none

    @property
    def settled_at(self) -> int:
        """Number of updates after which no schedule moves any more."""
        return 0

    @classmethod
    def from_options(cls, options: Mapping, latent_dim: int, n_modalities: int) -> "Objective":
        """The objective that a text with these options names (`spec.method`), for D and M."""
        return cls(**options)

    def meet(self, widths: Sequence[int]) -> None:
        """Told by the model, where "features" are needed, how many numbers each encoder's heads read, M of them."""

    def posteriors(self, q: DiagonalGaussian) -> DiagonalGaussian:
        """What the encoders' Gaussians (M, B, D) are to the method, wherever the model encodes: themselves."""
        return q

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        """Posteriors (M, B, D), `observed` (M, B) bool, number of updates made so far -> `Shared`."""
        raise NotImplementedError

    def check(self, shared: Any, observed: Tensor) -> None:
        """Raises `UserError` where what `forward` gave is not of the shapes that `Shared` says, for `observed` (M, B):
        it would be broadcast, or modalities be left out, without a word."""
        m, b = observed.shape
        said = f"method {type(self).__name__}: forward gives"
        if not isinstance(shared, Shared):
            raise UserError(f"{said} a {type(shared).__name__}: return Shared(latents, regulariser, parts)")
        latents, weights = (None if x is None else tuple(x.shape) for x in (shared.latents, shared.weights))
        if latents is None or len(latents) != 4 or latents[1:3] != (m, b):
            raise UserError(f"{said} latents {latents}, expected (S, M, B, D) with M = {m} and B = {b}: one z (B, D) "
                            "for all is z.expand(1, M, -1, -1), one per modality z (M, B, D) is z.unsqueeze(0)")
        if weights is not None and weights != latents[:3]:
            raise UserError(f"{said} weights {weights}, expected (S, M, B) = {latents[:3]}: give one per term")
        for name, values in (("regulariser", shared.regulariser), *shared.parts.items()):
            if not isinstance(values, Tensor) or values.shape != (b,):
                found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise UserError(f"{said} {name} {found}, expected ({b},), nats per sample: sum over modalities, not "
                                "over samples")
        if taken := TAKEN.intersection(shared.parts):
            raise UserError(f"{said} a part named {min(taken)!r}, which the history has already: rename it")

    def effective_beta(self, beta: float, n_modalities: int) -> float:
        """What one nat of the regulariser costs against one nat of log-likelihood when the user says `beta`.

        The same beta does not mean the same to all methods of the released code: its joint models count one KL M
        times, its independent VAEs square beta on one data set. Here such factors are options and this number tells.
        """
        return beta

    def loss(self, log_likelihood: Tensor, shared: Shared, beta: float) -> Tensor:
        """The loss (B,) in nats from log p(x_m | z) (S, M, B), already weighted by modality."""
        beta = self.effective_beta(beta, log_likelihood.shape[1])
        return -shared.reconstruction(log_likelihood) + beta * shared.regulariser

    def log_weights(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        """log w (M, B) of the mixture of what is observed, normalised; -inf for what is not. Where nothing is, all
        count alike."""
        return log_normalised(observed.to(q.mean.dtype))

    def impute_latents(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        """One latent per decoder, (M, B, D), when only `observed` (M, B) is known (paper, appendix B.2.2).

        A decoder whose own modality is present gets a draw from its own posterior; the others get a draw from the
        mixture of the present ones, which with one present modality is that modality's posterior.
        """
        q = q.where(observed)
        own = q.sample()
        weights = self.log_weights(q, observed).exp().t()  # (B, M)
        source = torch.multinomial(weights, len(observed), replacement=True).t()  # (M, B), one per target
        borrowed = own.gather(0, source.unsqueeze(-1).expand_as(own))
        return torch.where(observed.unsqueeze(-1), own, borrowed)

    def importance_draws(self, q: DiagonalGaussian, observed: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """n latents per decoder (N, M, B, D) from the method's own posterior, and log p(z) - log q(z | X) (N, G, B):
        what the importance-sampled log-likelihood of the observed modalities needs. G = 1 for a joint model, G = M
        for M separate ones. Raises `UserError` where the method defines no density of X."""
        raise UserError(f"{type(self).__name__} defines no joint density p(X, z), so it has no log-likelihood")

    def prior_latents(self, n: int, n_modalities: int, latent_dim: int) -> Tensor:
        """One latent per decoder for each of n draws from the method's own p(z), (M, n, D): the same for all decoders
        where one joint latent explains all modalities. Raises `UserError` where the method has no p(z)."""
        return torch.randn(n, latent_dim).expand(n_modalities, -1, -1)

    def shared_part(self, q: DiagonalGaussian) -> DiagonalGaussian:
        """The latent dimensions of posteriors (..., D) in which modalities meet: all, where nothing is private."""
        return q

    def anchored(self, step: int) -> bool:
        """Whether it is nothing to warn of that latents drift: a prior that does not move with the data holds them, or
        where they lie means nothing."""
        return True

    def report(self, means: dict[str, float]) -> tuple[dict[str, float], list[str]]:
        """From the means of `parts` over an epoch: what to add to the history, and warnings with advice."""
        return {}, []


def check_method(objective: Any) -> None:
    """Raises `UserError` for what is no objective, or one whose `forward` cannot be called."""
    if not isinstance(objective, Objective):
        kind = objective.__name__ if isinstance(objective, type) else type(objective).__name__
        raise UserError(f"objective {kind} is no Objective: give an instance, as in {kind}(), or a text such as 'mmvm'")
    try:
        inspect.signature(objective.forward).bind(None, None, 0)
    except TypeError:
        raise UserError(f"method {type(objective).__name__}: forward must take (q, observed, step=0)") from None


def log_normalised(weights: Tensor) -> Tensor:
    """Non-negative weights (K, B) as normalised logarithms. Equal weights where all are zero: such a sample costs
    nothing, but -inf would make its gradient NaN."""
    weights = weights.masked_fill(weights.sum(0) == 0, 1.0)
    return weights.log() - weights.sum(0).log()


def log_trusted(q: DiagonalGaussian, observed: Tensor) -> Tensor:
    """log w (M, B) in proportion to the trust in what is observed; equal where none of it is trusted, or one modality
    is there alone. Raises `UserError` without a trust, where there is something to weigh."""
    trust = getattr(q, "trust", None)
    if trust is None:
        if bool((observed.sum(0) > 1).any()):
            raise UserError(UNTOLD)
        trust = observed
    weights = trust.to(q.mean.dtype).where(observed, 0.0)
    most = weights.amax(0)
    # over the largest first: equal trust, however large, is the equal weights to the last bit
    return log_normalised(torch.where(most > 0, weights / most, observed.to(weights.dtype)))


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I), the last dimension summed."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


def one_of(value: str, choices: tuple[str, ...], name: str) -> str:
    """`value`, or a `UserError` that lists the choices."""
    if value not in choices:
        raise UserError(f"unknown {name} {value!r}: use one of {', '.join(map(repr, choices))}")
    return value
