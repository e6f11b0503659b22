"""One latent of a sample, and how far its modalities agree on it: two methods of `MultimodalVAE`. And one density of
all samples' latents, to draw from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmvm.data import MultimodalData, check_units
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.networks.modes import evaluating

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

BATCH = 500
HOW = ("mixture", "draw", "precision")


@torch.no_grad()
def shared(model: Any, data: MultimodalData, how: str = "mixture", seed: int = 0) -> DiagonalGaussian:
    """One Gaussian per sample, (N, D) on the CPU, of whatever modalities it has.

    "mixture"    mean and variance of the mixture h(z | X) of those observed, with the objective's weights, 1/M without
                 a gate: where they disagree, the variance says so
    "draw"       a draw from h as the mean, and the width of the posterior that it was drawn from
    "precision"  the posteriors' normalised product (Laplaces taken for Gaussians): narrower with each, right or not

    Meaningful where the modalities share one latent space; independent VAEs do not, and of MMVAE+ it is the shared
    part alone. Raises `UserError`.
    """
    if how not in HOW:
        raise UserError(f"how={how!r} is unknown: use one of {', '.join(HOW)}")
    generator = torch.Generator().manual_seed(seed)
    parts = [_together(q, observed, weights, how, generator) for q, observed, weights in _posteriors(model, data)]
    return DiagonalGaussian(torch.cat([part.mean for part in parts]), torch.cat([part.logvar for part in parts]))


def _together(q: DiagonalGaussian, observed: Tensor, weights: Tensor, how: str,
              generator: torch.Generator) -> DiagonalGaussian:
    if how == "precision":
        return q.product(observed)
    if how == "draw":
        chosen = torch.multinomial(weights.t(), 1, generator=generator).squeeze(1)
        of = q[chosen, torch.arange(len(chosen))]
        return DiagonalGaussian(of.sample(generator), of.logvar)
    weights = weights.unsqueeze(-1)
    mean = (weights * q.mean).sum(0)
    return DiagonalGaussian(mean, (weights * (q.var + (q.mean - mean).square())).sum(0).log())


@torch.no_grad()
def compare(model: Any, data: MultimodalData, draws: int = 64, seed: int = 0) -> Tensor:
    """How far the modalities of each sample disagree, (N,) nats: the Jensen-Shannon divergence of the posteriors that
    are observed, 1/M sum_m KL(q_m || h), by `draws` draws from each; between 0 and log M, 0 for one modality alone.

    M times it is the regulariser of MMVM with equal weights (paper, section 4), so a pair that does not belong
    together stands out where the model has learned what belongs together. It saturates at log M where posteriors are
    narrow: rank within one model, and look at the largest.
    """
    if draws < 1:
        raise UserError(f"draws must be at least 1, got {draws}")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for q, observed, _ in _posteriors(model, data):
        log_weights = observed.double().log() - observed.sum(0).double().log()
        q = q.within_limits(q.mean.double(), q.logvar.double())
        samples = (q.sample(generator) for _ in range(draws))
        total = sum((q.log_prob(z) - q.mixture_log_prob(z, log_weights) for z in samples), start=q.mean.new_zeros(()))
        divergence = (total / draws).masked_fill(~observed, 0.0).sum(0) / observed.sum(0)
        found.append(divergence.clamp(min=0.0).minimum(observed.sum(0).double().log()).float())
    return torch.cat(found)


def _posteriors(model: Any, data: MultimodalData) -> Iterator[tuple[DiagonalGaussian, Tensor, Tensor]]:
    """(shared part of the posteriors (M, B, D), observed (M, B), weights (M, B)) on the CPU, in evaluation mode."""
    check_units(model, data)
    with evaluating(model) as device:
        for batch in data.batches(BATCH):
            observed = batch.observed.to(device)
            q = model.encode([x.to(device) for x in batch.x], observed, batch.trust)
            weights = model.objective.log_weights(q, observed).exp()
            q = model.objective.shared_part(q)
            q = DiagonalGaussian.within_limits(q.mean.float().cpu(), q.logvar.float().cpu())
            yield model.objective.posteriors(q), observed.cpu(), weights.float().cpu()


@torch.no_grad()
def fit_latent_density(model: Any, data: MultimodalData, n_components: int = 20, n: int = 5_000,
                       seed: int = 0) -> "GaussianMixture":
    """An ex-post density: a Gaussian mixture with full covariances on draws from the posteriors of n samples, all
    modalities pooled, that is on the average of h(z | X) over the data. Give it to `MultimodalVAE.generate`.

    Meaningful where modalities share one latent space (MMVM, joint models); independent VAEs do not.

    >>> density = fit_latent_density(model, data, n_components=2)
    >>> model.generate(5, density)["a"].shape
    torch.Size([5, 3])
    """
    from sklearn.mixture import GaussianMixture

    check_units(model, data)
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(data), generator=generator)[:n]
    draws = []
    with evaluating(model) as device:
        for batch in data.subset(index).to(device).batches(1_000):
            q = model.encode(batch.x, batch.observed)
            q = model.objective.posteriors(DiagonalGaussian(q.mean.cpu(), q.logvar.cpu()))
            draws.append(q.sample(generator)[batch.observed.cpu()])
    z = torch.cat(draws).double()
    least = 1e-4 * float(z.var(0).mean())  # relative: not every objective fixes the latents' scale
    return GaussianMixture(n_components, reg_covar=least, random_state=seed).fit(z.numpy())
