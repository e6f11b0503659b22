"""Multilayer perceptrons for spike counts (paper, appendix B.8; the released code of the rat experiment)."""

import torch
from torch import Tensor, nn

from mmvm.options import Option


class SpikeEncoder(nn.Module):
    """x (B, units, bins), flattened to n -> two hidden layers of leaky ReLUs (0.01) -> mean and logvar.

    bottleneck    the paper's: the hidden layers are followed by D numbers with a leaky ReLU of their own, from which
                  alone both heads read. Where one of the D starts negative for all samples it stays nearly constant,
                  and the latents fill a line or a point of their plane; so the default leaves it out. The released code
                  calls the second head logvar and uses it as log standard deviation; here it is what its name says
    width         of the hidden layers; 0: n, the paper's
    gain          x is multiplied by it first: means of 1-ms samples are small numbers
    dropout       share of the units that are silenced in training, other ones in each sample: few trials and many units
                  are easily learned by heart. The paper's: 0
    start_logvar  log variance of the untrained encoder: where it is about 0 (the paper's), hundreds of updates go by
                  before a decoder hears anything but noise
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, width: int = 0, gain: float = 1.0,
                 dropout: float = 0.0, start_logvar: float = 0.0, bottleneck: bool = False):
        super().__init__()
        n = int(torch.Size(shape).numel())
        width = width or n
        self.gain = gain
        self.silence = nn.Dropout1d(dropout)
        layers = [nn.Linear(n, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU()]
        if bottleneck:
            layers += [nn.Linear(width, latent_dim), nn.LeakyReLU()]
        self.trunk = nn.Sequential(*layers)
        n_read = latent_dim if bottleneck else width
        self.mean = nn.Linear(n_read, latent_dim)
        self.logvar = nn.Linear(n_read, latent_dim)
        if start_logvar:
            nn.init.constant_(self.logvar.bias, start_logvar)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(self.gain * self.silence(x).flatten(1))
        return self.mean(h), self.logvar(h)


class SpikeDecoder(nn.Module):
    """z (B, D) -> two hidden layers -> one number per unit and bin: the mean, or the log rate of a Poisson likelihood.

    start_at (units, bins) is what the untrained decoder gives on average: few updates are then not spent on finding the
    units' mean rates. None: zero, the paper's.
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, width: int = 0, start_at: Tensor | None = None):
        super().__init__()
        self.shape = tuple(shape)
        n = int(torch.Size(shape).numel())
        width = width or n
        self.trunk = nn.Sequential(nn.Linear(latent_dim, width), nn.LeakyReLU(), nn.Linear(width, width),
                                   nn.LeakyReLU())
        self.out = nn.Linear(width, n)
        if start_at is not None:
            with torch.no_grad():
                self.out.bias.copy_(start_at.expand(self.shape).flatten())

    def forward(self, z: Tensor) -> Tensor:
        return self.out(self.trunk(z)).view(-1, *self.shape)


class OdorClassifier(nn.Module):
    """x (B, units, bins) -> hidden layers of `widths` -> logits (B, C). The paper's widths: 1024, 512, 256, 64."""

    def __init__(self, shape: tuple[int, ...], n_classes: int, widths: tuple[int, ...] = (1024, 512, 256, 64)):
        super().__init__()
        sizes = [int(torch.Size(shape).numel()), *widths]
        hidden = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], n_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


NETWORK_OPTIONS = {"dense": (
    Option("width", 64, "of the hidden layers; 0: as wide as the input", at_least=0, paper="0"),
    Option("bottleneck", False, "encoders squeeze into D numbers before their two heads", paper="true"),
    Option("input_scale", 1.0, "what an encoder sees of one spike", above=0, paper="0.1"),
    Option("dropout", 0.5, "share of the units silenced while an encoder is trained", at_least=0, at_most=0.99,
           paper="0"),
    Option("start_logvar", -6.0, "log variance of the untrained encoders", paper="about 0"),
    Option("start_at_mean", True, "decoders start at the units' mean rates", paper="false"))}
