"""A fitted latent diffusion: how it samples, jointly and given any modalities, and how it is kept in a file."""

import json
import math
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmvm import paths
from mmvm.diffusion.denoiser import Denoiser, without
from mmvm.errors import UserError
from mmvm.files import digest, git_commit, read_safetensors, versions, write_safetensors
from mmvm.model import MultimodalVAE

FORMAT = "mmvm-diffusion-1"


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
                            f"{tuple(given.shape)}: it takes (M, B, D), M = {m} and D = {d}, and a bool tensor (M, B)")
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
        if (names := [modality.name for modality in model.modalities]) != self.names:
            raise UserError(f"this diffusion is over the latents of {self.names}, the model has {names}: use the model "
                            "that it was fitted to")
        if self.model != fingerprint(model):
            raise UserError("this diffusion was fitted to the latents of a model with other weights: use that model, "
                            "or fit another diffusion to this one")

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
        write_safetensors(paths.home(path), {"centre": self.centre, "scale": self.scale, "losses": self.losses,
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


def fingerprint(model: MultimodalVAE) -> str:
    """SHA-256 of a model's weights, wherever they are; what a network counts of its batches is no part of it."""
    return digest({name: weight.detach().cpu() for name, weight in model.named_parameters()})
