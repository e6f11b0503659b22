"""What state the latents are in: what a training's warnings are about, as numbers to follow."""

import torch

from mmvm.data import MultimodalData, check_units
from mmvm.evaluation.encodings import BATCH
from mmvm.gaussian import DiagonalGaussian
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import evaluating


@torch.no_grad()
def diagnostics(model: MultimodalVAE, data: MultimodalData) -> dict[str, float]:
    """Of all samples of `data`, under the names of a history's columns; no draw is made.

    rate/NAME    nats that a modality's latents hold about the sample: 0.5 log(1 + Var[mean] / E[var]), summed over D
                 (`DiagonalGaussian.information`); a modality at 0 has collapsed
    weight/NAME  mean weight w_m of a modality's posterior in the mixture; 1/M each without a gate (paper, equation 3)
    distance     of the centre of all latents from 0, in units of their own spread; grows where they drift

    NaN for a modality that fewer than two samples have. Use: fit(..., on_epoch=lambda model, epoch: diagnostics(model,
    data)), and `mmvm.study.figures.diagnostics` of the history.

    >>> sorted(mmvm.evaluation.diagnostics(model, data))
    ['distance', 'rate/a', 'rate/b', 'weight/a', 'weight/b']
    """
    check_units(model, data)
    parts = []
    with evaluating(model) as device:
        for batch in data.batches(BATCH):
            seen = batch.observed.to(device)
            q = model.encode([x.to(device) for x in batch.x], seen, batch.trust)
            weights = model.objective.log_weights(q, seen).exp().float()
            parts.append((q.mean.double(), q.logvar.double(), seen, weights))
    mean, logvar, observed, shares = (torch.cat(own, 1) for own in zip(*parts))
    q = DiagonalGaussian.within_limits(mean, logvar)
    distance, spread = q[observed].centre_and_spread()
    return {**{f"rate/{name}": float(q[m, seen].information().sum()) if int(seen.sum()) > 1 else float("nan")
               for m, (name, seen) in enumerate(zip(data.names, observed))},
            **{f"weight/{name}": float(own.mean()) for name, own in zip(data.names, shares)},
            "distance": distance / spread}
