"""MultimodalVAE: encoders + decoders + likelihoods + an objective. Encode, share, decode, weigh.

Letters: S sources, M modalities, B batch, D latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmvm.data import Batch, Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.networks.grouped import forward_grouped
from mmvm.objectives import Objective, Schedule
from mmvm.schedule import at, bounds_of


@dataclass
class Terms:
    """What one batch costs, per sample and in nats; the loop takes the mean of `loss`.

    loss            (B,)    -mean_S sum_m w_m log p(x_m | z_m) + beta * regulariser, or what the objective makes of them
    log_likelihood  (M, B)  log p(x_m | z_m), mean over sources, unweighted; 0 where not observed
    regulariser     (B,)    before beta
    parts           name -> (B,), the pieces of the regulariser
    """

    loss: Tensor
    log_likelihood: Tensor
    regulariser: Tensor
    parts: dict[str, Tensor]


class MultimodalVAE(nn.Module):
    """One encoder and one decoder per modality, joined only by the objective (paper, section 3).

    modalities  M descriptions; encoders: x_m -> (mean, logvar), each (B, D); decoders: z (B, D) -> parameters of
    p(x_m | z); beta >= 0 weighs the objective's regulariser, a number or a `Schedule` over the updates.

    `x` below is a list of M tensors (B, *shape_m) as stored (uint8 images are scaled on the device), `observed`
    (M, B) bool says which are present; None means all. Absent entries may hold anything, NaN included.
    A decoder whose `skip_absent` is true gets zeros for the latents of absent entries, to leave them out of its batch
    statistics.
    """

    def __init__(self, modalities: Sequence[Modality], encoders: Sequence[nn.Module], decoders: Sequence[nn.Module],
                 objective: Objective, beta: float | Schedule = 1.0):
        super().__init__()
        if not len(modalities) == len(encoders) == len(decoders) > 0:
            raise UserError(f"{len(modalities)} modalities, {len(encoders)} encoders and {len(decoders)} decoders: "
                            "give one encoder and one decoder per modality")
        names = [m.name for m in modalities]
        if len(set(names)) < len(names):
            raise UserError(f"modalities {names}: a name occurs twice, give each its own")
        if not all(value >= 0 for value in bounds_of(beta)):
            raise UserError(f"beta must be at least 0, got {beta}")
        self.modalities = tuple(modalities)
        self.encoders = nn.ModuleList(encoders)
        self.decoders = nn.ModuleList(decoders)
        self.objective = objective
        self.beta = beta
        self.grouped = False  # run the M networks as one; set by `mmvm.training.plan.Plan`

    def forward(self, x: Sequence[Tensor], observed: Tensor | None = None, step: int = 0) -> Terms:
        """The training terms of a batch; `step` (updates so far) drives schedules."""
        x, observed = self._prepare(x, observed)
        shared = self.objective(self._encode(x), observed, step)                 # latents (S, M, B, D)
        log_likelihood = self._log_likelihood(x, observed, shared.latents)       # (S, M, B)
        weights = log_likelihood.new_tensor([m.weight for m in self.modalities])
        loss = self.objective.loss(weights[:, None] * log_likelihood, shared, at(self.beta, step))
        return Terms(loss, shared.mean_over_sources(log_likelihood), shared.regulariser, shared.parts)

    @property
    def settled_at(self) -> int:
        """Number of updates after which no schedule moves any more."""
        return max(self.objective.settled_at, self.beta.steps if isinstance(self.beta, Schedule) else 0)

    def encode(self, x: Sequence[Tensor], observed: Tensor | None = None) -> DiagonalGaussian:
        """The unimodal posteriors q_m(z_m | x_m), (M, B, D); N(0, I) where nothing is observed."""
        x, observed = self._prepare(x, observed)
        return self._encode(x).where(observed)

    def decode(self, latents: Tensor) -> list[Tensor]:
        """Latents (M, B, D) -> the parameters of each p(x_m | z_m), (B, ...)."""
        return [decoder(z) for decoder, z in zip(self.decoders, latents, strict=True)]

    def log_likelihood(self, x: Sequence[Tensor], observed: Tensor | None, latents: Tensor) -> Tensor:
        """log p(x_m | z) for latents (S, M, B, D): (S, M, B) nats, unweighted, 0 where not observed."""
        return self._log_likelihood(*self._prepare(x, observed), latents)

    def impute(self, x: Sequence[Tensor], observed: Tensor, targets: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Conditional generation from any subset: the means (B, *shape_m) of p(x_m | z_m) for the `targets`
        (default: all), with one draw of z_m given what is observed. Values as the networks see them, not bytes."""
        x, observed = self._prepare(x, observed)
        empty = torch.nonzero(~observed.any(0))
        if len(empty):
            raise UserError(f"sample {int(empty[0])} of the batch has no observed modality ({len(empty)} such "
                            "samples): give each at least one to impute from")
        latents = self.objective.impute_latents(self._encode(x).where(observed), observed)
        return self._means(latents, targets)

    def generate(self, n: int, density, targets: Sequence[str] | None = None) -> dict[str, Tensor]:
        """n joint samples: one z from `density` (see `fit_latent_density`) through every decoder.

        The prior h(z | X) needs data, so the model defines no p(z) to sample from (paper, section 6): a density
        fitted to the latents afterwards stands in for it.
        """
        z, _ = density.sample(n)
        parameter = next(self.decoders.parameters())
        z = torch.as_tensor(z, dtype=parameter.dtype, device=parameter.device)
        return self._means(z.expand(len(self.modalities), *z.shape), targets)

    def _prepare(self, x: Sequence[Tensor], observed: Tensor | None) -> tuple[list[Tensor], Tensor]:
        if isinstance(x, (Batch, MultimodalData)):
            raise UserError("give the model the list of tensors and the mask: model(batch.x, batch.observed)")
        if len(x) != len(self.modalities):
            raise UserError(f"{len(x)} tensors for {len(self.modalities)} modalities: give one each, in the order "
                            f"{[m.name for m in self.modalities]}, and mark absent ones in `observed`")
        x = [modality.prepare(x_m) for modality, x_m in zip(self.modalities, x)]
        complete = observed is None
        if complete:
            observed = torch.ones(len(x), len(x[0]), dtype=torch.bool, device=x[0].device)
        if observed.shape != (len(x), len(x[0])) or observed.dtype != torch.bool:
            raise UserError(f"`observed` must be a bool tensor of shape (M, B) = {(len(x), len(x[0]))}, it is "
                            f"{observed.dtype} of shape {tuple(observed.shape)}")
        for modality, x_m in zip(self.modalities, x):
            if x_m.shape != (len(x[0]), *modality.shape):
                raise UserError(f"modality {modality.name!r} must be of shape {(len(x[0]), *modality.shape)}, it is "
                                f"{tuple(x_m.shape)}: give the same B samples of every modality, as `modalities` "
                                "describes them")
        if complete:
            return x, observed
        # zeros in place of what is absent: a NaN there would reach the gradient even when multiplied by zero
        x = [torch.where(present.view(-1, *[1] * (x_m.ndim - 1)), x_m, x_m.new_zeros(()))
             for x_m, present in zip(x, observed)]
        return x, observed

    def _encode(self, x: list[Tensor]) -> DiagonalGaussian:
        posteriors = [DiagonalGaussian(*out) for out in self._run(self.encoders, x)]
        if len({q.shape for q in posteriors}) > 1:
            sizes = ", ".join(f"{m.name} {q.shape[-1]}" for m, q in zip(self.modalities, posteriors))
            raise UserError(f"the encoders' latents are of unequal sizes ({sizes}): give all the same number of "
                            "dimensions")
        return DiagonalGaussian.stack(posteriors)

    def _log_likelihood(self, x: list[Tensor], observed: Tensor, latents: Tensor) -> Tensor:
        """log p(x_m | z_m) for latents (S, M, B, D): (S, M, B), 0 where not observed."""
        terms = []
        inputs = [z_m.masked_fill(~present.unsqueeze(-1), 0.0) if getattr(decoder, "skip_absent", False) else z_m
                  for decoder, z_m, present in zip(self.decoders, latents.unbind(1), observed)]
        outputs = self._run(self.decoders, [z_m.flatten(0, 1) for z_m in inputs])
        for modality, out, x_m in zip(self.modalities, outputs, x):
            modality.check_parameters(out)
            parameters = out.unflatten(0, (len(latents), -1))  # (S, B, ...)
            terms.append(modality.likelihood.log_prob(parameters, x_m, len(modality.shape)))
        return torch.stack(terms, 1).masked_fill(~observed, 0.0)

    def _run(self, networks: nn.ModuleList, inputs: Sequence[Tensor]) -> list:
        """Each network on its own input."""
        return forward_grouped(networks, inputs) if self.grouped else [net(x) for net, x in zip(networks, inputs)]

    def _means(self, latents: Tensor, targets: Sequence[str] | None) -> dict[str, Tensor]:
        names = [m.name for m in self.modalities]
        targets = names if targets is None else list(targets)
        if not targets or set(targets) - set(names):
            raise UserError(f"targets {targets} asked for: name some of {names}")
        return {m.name: m.likelihood.mean(decoder(z))
                for m, decoder, z in zip(self.modalities, self.decoders, latents) if m.name in targets}


@torch.no_grad()
def fit_latent_density(model: MultimodalVAE, data: MultimodalData, n_components: int = 20, n: int = 5_000,
                       seed: int = 0):
    """An ex-post density: a Gaussian mixture with full covariances on draws from the posteriors of n samples, all
    modalities pooled, that is on the average of h(z | X) over the data. Give it to `MultimodalVAE.generate`.

    Meaningful where modalities share one latent space (MMVM, joint models); independent VAEs do not.
    """
    from sklearn.mixture import GaussianMixture

    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(data), generator=generator)[:n]
    draws = []
    for batch in data.subset(index).to(next(model.parameters()).device).batches(1_000):
        q = model.encode(batch.x, batch.observed)
        q = DiagonalGaussian(q.mean.cpu(), q.logvar.cpu())
        draws.append(q.sample(generator)[batch.observed.cpu()])
    return GaussianMixture(n_components, reg_covar=1e-4, random_state=seed).fit(torch.cat(draws).double().numpy())
