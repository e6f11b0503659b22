"""A gating network for the weights of the mixture prior: not in the paper.

With h(z | X) = sum_m w_m(X) q_m(z | x_m) the weights may depend on the sample. The gate reads them off the
posteriors' statistics, so it costs nothing that grows with the data and knows nothing that the prior does not; or off
the features that the encoders' heads read, which may show what the posteriors hide: that a sample is damaged, say.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives.base import one_of
from mmvm.objectives.mixture import mixture_kl, of_the_others
from mmvm.schedule import Schedule, at, bounds_of

COLLAPSED = 0.99  # mean weight of one modality above which a gate no longer mixes
EXPLODED = 50.0   # nats between the largest and the smallest log-weight: in float32 the softmax is then saturated


class Gated(nn.Module):
    """Mixture weights w(X) from the posteriors (M, B, D) or the features M of (B, F_m): a score per modality, softmax
    over the observed ones.

    One network serves all modalities and sees, for each, its mean and log-variance beside the average over the
    observed ones; permuting the modalities permutes the weights. It starts close to equal weights. Of features each
    modality has a first layer of its own, made when a `MultimodalVAE` is, whose encoders say how wide it is.

    mode          "soft"    h mixes all experts with weights w
                  "hard"    h is the expert with the largest weight alone; the gradient passes straight through to w
                  "gumbel"  in training w is a Gumbel-softmax draw at `temperature`, otherwise as "soft"
    temperature   of "gumbel": a positive number, or a `Schedule` of them over the updates
    load_balance  weight in nats of M sum_m f_m p_m - 1, with f_m the share of samples whose largest weight is m's
                  and p_m the mean weight (the balancing loss of sparse mixtures of experts; Fedus et al. 2022): 0
                  when all are used alike, M - 1 when one takes all. It depends on the batch; samples with one
                  modality have no part in it.
    detach        the encoders get no gradient through the gate's inputs, so that they cannot learn to please it
    reads         "posteriors", or "features": what goes into each encoder's heads (`mmvm.networks.features`)

    What the gate minimises is linear in w where the bound is "pairwise": the expert that is cheapest for the sample
    should take all. `parts` shows whether it does.

    Raises `UserError` for an unknown mode, a temperature that is not positive, a load_balance below 0.

    >>> gate = Gated(latent_dim=2, mode="soft")
    >>> gate.log_probabilities(q, observed).exp().sum(0)[0].item()  # two weights a sample
    1.0
    """

    MODES, READS = ("soft", "hard", "gumbel"), ("posteriors", "features")
    of_features = False  # of the class: gates that were kept before had no such attribute

    def __init__(self, latent_dim: int, mode: str = "soft", temperature: float | Schedule = 1.0,
                 load_balance: float = 0.0, hidden: int = 64, detach: bool = True,
                 reads: str = "posteriors"):
        super().__init__()
        self.mode = one_of(mode, self.MODES, "mode of the gate")
        if not all(value > 0 for value in bounds_of(temperature)):
            raise UserError(f"temperature must be positive, got {temperature}")
        if not load_balance >= 0:
            raise UserError(f"load_balance must be at least 0, got {load_balance}")
        self.temperature, self.load_balance, self.detach = temperature, load_balance, detach
        if one_of(reads, self.READS, "input of the gate") == "features":
            self.of_features = True
        # normalised: with alpha = 0 nothing fixes the scale of the means
        self.embed: Any = nn.ModuleList() if self.of_features else _embedding(2 * latent_dim, hidden)
        self.score = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), last := nn.Linear(hidden, 1))
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)

    def meet(self, widths: Sequence[int]) -> None:
        """Makes the first layers of a gate that reads features, of M encoders with so many each. Raises `UserError`
        where it was made for others."""
        if len(self.embed) and [own[1].in_features for own in self.embed] != list(widths):
            raise UserError("this gate was made for encoders of other features: give each model a gate of its own")
        if not len(self.embed):
            hidden = next(self.score.parameters()).shape[1] // 2
            self.embed.extend(_embedding(n, hidden) for n in widths)

    def _embedded(self, q: DiagonalGaussian) -> Tensor:
        """What the gate sees of each modality alone, (M, B, H)."""
        if not self.of_features:
            statistics = torch.cat([q.mean, q.logvar], -1)
            return self.embed(statistics.detach() if self.detach else statistics)
        features = getattr(q, "features", None)
        if features is None or len(features) != len(self.embed):
            raise UserError("a gate that reads features gets them from the encoders of a MultimodalVAE: use it in one, "
                            "or reads='posteriors'")
        return torch.stack([own(x.detach() if self.detach else x) for own, x in zip(self.embed, features)])

    def log_probabilities(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        """log w (M, B), normalised over `observed` (M, B); equal where nothing is observed."""
        own = self._embedded(q.where(observed))
        present = observed.unsqueeze(-1)
        average = (own * present).sum(0) / present.sum(0).clamp(min=1)
        scores = self.score(torch.cat([own, average.expand_as(own)], -1)).squeeze(-1)
        if scores.dtype in (torch.bfloat16, torch.float16):
            scores = scores.float()
        nothing = ~observed.any(0)
        # equal scores in place of -inf everywhere: log_softmax of -inf alone is NaN
        return scores.masked_fill(~observed & ~nothing, -torch.inf).masked_fill(nothing, 0.0).log_softmax(0)

    def mixture_kl(self, bound: str, q: DiagonalGaussian, z: Tensor, log_weights: Tensor, step: int,
                   of: DiagonalGaussian | None = None, self_component: bool = True) -> Tensor:
        """The chosen stand-in for KL(q_m || h) under this gate: (M, B) nats. `of`, self_component: as `MMVM` has it."""
        if self.mode == "gumbel" and self.training:
            uniform = torch.rand_like(log_weights).clamp(1e-10, 1 - 1e-7)
            log_weights = ((log_weights - (-uniform.log()).log()) / at(self.temperature, step)).log_softmax(0)
        if not self_component:
            log_weights = of_the_others(log_weights)
        if self.mode == "hard":
            # one expert: R is its KL, and every bound is exact. The weights' value is one-hot, their gradient w's.
            p = log_weights.exp()
            w = p + (harden(log_weights).exp() - p).detach()
            if bound == "monte_carlo":
                return q.log_prob(z) - (w * (q if of is None else of).log_prob(z.unsqueeze(1))).sum(1)
            return (w * q.pairwise_kl(of)).sum(1)
        return mixture_kl(bound, q, z, log_weights, of)

    def imbalance(self, log_weights: Tensor, observed: Tensor) -> Tensor:
        """M sum_m f_m p_m - 1 over the samples that leave a choice, those with two modalities or more: one number for
        the batch, given to each of these (B,)."""
        choice = (observed.sum(0) > 1).to(log_weights.dtype)
        n = choice.sum().clamp(min=1)
        share, mean = ((weights * choice).sum(1) / n for weights in (harden(log_weights).exp(), log_weights.exp()))
        return (len(observed) * (share * mean).sum() - 1) * choice

    def parts(self, log_weights: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """What to watch, each (B,): entropy (nats) and margin (nats between the largest and the smallest log-weight of
        what is observed), weight and first place per modality."""
        log_w = log_weights.detach()
        w, top = log_w.exp(), harden(log_w).exp()
        finite = log_w.masked_fill(log_w.isneginf(), 0.0)
        smallest = log_w.masked_fill(log_w.isneginf(), torch.inf).min(0).values
        return {"gate_entropy": -(w * finite).sum(0), "gate_margin": log_w.max(0).values - smallest,
                **{f"gate_weight/{m}": value for m, value in enumerate(w)},
                **{f"gate_first/{m}": value for m, value in enumerate(top)}}

    def report(self, means: dict[str, float]) -> tuple[dict[str, float], list[str]]:
        """Share of the most used expert, and warnings about a gate that has collapsed or exploded."""
        kind = "gate_first/" if self.mode == "hard" else "gate_weight/"
        used = {name.removeprefix(kind): value for name, value in means.items() if name.startswith(kind)}
        first = {name: value for name, value in means.items() if name.startswith("gate_first/")}
        if not used:
            return {}, []
        most = max(used, key=used.__getitem__)
        warnings = []
        if len(used) > 1 and used[most] > COLLAPSED:
            warnings.append(f"the gate has collapsed: modality {most}, counted from 0, holds more than {COLLAPSED:.0%} "
                            "of the weight, so the prior is that one posterior. Try load_balance=1 (or more), "
                            "gate=gumbel with a temperature that falls slowly, or gate=none")
        if means["gate_margin"] > EXPLODED:
            warnings.append(f"the gate's log-weights differ by more than {EXPLODED:g} nats: it is saturated and "
                            "learns no more. Try load_balance=1 (or more), a smaller learning_rate, or "
                            "max_grad_norm=100")
        return {"gate_most_used": max(first.values())}, warnings


def _embedding(n_in: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(n_in), nn.Linear(n_in, hidden), nn.ReLU())


def harden(log_weights: Tensor) -> Tensor:
    """log of the one-hot weights at the largest of log-weights (..., M, B): 0 there, -inf elsewhere."""
    first = log_weights.detach().argmax(-2, keepdim=True)
    return torch.full_like(log_weights, -math.inf).scatter(-2, first, 0.0)
