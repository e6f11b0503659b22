"""Errors in nats: of reconstructions, of imputations, of a constant, and the log-likelihood."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmvm.choose import best_constant
from mmvm.data import Modality, MultimodalData, check_units
from mmvm.errors import UserError
from mmvm.evaluation.encodings import BATCH, evaluating, from_each_source, mean_or_nan
from mmvm.likelihoods import Laplace
from mmvm.model import MultimodalVAE


@torch.no_grad()
def imputation_error(model: MultimodalVAE, data: MultimodalData, seed: int = 0) -> np.ndarray:
    """-log p(x_t | z) with z drawn from q_s alone, (M, M), nats per sample, unweighted; [s, t], the diagonal is
    self-reconstruction. Averaged over the samples in which both s and t are observed, NaN where there are none.

    >>> errors = mmvm.evaluation.imputation_error(model, data)  # [source, target]
    >>> errors.shape
    (2, 2)
    """
    total, count = np.zeros((len(data.specs),) * 2), np.zeros((len(data.specs),) * 2)
    for source, batch, _, parameters in from_each_source(model, data, seed):
        for target, (modality, out) in enumerate(zip(data.specs, parameters)):
            nll, n = nats(modality, out, batch.x[target], batch.observed[target])
            total[source, target] += nll
            count[source, target] += n
    return mean_or_nan(total, count)


def nats(modality: Modality, parameters: Tensor, x: Tensor, seen: Tensor) -> tuple[float, int]:
    """-log p(x | parameters) of stored x (B, ...), summed over the samples that are `seen` (B,), and their number."""
    x = x.to(parameters.device)
    nll = -modality.log_prob(parameters, modality.prepare(x), modality.seen(x))
    return nll[seen.to(nll.device)].double().sum().item(), int(seen.sum())


@torch.no_grad()
def constant_error(train: MultimodalData, test: MultimodalData, n: int = 1_000, seed: int = 0) -> np.ndarray:
    """-log p(x_m | a constant), (M,), nats per test sample, unweighted: what an imputation that looks at nothing costs.
    The constant is the median of `n` random training samples that have m, pixel by pixel, for a Laplace likelihood,
    whose best it is; otherwise the most likely numbers for a decoder to give (`mmvm.choose.best_constant`). NaN where a
    modality is tokens, or never observed.

    >>> mmvm.evaluation.constant_error(data, data).shape
    (2,)
    """
    errors = np.full(len(test.specs), np.nan)
    for m, modality in enumerate(test.specs):
        rows, rows_test = (torch.nonzero(data.observed[m]).squeeze(1) for data in (train, test))
        if modality.likelihood.discrete or not len(rows) or not len(rows_test):
            continue
        laplace = isinstance(modality.likelihood, Laplace)
        constant = _median(train, m, n, seed) if laplace else best_constant(train, m, seed)
        constant, x = constant.to(test.device), test.modalities[modality.name]
        errors[m] = sum(nats(modality, constant.expand(len(index), *constant.shape), x.index_select(0, index),
                             torch.ones(len(index), dtype=torch.bool))[0] for index in rows_test.split(BATCH)
                        ) / len(rows_test)
    return errors


def _median(data: MultimodalData, m: int, n: int, seed: int) -> Tensor:
    """Of `n` random samples that have modality m, entry by entry; 0 for an entry that none of them has."""
    modality, rows = data.specs[m], torch.nonzero(data.observed[m]).squeeze(1)
    chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n]]
    stored = data.modalities[modality.name].index_select(0, chosen)
    known, seen = modality.prepare(stored), modality.seen(stored)
    return (known if seen is None else known.where(seen, math.nan)).nanmedian(0).values.nan_to_num()


@dataclass(frozen=True)
class LogLikelihood:
    """`mean` over n samples and its standard error (nats per sample), with K = `n_draws` draws each.

    >>> mmvm.evaluation.LogLikelihood(-10.0, 0.1, n_draws=64, n=60).note()
    'draws=64; n=60; standard_error=0.1'
    """

    mean: float
    standard_error: float
    n_draws: int
    n: int

    def note(self) -> str:
        """For a result row."""
        return f"draws={self.n_draws}; n={self.n}; standard_error={self.standard_error:.3g}"


@torch.no_grad()
def log_likelihood(model: MultimodalVAE, data: MultimodalData, n_draws: int = 64, seed: int = 0) -> LogLikelihood:
    """log p(X) of what is observed, by importance sampling (Burda et al. 2016), in nats per sample.

    log p(X) >= E log (1/K) sum_k p(X | z_k) p(z_k) / q(z_k | X), K = `n_draws` draws from the method's own posterior:
    a lower bound that rises with K, so compare methods at one K. Likelihoods are unweighted. Raises `UserError` for
    methods without a joint density, MMVM among them.

    >>> joint = MultimodalVAE.for_data(data, latent_dim=2, objective="poe", say=None)
    >>> mmvm.evaluation.log_likelihood(joint, data, n_draws=4).n
    60
    """
    if n_draws < 1:
        raise UserError(f"n_draws must be at least 1, got {n_draws}")
    check_units(model, data)
    values = []
    with evaluating(model, seed) as device:
        for batch in data.batches(max(1, BATCH // n_draws)):
            x, observed = [x.to(device) for x in batch.x], batch.observed.to(device)
            q = model.encode(x, observed)
            latents, log_ratio = model.objective.importance_draws(q, observed, n_draws)
            terms = model.log_likelihood(x, observed, latents).double()                     # (N, M, B)
            if log_ratio.shape[1] == 1:
                terms = terms.sum(1, keepdim=True)
            log_w = terms + log_ratio.double()                                              # (N, G, B)
            values.append((log_w.logsumexp(0) - math.log(n_draws)).sum(0).cpu())
    each = torch.cat(values).numpy()
    error = each.std(ddof=1) / math.sqrt(len(each)) if len(each) > 1 else float("nan")
    return LogLikelihood(float(each.mean()), float(error), n_draws, len(each))


@torch.no_grad()
def reconstruction_error(model: MultimodalVAE, data: MultimodalData, seed: int = 0) -> np.ndarray:
    """-log p(x_m | z_m) with everything observed given to the objective, (M,), nats per sample, unweighted.

    The sum over modalities is the x axis of the paper's figure 2. It has a floor: sum_m `likelihood.floor`.

    >>> errors = mmvm.evaluation.reconstruction_error(model, data)
    >>> bool((errors >= [spec.likelihood.floor(spec.shape[0]) for spec in specs]).all())
    True
    """
    check_units(model, data)
    total = np.zeros(len(data.specs))
    with evaluating(model, seed) as device:
        for batch in data.batches(BATCH):
            terms = model([x.to(device) for x in batch.x], batch.observed.to(device), trust=batch.trust)
            total -= terms.log_likelihood.double().sum(1).cpu().numpy()
    return mean_or_nan(total, data.observed.sum(1).cpu().numpy())
