"""The plain program that everything is compared with.

float32, one modality after the other, written from the paper's equations with PyTorch's own distributions and default
optimiser, data as PNG files or in memory. It shares the networks' classes with `mmvm` and nothing else.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributions import Laplace, Normal, kl_divergence


class Reference(nn.Module):
    """MMVM VAE with the released code's bound: -sum_m log p(x_m | z_m) + beta / M sum_m sum_n KL(q_m || q_n)."""

    def __init__(self, encoders: list[nn.Module], decoders: list[nn.Module], beta: float = 1.0, scale: float = 0.75):
        super().__init__()
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)
        self.beta, self.scale = beta, scale

    def loss(self, x: list[Tensor]) -> Tensor:
        """The mean over the batch; x are M images (B, 3, 28, 28) in [0, 1]."""
        posteriors, log_likelihood = [], 0.0
        for encoder, decoder, x_m in zip(self.encoders, self.decoders, x):
            mean, logvar = encoder(x_m)
            q = Normal(mean, torch.exp(0.5 * logvar))
            posteriors.append(q)
            log_likelihood = log_likelihood + Laplace(decoder(q.rsample()), self.scale).log_prob(x_m).flatten(1).sum(1)
        divergence = 0.0
        for q in posteriors:
            for p in posteriors:
                divergence = divergence + kl_divergence(q, p).sum(1) / len(posteriors)
        return (-log_likelihood + self.beta * divergence).mean()


def train_step(model: Reference, optimizer: torch.optim.Optimizer, x: list[Tensor]) -> None:
    optimizer.zero_grad()
    loss = model.loss(x)
    loss.backward()
    optimizer.step()


def write_pngs(folder: Path, modalities: list[Tensor], labels: Tensor) -> None:
    """The released layout: m0/<i>.<digit>.png, ..."""
    for m, images in enumerate(modalities):
        (folder / f"m{m}").mkdir(parents=True, exist_ok=True)
        for i, (image, label) in enumerate(zip(images, labels)):
            Image.fromarray(np.moveaxis(image.numpy(), 0, -1)).save(folder / f"m{m}" / f"{i}.{int(label)}.png")


class PNGs(torch.utils.data.Dataset):
    """One tuple an item, each image opened and converted when it is asked for."""

    def __init__(self, folder: Path):
        self.files = [sorted(m.glob("*.png"), key=lambda path: int(path.name.split(".")[0]))
                      for m in sorted(folder.glob("m*"))]

    def __len__(self) -> int:
        return len(self.files[0])

    def __getitem__(self, i: int) -> list[Tensor]:
        return [torch.from_numpy(np.asarray(Image.open(files[i])).copy()).permute(2, 0, 1).float() / 255
                for files in self.files]
