"""How a latent diffusion is fitted to the posteriors of a trained model, which stays as it is."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmvm.data import MultimodalData, check_units
from mmvm.diffusion.denoiser import Denoiser, without
from mmvm.diffusion.density import LatentDiffusion, fingerprint
from mmvm.errors import UserError
from mmvm.evaluation.encodings import posteriors
from mmvm.gaussian import DiagonalGaussian
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import seeded
from mmvm.schedule import Schedule, check_number
from mmvm.training import TrainingDiverged

LOOK = 50    # updates between two looks at the loss: each waits for the device
PIECES = 20  # means of the loss that are kept of a training


def fit_latent_diffusion(model: MultimodalVAE, data: MultimodalData, *, updates: int = 5_000, batch_size: int = 256,
                         learning_rate: float = 1e-3, width: int = 512, blocks: int = 4, average: float = 0.999,
                         drop: float = 0.1, seed: int = 0) -> LatentDiffusion:
    """A diffusion over the latents of `model`, which is not changed, on draws from its posteriors of `data`, fresh ones
    at every update. Give it to `MultimodalVAE.generate` and `MultimodalVAE.impute`. It stays on the model's device.

    batch_size     samples of an update, drawn with replacement
    learning_rate  of Adam at the start; goes to 0 on a cosine
    width, blocks  of the residual MLP
    average        decay of the exponential average of the weights, which is what samples (in the first updates less)
    drop           share of the updates' samples whose condition is hidden, for `guidance` other than 1
    seed           decides the fit, bit for bit on a CPU with the same number of threads

    In half of the samples all modalities are noised, in the others some, the rest staying as they are; the loss is of
    those that are noised. A modality that is not observed is neither read nor in the loss. Takes memory of up to 24
    bytes times M, N and D for the posteriors. Meaningful for methods that decode modality m from z_m, such as
    MMVM and independent VAEs. Raises `UserError`, `TrainingDiverged`.

    >>> density = fit_latent_diffusion(model, data, updates=100, batch_size=30, width=16, blocks=1)
    >>> both = density.sample(4, torch.Generator().manual_seed(0))
    >>> other = density.sample_given(both, torch.tensor([[True], [False]]).expand(2, 4))  # of "b", given "a"
    >>> bool((other[0] == both[0]).all()), bool((other[1] == both[1]).all())
    (True, False)
    """
    _check(model, data, drop, average, updates=updates, batch_size=batch_size, learning_rate=learning_rate, width=width,
           blocks=blocks)
    device = next(model.parameters()).device
    q, observed = posteriors(model, data)
    q, observed = q.within_limits(q.mean.float().to(device), q.logvar.float().to(device)), observed.to(device)
    keep, count = observed.unsqueeze(-1), observed.sum(1, keepdim=True)
    centre = (q.mean * keep).sum(1) / count
    moved = q.mean - centre.unsqueeze(1)
    scale = (((moved.square() + q.var) * keep).sum(1) / count).sqrt().clamp(min=1e-6)
    q = type(q)(moved / scale.unsqueeze(1), q.logvar - 2 * scale.log().unsqueeze(1))
    with seeded(seed):
        network = Denoiser(len(centre), centre.shape[1], width, blocks)
    averaged, losses = _train(network.to(centre.device), q, observed, updates, batch_size, learning_rate, average, drop,
                              torch.Generator().manual_seed(seed))
    return LatentDiffusion(data.names, averaged, centre, scale, fingerprint(model), losses=losses)


def _check(model: MultimodalVAE, data: MultimodalData, drop: float, average: float, **numbers: float) -> None:
    for name, value in numbers.items():
        check_number(name, value)
    if not (0 <= drop < 1 and 0 <= average < 1):
        raise UserError(f"drop={drop}, average={average}: both must be at least 0 and less than 1")
    check_units(model, data)
    if never := [name for name, present in zip(data.names, data.observed) if not present.any()]:
        raise UserError(f"modality {never[0]!r} is observed in no sample, so nothing is known of its latents: give "
                        "samples that have it")
    if not (data.observed.sum(0) > 1).any():
        raise UserError("no sample has two observed modalities, so nothing tells how their latents belong together: "
                        "give samples that have two or more, or use fit_latent_density")


def _train(network: Denoiser, q: DiagonalGaussian, observed: Tensor, updates: int, batch_size: int,
           learning_rate: float, average: float, drop: float, generator: torch.Generator) -> tuple[Denoiser, Tensor]:
    """The averaged network, and the means of the loss over pieces of the training."""
    averaged, losses = copy.deepcopy(network), []
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    rate, usable = Schedule(learning_rate, 0.0, updates, "cosine"), observed.any(0).nonzero().flatten()
    for update in tqdm(range(updates), "latent diffusion", disable=None):
        index = usable[torch.randint(len(usable), (batch_size,), generator=generator).to(usable.device)]
        drawn = q[:, index]
        z = drawn.mean + drawn.std * drawn.noise(drawn.shape, torch.zeros(()), generator).to(observed.device)
        found = loss(network, z, observed[:, index], drop, generator)
        for group in optimizer.param_groups:
            group["lr"] = rate(update)
        optimizer.zero_grad(set_to_none=True)
        found.backward()
        optimizer.step()
        follow(averaged, network, min(average, (1 + update) / (10 + update)))
        losses.append(found.detach())
        if (update % LOOK == LOOK - 1 or update == updates - 1) and not bool(losses[-1].isfinite()):
            raise TrainingDiverged(f"the loss of the latent diffusion was {float(losses[-1]):.4g} at update {update}: "
                                   "try a smaller learning_rate, and see that model.encode gives finite latents")
    means = [piece.mean() for piece in torch.stack(losses).tensor_split(min(PIECES, updates))]
    return averaged.eval().requires_grad_(False), torch.stack(means).cpu()


def loss(network: Callable[[Tensor, Tensor], Tensor], z: Tensor, observed: Tensor, drop: float,
         generator: torch.Generator) -> Tensor:
    """Mean squared error of v, per latent dimension of what was noised, for latents (M, B, D) and `observed` (M, B)."""
    batch, there = z.shape[1], z.device
    noised = chosen(observed, generator)
    hidden = torch.rand(batch, generator=generator).to(there) < drop
    # evenly spread over (0, 1), for a loss of less variance
    time = ((torch.rand(1, generator=generator) + torch.arange(batch) / batch) % 1.0).to(there)
    cos, sin = (time * math.pi / 2).cos().unsqueeze(-1), (time * math.pi / 2).sin().unsqueeze(-1)
    noise = torch.randn(z.shape, generator=generator).to(there)
    z = z.masked_fill(~observed.unsqueeze(-1), 0.0)
    noisy = torch.where(noised.unsqueeze(-1), cos * z + sin * noise, z)
    v = network(*without(noisy, time * noised, ~observed | (hidden & ~noised)))
    squared = (v - cos * noise + sin * z).square().sum(-1)
    return squared.masked_fill(~noised, 0.0).sum() / (noised.sum() * z.shape[-1])


def chosen(observed: Tensor, generator: torch.Generator) -> Tensor:
    """What is noised (M, B), of the observed: with probability 1/2 all, else a proper subset that is not empty, of
    every size equally often, so that one modality alone is given as often as all but one."""
    order = torch.rand(observed.shape, generator=generator).to(observed.device).masked_fill(~observed, 2.0)
    size, everything = torch.rand(2, observed.shape[1], generator=generator).to(observed.device)
    count = observed.sum(0)
    some = order.argsort(0).argsort(0) < 1 + (size * (count - 1)).floor()
    return torch.where((everything < 0.5) | (count == 1), observed, some)


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """averaged = decay * averaged + (1 - decay) * network, weight by weight."""
    for own, new in zip(averaged.parameters(), network.parameters()):
        own.lerp_(new, 1 - decay)
