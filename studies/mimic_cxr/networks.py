"""MIMIC-CXR: encoders, decoders and classifiers of grey images of 224, 128 or 64 pixels (released code of the paper).

The released networks are those of bimodal CelebA with more blocks; at 64 pixels these are exactly CelebA's. Widths
are 1, 2, 3, 4, 5 x `channels` (paper: 64). Every network maps B images or latents at once; a batch of one can only
be evaluated, because the last block normalises over the batch alone.
"""

from torch import Tensor, nn

from mmvm.errors import UserError
from mmvm.options import Option

# per image size, the blocks of the encoder as (width in channels, kernel, stride, padding); the first convolution of
# kernel 3, stride 2 and padding 2 (at 224: 1) comes before them: 224 -> 112 -> 56 -> 28 -> 14 -> 4 -> 1 pixels
ENCODER = {224: ((2, 4, 2, 1), (3, 4, 2, 1), (4, 4, 2, 1), (5, 4, 4, 1), (5, 4, 2, 0)),
           128: ((2, 4, 2, 1), (3, 4, 2, 1), (4, 4, 2, 1), (5, 4, 2, 1), (5, 4, 2, 0)),
           64: ((2, 4, 2, 1), (3, 4, 2, 1), (4, 4, 2, 1), (5, 4, 2, 0))}
# those of the decoder, and the padding of its last convolution: 1 -> 4 -> 8 -> 16 -> 32 -> 64 -> 128 -> 224
DECODER = {224: (((4, 4, 1, 0), (3, 4, 2, 1), (2, 4, 2, 1), (1, 4, 2, 1), (1, 4, 2, 1), (1, 4, 2, 1)), 17),
           128: (((4, 4, 1, 0), (3, 4, 2, 1), (2, 4, 2, 1), (1, 4, 2, 1), (1, 4, 2, 1)), 1),
           64: (((4, 4, 1, 0), (3, 4, 2, 1), (2, 4, 2, 1), (1, 4, 2, 1)), 1)}
SIZES = tuple(ENCODER)
NETWORK_OPTIONS = {"residual": (
    Option("channels", 8, "width of the first convolution, the last is 5 times as wide", at_least=1, paper="64"),
    Option("dropout", 0.0, "share of silenced channels", at_least=0, at_most=0.99, paper="0.5"))}


class Block(nn.Module):
    """shortcut(x) + f(x): f is batch norm, ReLU, 1x1 convolution, dropout, batch norm, ReLU, convolution, dropout; the
    shortcut a convolution of the same stride and batch norm. No biases; dropout silences whole channels.

    `conv` is `nn.Conv2d` on the way in, `nn.ConvTranspose2d` on the way out. The paper's factors a and b are both 1.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, padding: int, dropout: float = 0.5,
                 conv: type[nn.Module] = nn.Conv2d):
        super().__init__()
        self.transform = nn.Sequential(
            nn.BatchNorm2d(n_in), nn.ReLU(), conv(n_in, n_in, 1, bias=False), nn.Dropout2d(dropout),
            nn.BatchNorm2d(n_in), nn.ReLU(), conv(n_in, n_out, kernel, stride, padding, bias=False),
            nn.Dropout2d(dropout))
        self.shortcut = nn.Sequential(conv(n_in, n_out, kernel, stride, padding, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.transform(x)


class XrayEncoder(nn.Module):
    """Prepared images (B, 1, size, size) -> mean, logvar, each (B, D), by two linear heads without bias on 5 x channels
    features."""

    def __init__(self, latent_dim: int, channels: int = 64, size: int = 224, dropout: float = 0.5):
        super().__init__()
        self.trunk = xray_trunk(channels, size, dropout)
        self.mean = nn.Linear(5 * channels, latent_dim, bias=False)
        self.logvar = nn.Linear(5 * channels, latent_dim, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h), self.logvar(h)


class XrayDecoder(nn.Module):
    """z (B, D) -> (B, 1, size, size): a linear layer to 5 x channels features, transposed blocks, a transposed
    convolution with a linear output."""

    def __init__(self, latent_dim: int, channels: int = 64, size: int = 224, dropout: float = 0.5):
        super().__init__()
        c, (stages, padding) = channels, _known(DECODER, size)
        self.project = nn.Linear(latent_dim, 5 * c)
        layers, width = [], 5
        for n_out, kernel, stride, pad in stages:
            layers.append(Block(width * c, n_out * c, kernel, stride, pad, dropout, nn.ConvTranspose2d))
            width = n_out
        self.trunk = nn.Sequential(*layers, nn.ConvTranspose2d(c, 1, 3, stride=2, padding=padding, output_padding=1))

    def forward(self, z: Tensor) -> Tensor:
        return self.trunk(self.project(z)[..., None, None])


class XrayClassifier(nn.Module):
    """Prepared images (B, 1, size, size) -> logits (B, C): the encoder's trunk, dropout and one linear layer, the
    paper's supervised reference."""

    def __init__(self, n_labels: int, channels: int = 64, size: int = 224, dropout: float = 0.5):
        super().__init__()
        self.trunk = xray_trunk(channels, size, dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(5 * channels, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.trunk(x)))


def xray_trunk(channels: int, size: int, dropout: float) -> nn.Sequential:
    """(B, 1, size, size) -> (B, 5 x channels) features."""
    c, width = channels, 1
    layers = [nn.Conv2d(1, c, 3, stride=2, padding=1 if size == 224 else 2, bias=False)]
    for n_out, kernel, stride, padding in _known(ENCODER, size):
        layers.append(Block(width * c, n_out * c, kernel, stride, padding, dropout))
        width = n_out
    return nn.Sequential(*layers, nn.Flatten())


def _known(stages: dict, size: int):
    if size not in stages:
        raise UserError(f"the networks know images of {', '.join(map(str, SIZES))} pixels, got size {size}")
    return stages[size]
