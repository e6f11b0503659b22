"""MultimodalVAE: encoders + decoders + likelihoods + an objective. Encode, share, decode, weigh.

Letters: S sources, M modalities, B batch, D latent.
"""

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmvm import arrays, keep, sharing
from mmvm.data import Batch, Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.modality import BESIDES
from mmvm.networks.default import default_networks
from mmvm.networks.features import WithFeatures, feature_widths
from mmvm.networks.given import check_networks, mean_and_logvar, networks_by_name
from mmvm.networks.grouped import forward_grouped
from mmvm.networks.modes import evaluating
from mmvm.networks.present import run_on_present
from mmvm.objectives import Objective, Posteriors, Schedule
from mmvm.objectives.base import check_method
from mmvm.objectives.spec import build
from mmvm.schedule import at, bounds_of, check_number, plain
from mmvm.sharing import fit_latent_density

__all__ = ["MultimodalVAE", "Terms", "fit_latent_density"]


@dataclass
class Terms:
    """What one batch costs, per sample and in nats; the loop takes the mean of `loss`.

    loss            (B,)    -mean_S sum_m w_m log p(x_m | z_m) + beta * regulariser, or what the objective makes of them
    log_likelihood  (M, B)  log p(x_m | z_m), mean over sources, unweighted; 0 where not observed
    regulariser     (B,)    before beta
    parts           name -> (B,), the pieces of the regulariser

    >>> terms = model(x)
    >>> terms.loss.shape, terms.log_likelihood.shape
    (torch.Size([60]), torch.Size([2, 60]))
    """

    loss: Tensor
    log_likelihood: Tensor
    regulariser: Tensor
    parts: dict[str, Tensor]


class Prepared(NamedTuple):
    """A batch as the networks see it: zeros in place of what is not observed.

    x         M tensors (B, *shape_m), floats or token numbers
    observed  (M, B) bool
    seen      M masks (B, *shape_m) bool of the entries that count, or None: all
    complete  nothing is absent, and nobody has to look for it
    trust     (M, B), where the objective needs it and the data have it
    """

    x: list[Tensor]
    observed: Tensor
    seen: list[Tensor | None]
    complete: bool
    trust: Tensor | None


class MultimodalVAE(nn.Module):
    """One encoder and one decoder per modality, joined only by the objective (paper, section 3).

    modalities  M descriptions; encoders: x_m -> (mean, logvar), each (B, D); decoders: z (B, D) -> parameters of
    p(x_m | z); beta >= 0 weighs the objective's regulariser, a number or a `Schedule` over the updates.

    `x` below is a list of M tensors (B, *shape_m) as stored (uint8 images are scaled on the device), `observed`
    (M, B) bool says which are present; None means all. Absent entries may hold anything, NaN included. Both may be
    what `MultimodalData` takes, arrays and frames, and x a dictionary of those modalities that are there, or a batch
    of a `DataLoader`; what is no tensor goes to the model's device. `trust` (M, B) is that of the data, for objectives
    that need it.
    Absent entries are no part of the batch statistics of a network that has some (`run_on_present`).

    Raises `UserError` where networks, names, shapes or beta do not fit together.

    >>> model = MultimodalVAE.for_data(data, latent_dim=2, objective="mmvm", beta=1.0, say=None)
    >>> model.impute({"a": a}, targets="b")["b"].shape
    torch.Size([60, 2])
    """

    def __init__(self, modalities: Sequence[Modality], encoders: Sequence[nn.Module], decoders: Sequence[nn.Module],
                 objective: Objective, beta: float | Schedule = 1.0):
        super().__init__()
        if not len(modalities) == len(encoders) == len(decoders) > 0:
            raise UserError(f"{len(modalities)} modalities, {len(encoders)} encoders and {len(decoders)} decoders: "
                            "give one encoder and one decoder per modality")
        if len(set(names := [m.name for m in modalities])) < len(names):
            raise UserError(f"modalities {names}: a name occurs twice, give each its own")
        for value in bounds_of(beta):
            check_number("beta", value, positive=False)
        check_method(objective)
        check_networks(names, encoders, decoders)
        self.modalities = tuple(modalities)
        self.encoders = nn.ModuleList(encoders)
        self.decoders = nn.ModuleList(decoders)
        self.objective = objective
        self.beta = plain(beta)
        if "features" in objective.needs:
            objective.meet(feature_widths(self.modalities, encoders))
        self.grouped = False  # run the M networks as one; set by `mmvm.training.plan.Plan`

    @classmethod
    def for_data(cls, data: MultimodalData, latent_dim: int = 16, objective: str | Objective = "mmvm",
                 beta: float | Schedule = 1.0, encoders: Mapping[str, nn.Module] | None = None,
                 decoders: Mapping[str, nn.Module] | None = None,
                 say: Callable[[str], None] | None = print) -> "MultimodalVAE":
        """A model of `data` with usual networks (`mmvm.networks.default_networks`), D = `latent_dim`, and a method by
        its text (`python -m mmvm methods`). `encoders` and `decoders` replace those of the modalities they name; what
        was chosen is said, one line a modality. Raises `UserError`."""
        check_number("latent_dim", latent_dim, whole=True)
        own = {"encoders": networks_by_name(encoders, data.names, "encoders"),
               "decoders": networks_by_name(decoders, data.names, "decoders")}
        for spec, x, present in zip(data.specs, data.modalities.values(), data.observed):
            said = "as given"
            if not all(spec.name in given for given in own.values()):
                encoder, decoder, said = default_networks(spec, latent_dim, spec.n_tokens(x, present),
                                                          spec.log_rates(x, present))
                said += "".join(f", its {what[:-1]} as given" for what, given in own.items() if spec.name in given)
                own["encoders"].setdefault(spec.name, encoder), own["decoders"].setdefault(spec.name, decoder)
            if say is not None:
                say(f"{spec.name}: {said}, {spec.likelihood}, weight {spec.weight:g}")
        if isinstance(objective, str):
            objective = build(objective, latent_dim, len(data.specs))
        chosen = [[given[name] for name in data.names] for given in own.values()]
        return cls(data.specs, chosen[0], chosen[1], objective, beta)

    def forward(self, x: Sequence | Mapping, observed: Any = None, step: int = 0, trust: Any = None) -> Terms:
        """The training terms of a batch; `step` (updates so far) drives schedules."""
        batch = self._prepare(x, observed, trust)
        shared = self.objective(self._encode(batch), batch.observed, step)       # latents (S, M, B, D)
        self.objective.check(shared, batch.observed)
        log_likelihood = self._log_likelihood(batch, shared.latents)             # (S, M, B)
        # number by number: a recorded update takes no tensor from the host
        weighted = torch.stack([m.weight * own for m, own in zip(self.modalities, log_likelihood.unbind(1))], 1)
        loss = self.objective.loss(weighted, shared, at(self.beta, step))
        return Terms(loss, shared.mean_over_sources(log_likelihood), shared.regulariser, shared.parts)

    shared, compare = sharing.shared, sharing.compare

    @property
    def settled_at(self) -> int:
        """Number of updates after which no schedule moves any more."""
        return max(self.objective.settled_at, self.beta.steps if isinstance(self.beta, Schedule) else 0)

    def encode(self, x: Sequence | Mapping, observed: Any = None, trust: Any = None) -> DiagonalGaussian:
        """The unimodal posteriors q_m(z_m | x_m), (M, B, D); N(0, I) where nothing is observed."""
        batch = self._prepare(x, observed, trust)
        return self._encode(batch).where(batch.observed)

    def decode(self, latents: Any) -> Any:
        """Latents (M, B, D) -> the parameters of each p(x_m | z_m), (B, ...); name -> (B, D) gives name -> (B, ...)."""
        if isinstance(latents, Mapping):
            self._check_names(latents, f"latents of {list(latents)} given")
            return {m.name: decoder(self._here(latents[m.name], f"latents of {m.name!r}"))
                    for m, decoder in zip(self.modalities, self.decoders) if m.name in latents}
        latents = latents if isinstance(latents, Tensor) else self._here(latents, "latents")
        return [decoder(z) for decoder, z in zip(self.decoders, latents, strict=True)]

    def log_likelihood(self, x: Sequence | Mapping, observed: Any, latents: Tensor) -> Tensor:
        """log p(x_m | z) for latents (S, M, B, D): (S, M, B) nats, unweighted, 0 where not observed."""
        return self._log_likelihood(self._prepare(x, observed), latents)

    @torch.no_grad()
    def impute(self, x: Sequence | Mapping, observed: Any = None, targets: str | Sequence[str] | None = None,
               density: Any = None, trust: Any = None) -> dict[str, Tensor]:
        """Conditional generation from any subset: the means (B, *shape_m) of p(x_m | z_m) for the `targets`, names or
        one (default: all), with one draw of z_m given what is observed: as the objective has it, or of a `density`
        (`fit_latent_diffusion`). Values as the networks see them, not bytes; standardised ones in their own units; of
        tokens the probabilities (B, V, L). A mapping lacks what is missing, and `dict(data.modalities)` lacks nothing:
        give `data.observed` with it. Raises `UserError`."""
        batch = self._prepare(x, observed, trust)
        if len(empty := torch.nonzero(~batch.observed.any(0))):
            raise UserError(f"sample {int(empty[0])} of the batch has no observed modality ({len(empty)} such "
                            "samples): give each at least one to impute from")
        q = self._encode(batch).where(batch.observed)
        if density is None:
            return self._means(self.objective.impute_latents(q, batch.observed), targets)
        if not hasattr(density, "sample_given"):
            raise UserError(f"a {type(density).__name__} says nothing of one modality given another: use one of "
                            "fit_latent_diffusion, or none")
        density.check(self)
        return self._means(density.sample_given(q.sample(), batch.observed).to(q.mean), targets)

    def generate(self, n: int, density: Any = None, targets: str | Sequence[str] | None = None) -> dict[str, Tensor]:
        """n joint samples: from the method's own p(z), or from a `density`, one z through every decoder
        (`fit_latent_density`) or one z_m of each modality through its own (`fit_latent_diffusion`).

        MMVM's prior h(z | X) needs data, so it defines no p(z) to sample from (paper, section 6): a density fitted to
        the latents afterwards stands in for it. Draws come from torch's random numbers. Raises `UserError`.
        """
        if density is None:
            with evaluating(self):
                blank = [torch.zeros(1, *spec.shape, dtype=torch.long if spec.likelihood.discrete else torch.float32)
                         for spec in self.modalities]
                latent_dim = self.encode(blank).mean.shape[-1]
            z = self.objective.prior_latents(n, len(self.modalities), latent_dim)
            return self._means(z.to(next(self.decoders.parameters())), targets)
        if hasattr(density, "check"):
            density.check(self)
        if hasattr(density, "random_state"):  # scikit-learn's, whose own seed would give the same draws every time
            density = copy.copy(density)
            density.random_state = int(torch.randint(2**31 - 1, ()))
        z = density.sample(n)
        if isinstance(z, tuple):  # scikit-learn's with the components, one after the other
            z = z[0][torch.randperm(n).numpy()]
        parameter = next(self.decoders.parameters())
        z = torch.as_tensor(z, dtype=parameter.dtype, device=parameter.device)
        return self._means(z if z.ndim == 3 else z.expand(len(self.modalities), *z.shape), targets)

    def save(self, path: str | os.PathLike, half: bool = False) -> None:
        """Writes all that is needed to use the model into one safetensors file: weights, modalities, objective, beta,
        versions, the networks' classes by import path. With `half` the float32 weights are rounded to bfloat16, for
        half the bytes; `load` gives float32 again. Raises `UserError` for what could not be given back."""
        keep.save(self, path, half)

    @classmethod
    def load(cls, path: str | os.PathLike, allow: Iterable = ()) -> "MultimodalVAE":
        """The model that `save` wrote, on the CPU, without data. The file names classes, which are imported: those
        outside `mmvm`, `torch.nn` and the installed studies must be in `allow`, as classes, modules or their names."""
        return keep.load(path, allow, cls)

    def _prepare(self, x: Any, observed: Any, trust: Any = None) -> Prepared:
        if isinstance(x, (Batch, MultimodalData)):
            raise UserError("give the model the list of tensors and the mask: model(batch.x, batch.observed), and of "
                            "data model.impute(dict(data.modalities), data.observed)")
        trust = self._trust(x, trust)
        if isinstance(x, Mapping) or not all(isinstance(given, Tensor | None) for given in (*x, observed)):
            x, observed = self._in_order(x, observed)
        if len(x) != len(self.modalities):
            raise UserError(f"{len(x)} tensors for {len(self.modalities)} modalities: give one each, in the order "
                            f"{[m.name for m in self.modalities]}, and mark absent ones in `observed`")
        seen = [modality.seen(x_m) for modality, x_m in zip(self.modalities, x)]
        stored, x = x, [modality.prepare(x_m) for modality, x_m in zip(self.modalities, x)]
        complete = observed is None
        if observed is None:
            observed = torch.ones(len(x), len(x[0]), dtype=torch.bool, device=x[0].device)
        if observed.shape != (len(x), len(x[0])) or observed.dtype != torch.bool:
            raise UserError(f"`observed` must be a bool tensor of shape (M, B) = {(len(x), len(x[0]))}, it is "
                            f"{observed.dtype} of shape {tuple(observed.shape)}")
        for modality, x_m in zip(self.modalities, x):
            if x_m.shape != (len(x[0]), *modality.shape):
                raise UserError(f"modality {modality.name!r} must be of shape {(len(x[0]), *modality.shape)}, it is "
                                f"{tuple(x_m.shape)}: give the same B samples of every modality, as `modalities` "
                                "describes them")
        if trust is not None and trust.shape != observed.shape:
            raise UserError(f"`trust` must be of shape (M, B) = {tuple(observed.shape)}, it is {tuple(trust.shape)}")
        # nothing but missing entries is an absent sample; of tokens a training's data have said so before
        known = [mask if mask is not None or self.training else modality.known(x_m)
                 for mask, modality, x_m in zip(seen, self.modalities, x)]
        if not all(mask is None for mask in known):
            complete = False
            observed = torch.stack([present if mask is None else present & mask.unsqueeze(-1).flatten(1).any(1)
                                    for present, mask in zip(observed, known)])
        if not complete:
            # zeros in place of what is absent: a NaN there would reach the gradient even when multiplied by zero
            x = [torch.where(present.view(-1, *[1] * (x_m.ndim - 1)), x_m, x_m.new_zeros(()))
                 for x_m, present in zip(x, observed)]
        for modality, *own in zip(self.modalities, () if self.training else x, stored):  # a training looks at its start
            modality.check_prepared(*own)
        return Prepared(x, observed, seen, complete, trust)

    def _trust(self, x: Any, trust: Any) -> Tensor | None:
        """(M, B) of what is given, also within a batch of a DataLoader; None where the objective does not ask."""
        if "trust" not in self.objective.needs:
            return None
        if trust is None and isinstance(x, Mapping) and "trust" not in [m.name for m in self.modalities]:
            trust = x["trust"].t() if x.get("trust") is not None else None  # (B, M) there
        return None if trust is None else self._here(trust, "`trust`")

    def _in_order(self, x: Any, observed: Any) -> tuple[list[Tensor], Tensor | None]:
        """Whatever holds the modalities as a list of tensors and a mask, None where everything is there."""
        names = [m.name for m in self.modalities]
        if not isinstance(x, Mapping):
            if len(x) != len(names):
                return x, observed
            x = dict(zip(names, x))
        besides = BESIDES.difference(names)  # a model of before these names were taken may have one of them
        if observed is None and "observed" in besides and x.get("observed") is not None:
            observed = x["observed"].t()  # (B, M) in a DataLoader's batch
        x = {name: values for name, values in x.items() if values is not None and name not in besides}
        self._check_names(x, f"modalities {list(x)} given")
        arrays.common_index(x)
        device = next(self.parameters()).device
        given = {m.name: arrays.of_modality(x[m.name], m)[0].to(device) for m in self.modalities if m.name in x}
        n = len(next(iter(given.values())))
        if observed is not None:
            observed, entries = arrays.masks(observed, names, n)
            observed = observed.to(device)
            given |= {m.name: arrays.without(given[m.name], entries[m.name], m)
                      for m in self.modalities if m.name in entries and m.name in given}
        if len(given) < len(names):
            there = torch.tensor([name in given for name in names], device=device).unsqueeze(1).expand(-1, n)
            if observed is None or observed.shape == there.shape:  # another one is refused below
                observed = there if observed is None else observed.where(there, False)
        return [given[m.name] if m.name in given else torch.zeros(n, *m.shape, device=device, dtype=torch.long if
                m.likelihood.discrete else torch.float) for m in self.modalities], observed

    def _here(self, values: Any, what: str) -> Tensor:
        return arrays.as_tensor(values, what).to(next(self.parameters()).device)

    def _check_names(self, names: Mapping | Sequence[str], said: str) -> None:
        known = [m.name for m in self.modalities]
        if not names or set(names) - set(known):
            raise UserError(f"{said}: name some of {known}")

    def _encode(self, batch: Prepared) -> DiagonalGaussian:
        inputs = [torch.cat([x_m, seen.to(x_m.dtype)], 1) if modality.mask_input and seen is not None else x_m
                  for modality, x_m, seen in zip(self.modalities, batch.x, batch.seen)]
        present = None if batch.complete else batch.observed
        shown = "features" in self.objective.needs
        outputs = self._run(self.encoders, inputs, present, shown)
        posteriors = [DiagonalGaussian(*mean_and_logvar(out, len(x_m), modality.name))
                      for modality, x_m, out in zip(self.modalities, inputs, outputs)]
        if len({q.shape for q in posteriors}) > 1:
            sizes = ", ".join(f"{m.name} {q.shape[-1]}" for m, q in zip(self.modalities, posteriors))
            raise UserError(f"the encoders' latents are of unequal sizes ({sizes}): give all the same number of "
                            "dimensions")
        q = self.objective.posteriors(DiagonalGaussian.stack(posteriors))
        return Posteriors.beside(q, batch.trust, [out[2] for out in outputs] if shown else None
                                 ) if self.objective.needs else q

    def _log_likelihood(self, batch: Prepared, latents: Tensor) -> Tensor:
        """log p(x_m | z_m) for latents (S, M, B, D): (S, M, B), 0 where not observed."""
        terms = []
        present = None if batch.complete else batch.observed.repeat(1, len(latents))
        outputs = self._run(self.decoders, [z_m.flatten(0, 1) for z_m in latents.unbind(1)], present)
        for modality, out, x_m, seen in zip(self.modalities, outputs, batch.x, batch.seen):
            modality.check_parameters(out)
            parameters = out.unflatten(0, (len(latents), -1))  # (S, B, ...)
            terms.append(modality.log_prob(parameters, x_m, seen))
        return torch.stack(terms, 1).masked_fill(~batch.observed, 0.0)

    def _run(self, networks: nn.ModuleList, inputs: Sequence[Tensor], present: Tensor | None,
             features: bool = False) -> list:
        """Each network on its own input; what is not `present` (M, B), None: nothing, is not part of its statistics."""
        if self.grouped:
            return forward_grouped(networks, inputs, features)
        own = [WithFeatures(network) for network in networks] if features else networks
        return [run_on_present(network, x, None if present is None else present[m])
                for m, (network, x) in enumerate(zip(own, inputs))]

    def _means(self, latents: Tensor, targets: str | Sequence[str] | None) -> dict[str, Tensor]:
        targets = [m.name for m in self.modalities] if targets is None else targets
        targets = [targets] if isinstance(targets, str) else list(targets)
        self._check_names(targets, f"targets {targets} asked for")
        return {m.name: m.restore(m.likelihood.mean(decoder(z)))
                for m, decoder, z in zip(self.modalities, self.decoders, latents) if m.name in targets}
