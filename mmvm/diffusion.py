"""A prior that can be sampled, fitted to a trained model's latents: diffusion over all modalities at once.

MMVM defines no p(z) to sample from (paper, section 6). `fit_latent_diffusion` learns one afterwards over the M latents
of a sample, which stay apart where the Gaussian mixture of `fit_latent_density` pools them: one z for all modalities
knows neither which of them it comes from nor what is theirs alone. After MLD (arXiv 2306.04445), here on draws from
posteriors instead of deterministic codes: one noise time per modality, so that the same network gives joint samples and
samples of any modalities given any others.

Time t runs from 0 (the latent) to 1 (noise): z_t = cos(a) z + sin(a) e with a = pi t / 2, the cosine schedule. The
network gives v = dz_t / da = cos(a) e - sin(a) z (arXiv 2202.00512), so sampling is to integrate v from noise to 0.

Letters: M modalities, B batch or samples, D latent.
"""

import copy
import json
import math
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmvm import paths
from mmvm.data import MultimodalData, check_units
from mmvm.errors import UserError
from mmvm.files import digest, git_commit, read_safetensors, versions, write_safetensors
from mmvm.gaussian import DiagonalGaussian
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import evaluating
from mmvm.schedule import Schedule
from mmvm.training import TrainingDiverged

__all__ = ["LatentDiffusion", "fit_latent_diffusion"]

FORMAT = "mmvm-diffusion-1"
BATCH = 500        # samples that are encoded at once
FREQUENCIES = 16   # of the sines and cosines that tell a network the time
FASTEST = 60.0     # of them, in radians over the whole of time; the slowest goes a quarter of a turn
LOOK = 50          # updates between two looks at the loss: each waits for the device
PIECES = 20        # means of the loss that are kept of a training


class Denoiser(nn.Module):
    """Noisy latents and their times -> v. A residual MLP over the M latents side by side; the M times set scale and
    shift of every block. It begins as v = 0, which is right for latents that are independent N(0, I)."""

    def __init__(self, n_modalities: int, latent_dim: int, width: int = 512, blocks: int = 4):
        super().__init__()
        n = n_modalities * latent_dim
        self.shape = (n_modalities, latent_dim)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES * n_modalities, width), nn.SiLU())
        self.into = nn.Linear(n, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(blocks)])
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n))
        nn.init.zeros_(self.out[1].weight)
        nn.init.zeros_(self.out[1].bias)

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        """(M, B, D) and times (M, B) from 0 to 1 -> (M, B, D)."""
        rates = torch.logspace(math.log10(math.pi / 2), math.log10(FASTEST), FREQUENCIES, device=z.device)
        angles = (time.t().unsqueeze(-1) * rates).flatten(1)
        told = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.into(z.transpose(0, 1).flatten(1))
        for block in self.blocks:
            h = block(h, told)
        return self.out(h).unflatten(1, self.shape).transpose(0, 1)


class Block(nn.Module):
    """h + MLP(h), its input normalised, scaled and shifted by what is told of the times; both (B, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.told = nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told).chunk(2, 1)
        return h + self.mlp(self.norm(h) * (1 + scale) + shift)


class LatentDiffusion:
    """A density over the latents of all modalities, of `fit_latent_diffusion` or `LatentDiffusion.load`.

    names     of the M modalities
    network   (z (M, B, D), times (M, B)) -> v (M, B, D), on standardised latents
    centre, scale   (M, D), mean and standard deviation of the latents
    model     the fingerprint of the model whose latents these are
    steps     of the sampler (Heun's, two passes of the network each); more are more exact; may be set at any time
    guidance  of conditional samples: 1 samples the conditional as it was learned, more exaggerates what sets it apart
              from the marginal, 0 samples the marginal and ignores what is given; may be set at any time
    losses    means over up to 20 pieces of the training, of the squared error of v per latent dimension: 1 for latents
              of which nothing was learned

    Draws come from torch's random numbers on the CPU, or from a `generator`, on any device the same.

    >>> density = fit_latent_diffusion(model, data, updates=2, width=8)
    >>> density.sample(5).shape  # (M, n, D)
    torch.Size([2, 5, 2])
    >>> sorted(model.generate(5, density))
    ['a', 'b']
    >>> model.impute({"a": a}, targets="b", density=density)["b"].shape
    torch.Size([60, 2])
    """

    def __init__(self, names: Sequence[str], network: Callable[[Tensor, Tensor], Tensor], centre: Tensor,
                 scale: Tensor, model: str = "", steps: int = 40, guidance: float = 1.0, losses: Tensor | None = None):
        self.names, self.network, self.model = list(names), network, model
        self.centre, self.scale = centre, scale
        self.steps, self.guidance = steps, guidance
        self.losses = torch.zeros(0) if losses is None else losses

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n joint samples, (M, n, D): what each modality's decoder makes its part of. Raises `UserError`."""
        m, d = self.centre.shape
        if n < 1:
            raise UserError(f"{n} samples asked for: ask for at least 1")
        return self.sample_given(self.centre.new_zeros(m, n, d), torch.zeros(m, n, dtype=torch.bool), generator)

    @torch.no_grad()
    def sample_given(self, z: Tensor, given: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The latents z (M, B, D) where they are `given` (M, B), bool, and one joint draw of all others given these,
        whatever z holds there: (M, B, D). Each sample may have its own subset. Raises `UserError`."""
        m, d = self.centre.shape
        if z.ndim != 3 or (len(z), z.shape[-1]) != (m, d) or given.shape != z.shape[:2] or given.dtype != torch.bool:
            raise UserError(f"latents of shape {tuple(z.shape)} and `given`, {given.dtype} of shape "
                            f"{tuple(given.shape)}: this diffusion takes (M, B, D) with M = {m} and D = {d}, and a "
                            "bool tensor (M, B)")
        if self.steps < 1:
            raise UserError(f"a sampler of {self.steps} steps: set `steps` to at least 1, 30 to 50 are usual")
        z, given = z.to(self.centre), given.to(self.centre.device)
        keep, centre, scale = given.unsqueeze(-1), self.centre.unsqueeze(1), self.scale.unsqueeze(1)
        noise = torch.randn(z.shape, generator=generator).to(z)
        now = torch.where(keep, (z - centre) / scale, noise)
        for i in range(self.steps, 0, -1):
            step, time = math.pi / 2 / self.steps, i / self.steps
            v = self._velocity(now, time, given)
            if i > 1:  # Heun's
                ahead = self._velocity(torch.where(keep, now, now - step * v), time - 1 / self.steps, given)
                then = now - step / 2 * (v + ahead)
            else:  # to the latent that is expected: time 0 means given, so no v is known there
                then = math.cos(step) * now - math.sin(step) * v
            now = torch.where(keep, now, then)
        return torch.where(keep, z, centre + scale * now)

    def _velocity(self, z: Tensor, time: float, given: Tensor) -> Tensor:
        times = torch.full(given.shape, time, device=z.device)
        v = self.network(z, times.masked_fill(given, 0.0))
        if self.guidance == 1 or not bool(given.any()):
            return v
        free = self.network(*without(z, times, given))
        return free + self.guidance * (v - free)

    def check(self, model: MultimodalVAE) -> None:
        """Raises `UserError` where this is a density over the latents of another model."""
        names = [modality.name for modality in model.modalities]
        if names != self.names:
            raise UserError(f"this diffusion is over the latents of {self.names}, the model has {names}: use the model "
                            "that it was fitted to")
        if self.model != fingerprint(model):
            raise UserError("this diffusion was fitted to the latents of a model with other weights: use that model, or "
                            "fit_latent_diffusion to this one")

    def to(self, device: torch.device | str) -> "LatentDiffusion":
        """Moves it, and returns it."""
        self.centre, self.scale = self.centre.to(device), self.scale.to(device)
        if isinstance(self.network, nn.Module):
            self.network.to(device)
        return self

    def save(self, path: str | os.PathLike) -> None:
        """Writes all that is needed to sample into one safetensors file, not the model. Raises `UserError`."""
        if not isinstance(self.network, Denoiser):
            raise UserError(f"a {type(self.network).__name__} as the network cannot be kept: save what "
                            "fit_latent_diffusion gave")
        write_safetensors(paths.home(path), {
            "centre": self.centre, "scale": self.scale, "losses": self.losses,
            **{f"network.{name}": value for name, value in self.network.state_dict().items()}}, {
            "format": FORMAT, "names": json.dumps(self.names), "model": self.model, "steps": str(self.steps),
            "guidance": repr(float(self.guidance)), "versions": json.dumps(versions()), "commit": git_commit()})

    @classmethod
    def load(cls, path: str | os.PathLike, model: MultimodalVAE | None = None) -> "LatentDiffusion":
        """What `save` wrote, bit for bit, on the CPU; with `model`, checked to be of its latents. Raises `UserError`
        for a missing, cut, changed or foreign file, and for another model's."""
        path = paths.home(path)
        tensors, about = read_safetensors(path, FORMAT, "kept diffusion", "`LatentDiffusion.save`")
        weights = {name.removeprefix("network."): x for name, x in tensors.items() if name.startswith("network.")}
        try:
            (m, d), names = tensors["centre"].shape, json.loads(about["names"])
            if len(names) != m or tensors["scale"].shape != (m, d):
                raise ValueError(f"{len(names)} names, latents of shape {(m, d)}")
            with torch.device("meta"):  # whatever sizes a file may claim, it takes no memory but its own
                blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
                network = Denoiser(m, d, len(weights["into.bias"]), len(blocks))
            network.load_state_dict(weights, assign=True)
            found = cls(names, network.eval().requires_grad_(False), tensors["centre"], tensors["scale"],
                        about["model"], int(about["steps"]), float(about["guidance"]), tensors["losses"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{path} cannot be rebuilt ({str(error).splitlines()[0]:.200}): fit and save it anew with "
                            "this version") from None
        if model is not None:
            found.check(model)
        return found


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
    those that are noised. A modality that is not observed is neither read nor in the loss. Holds means and variances of
    all posteriors in memory, 8 bytes times M, N and D. Meaningful for methods that decode modality m from z_m, such as
    MMVM and independent VAEs. Raises `UserError`, `TrainingDiverged`.

    >>> density = fit_latent_diffusion(model, data, updates=100, batch_size=30, width=16, blocks=1)
    >>> both = density.sample(4, torch.Generator().manual_seed(0))
    >>> other = density.sample_given(both, torch.tensor([[True], [False]]).expand(2, 4))  # of "b", given "a"
    >>> bool((other[0] == both[0]).all()), bool((other[1] == both[1]).all())
    (True, False)
    """
    _check(model, data, drop, average, updates=updates, batch_size=batch_size, learning_rate=learning_rate, width=width,
           blocks=blocks)
    q, observed = _posteriors(model, data)
    keep, count = observed.unsqueeze(-1), observed.sum(1, keepdim=True)
    centre = (q.mean * keep).sum(1) / count
    moved = q.mean - centre.unsqueeze(1)
    scale = (((moved.square() + q.var) * keep).sum(1) / count).sqrt().clamp(min=1e-6)
    q = DiagonalGaussian(moved / scale.unsqueeze(1), q.logvar - 2 * scale.log().unsqueeze(1))
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        network = Denoiser(*centre.shape, width, blocks)
    averaged, losses = _train(network.to(centre.device), q, observed, updates, batch_size, learning_rate, average, drop,
                              torch.Generator().manual_seed(seed))
    return LatentDiffusion(data.names, averaged, centre, scale, fingerprint(model), losses=losses)


def _check(model: MultimodalVAE, data: MultimodalData, drop: float, average: float, **numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise UserError(f"{name} must be positive, got {value}")
    if not (0 <= drop < 1 and 0 <= average < 1):
        raise UserError(f"drop={drop}, average={average}: both must be at least 0 and less than 1")
    names = [modality.name for modality in model.modalities]
    if names != data.names:
        raise UserError(f"the data's modalities are {data.names}, the model's {names}: give the data that it was "
                        "trained on")
    check_units(model, data)
    never = [name for name, present in zip(names, data.observed) if not present.any()]
    if never:
        raise UserError(f"modality {never[0]!r} is observed in no sample, so nothing is known of its latents: give "
                        "samples that have it")
    if not (data.observed.sum(0) > 1).any():
        raise UserError("no sample has two observed modalities, so nothing tells how their latents belong together: "
                        "give samples that have two or more, or use fit_latent_density")


@torch.no_grad()
def _posteriors(model: MultimodalVAE, data: MultimodalData) -> tuple[DiagonalGaussian, Tensor]:
    """Of all samples, (M, N, D) and `observed` (M, N), on the model's device; in evaluation mode."""
    means, logvars, observed = [], [], []
    with evaluating(model) as device:
        for batch in data.batches(BATCH):
            observed.append(batch.observed.to(device))
            q = model.encode([x.to(device) for x in batch.x], observed[-1])
            means.append(q.mean.float()), logvars.append(q.logvar.float())
    return DiagonalGaussian.within_limits(torch.cat(means, 1), torch.cat(logvars, 1)), torch.cat(observed, 1)


def _train(network: Denoiser, q: DiagonalGaussian, observed: Tensor, updates: int, batch_size: int, learning_rate: float,
           average: float, drop: float, generator: torch.Generator) -> tuple[Denoiser, Tensor]:
    """The averaged network, and the means of the loss over pieces of the training."""
    averaged, losses = copy.deepcopy(network), []
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    rate = Schedule(learning_rate, 0.0, updates, "cosine")
    for update in tqdm(range(updates), "latent diffusion", disable=None):
        index = torch.randint(observed.shape[1], (batch_size,), generator=generator).to(observed.device)
        drawn = q[:, index]
        z = drawn.mean + drawn.std * torch.randn(drawn.shape, generator=generator).to(observed.device)
        found = loss(network, z, observed[:, index], drop, generator)
        for group in optimizer.param_groups:
            group["lr"] = rate(update)
        optimizer.zero_grad(set_to_none=True)
        found.backward()
        optimizer.step()
        follow(averaged, network, min(average, (1 + update) / (10 + update)))
        losses.append(found.detach())
        if (update % LOOK == LOOK - 1 or update == updates - 1) and not bool(found.isfinite()):
            raise TrainingDiverged(f"the loss of the latent diffusion was {float(found):.4g} at update {update}: try a "
                                   "smaller learning_rate, and see that model.encode gives finite latents")
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
    """What is noised (M, B), of the observed: with probability 1/2 all, else a proper subset that is not empty."""
    some = (torch.rand(observed.shape, generator=generator) < 0.5).to(observed.device) & observed
    order = torch.rand(observed.shape, generator=generator).to(observed.device)
    one = torch.zeros_like(observed).scatter_(0, order.masked_fill(~observed, -1.0).argmax(0, keepdim=True), True)
    count = observed.sum(0)
    some ^= one & ((some.sum(0) == 0) | (some.sum(0) == count))  # one more than none, one less than all
    everything = (torch.rand(len(count), generator=generator) < 0.5).to(observed.device) | (count == 1)
    return torch.where(everything, observed, some)


def without(z: Tensor, times: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with what is `hidden` (M, B) as at time 1, when nothing is left of it."""
    return z.masked_fill(hidden.unsqueeze(-1), 0.0), times.masked_fill(hidden, 1.0)


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """averaged = decay * averaged + (1 - decay) * network, weight by weight."""
    for own, new in zip(averaged.parameters(), network.parameters()):
        own.lerp_(new, 1 - decay)


def fingerprint(model: MultimodalVAE) -> str:
    """SHA-256 of a model's weights, wherever they are; what a network counts of its batches is no part of it."""
    return digest({name: weight.detach().cpu() for name, weight in model.named_parameters()})
