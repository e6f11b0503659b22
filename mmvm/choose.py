"""What to choose before a training that counts: weights of the modalities."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.modality import Modality

SAMPLES, STEPS, RATE = 500, 300, 0.1   # looked at, and Adam's, where a likelihood's best parameters are sought
NOTHING = 1e-4                         # nats: what is left of rounding and of the search


def suggest_weights(data: MultimodalData, say: Callable[[str], None] | None = print, seed: int = 0) -> dict[str, float]:
    """Weights under which every modality has as many nats to explain: name -> w_m, the largest modality's being 1.

    What there is to explain is a modality's deviance: mean -log p of its samples under the best constant, less that
    under the best parameters for each sample alone, in nats a sample, of 500 random samples. A modality of 2,000 pixels
    has hundreds of times the nats of one of 10 numbers, and drowns it; the field's usual weights are by numbers of
    entries, which these are where all entries vary alike. A dispersion that is learned stays as the constant has it.

    `say` gets a line a modality. Use: replace(modality, weight=weights[modality.name]). Raises `UserError`.

    >>> weights = suggest_weights(data, say=None)
    >>> sorted(weights), min(weights.values())
    (['a', 'b'], 1.0)
    """
    nats = {spec.name: deviance(data, m, seed) for m, spec in enumerate(data.specs)}
    if still := [name for name, value in nats.items() if not value > NOTHING]:
        raise UserError(f"modality {still[0]!r} is the same in all samples looked at: leave it out, no weight helps it")
    weights = {name: float(f"{max(nats.values()) / value:.3g}") for name, value in nats.items()}
    for spec in data.specs:
        if say is not None:
            n = torch.Size(spec.shape).numel()
            say(f"{spec.name}: {n} entr{'y' if n == 1 else 'ies'}, {nats[spec.name]:,.4g} nats a sample to explain, "
                f"weight {weights[spec.name]:g}")
    return weights


def deviance(data: MultimodalData, m: int, seed: int = 0) -> float:
    """What modality `m` has to explain, in nats a sample; see `suggest_weights`."""
    spec, x, seen, constant, units = _fitted(data, m, seed)
    each = _in(_best(spec, x, seen, constant.expand(len(x), *constant.shape[1:]), units, alone=True), units)
    constant = _in(constant, units)
    return float((spec.log_prob(each, x, seen) - spec.log_prob(constant.expand_as(each), x, seen)).mean())


def best_constant(data: MultimodalData, m: int, seed: int = 0) -> Tensor:
    """The decoder's numbers, float64, one set for all, under which `m` of 500 random samples of `data` is likeliest."""
    with torch.enable_grad():
        _, _, _, constant, units = _fitted(data, m, seed)
    return _in(constant, units)[0]


def _fitted(data: MultimodalData, m: int,
            seed: int) -> tuple[Modality, Tensor, Tensor | None, Tensor, tuple[Tensor, Tensor]]:
    """Modality `m`, prepared values of some samples with what is seen of them, the best constant, and its units."""
    spec, rows = data.specs[m], torch.nonzero(data.observed[m])[:, 0]
    if not len(rows):
        raise UserError(f"modality {spec.name!r} is observed in no sample: leave it out")
    chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:SAMPLES].to(rows.device)]
    stored = data.modalities[spec.name].index_select(0, chosen).cpu()
    x, seen = spec.prepare(stored), spec.seen(stored)
    spec.check_prepared(x, stored)
    x = x if spec.likelihood.discrete else x.double()
    shape = tuple(n if isinstance(n, int) else spec.n_tokens(stored, torch.ones(len(x), dtype=torch.bool)) or 1
                  for n in spec.likelihood.parameter_shape(spec.shape))
    units = _units(spec, x, seen, shape)
    constant = _best(spec, x, seen, torch.zeros(1, *shape, dtype=torch.float64), units)
    return spec, x, seen, constant, units


def _units(spec: Modality, x: Tensor, seen: Tensor | None, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Where a decoder's numbers are sought, and in which steps: around 0 in ones, but a location of reals, the first or
    only number of an entry, around the middle of the entry's values in their spread."""
    centre, step = torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
    if not spec.likelihood.discrete and spec.likelihood.lowest == -math.inf:
        known = x if seen is None else x.masked_fill(~seen, math.nan)
        middle = known.nanmedian(0).values.nan_to_num()
        spread = (known - middle).abs().nanmean(0).nan_to_num()
        several = len(shape) > len(spec.shape)
        (centre[..., 0] if several else centre).copy_(middle)
        (step[..., 0] if several else step).copy_(spread.clamp(min=1e-12))
    return centre, step


def _in(found: Tensor, units: tuple[Tensor, Tensor]) -> Tensor:
    return units[0] + units[1] * found


def _best(spec: Modality, x: Tensor, seen: Tensor | None, start: Tensor, units: tuple[Tensor, Tensor],
          alone: bool = False) -> Tensor:
    """Numbers, in `units`, that make x most likely, from `start`: one set for all samples, or one for each `alone`, of
    which a dispersion stays."""
    several = alone and getattr(spec.likelihood, "per_entry", 1) > 1
    free = (start[..., :1] if several else start).clone().requires_grad_(True)

    def all_of() -> Tensor:
        return torch.cat([free, start[..., 1:]], -1) if several else free
    optimizer = torch.optim.Adam([free], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        log_prob = spec.log_prob(_in(all_of(), units).expand(len(x), *start.shape[1:]), x, seen)
        (-log_prob.sum() / (1 if alone else len(x))).backward()
        optimizer.step()
        schedule.step()
    return all_of().detach()
