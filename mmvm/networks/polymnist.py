"""PolyMNIST: encoders, decoders and the digit classifier, small and as in the paper.

Widths and strides are the released code's (`ConvNetworksPolyMNIST.py`).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mmvm.errors import UserError


class ConvEncoder(nn.Module):
    """3x28x28 -> three 3x3 convolutions of stride 2 (14, 7, 4 pixels), `channels` x (1, 2, 4) wide -> mean, logvar."""

    def __init__(self, latent_dim: int, channels: int = 32):
        super().__init__()
        self.trunk = conv_trunk(channels)
        self.mean = nn.Linear(4 * channels * 16, latent_dim)
        self.logvar = nn.Linear(4 * channels * 16, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h), self.logvar(h)


class ConvDecoder(nn.Module):
    """Mirror of `ConvEncoder`, linear output (no sigmoid, as in the paper)."""

    def __init__(self, latent_dim: int, channels: int = 32):
        super().__init__()
        c = channels
        self.channels = c
        self.project = nn.Linear(latent_dim, 4 * c * 16)
        self.trunk = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(4 * c, 2 * c, 3, stride=2, padding=1), nn.ReLU(),                   # 4 -> 7
            nn.ConvTranspose2d(2 * c, c, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),     # 7 -> 14
            nn.ConvTranspose2d(c, 3, 3, stride=2, padding=1, output_padding=1),                    # 14 -> 28
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.trunk(self.project(z).view(-1, 4 * self.channels, 4, 4))


def conv_trunk(channels: int) -> nn.Sequential:
    """3x28x28 -> (64 x channels) features."""
    c = channels
    return nn.Sequential(
        nn.Conv2d(3, c, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(),
    )


class NormEncoder(nn.Module):
    """3x28x28 -> four 3x3 convolutions with batch normalisation, the first at full size (28, 14, 7, 4 pixels),
    `channels` x (1, 2, 4, 4) wide -> mean, logvar."""

    def __init__(self, latent_dim: int, channels: int = 16):
        super().__init__()
        c = channels
        widths = (3, c, 2 * c, 4 * c, 4 * c)
        self.trunk = nn.Sequential(*(layer for i, (n_in, n_out) in enumerate(zip(widths, widths[1:])) for layer in (
            nn.Conv2d(n_in, n_out, 3, stride=2 if i else 1, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())),
            nn.Flatten())
        self.mean = nn.Linear(64 * c, latent_dim)
        self.logvar = nn.Linear(64 * c, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h), self.logvar(h)


class NormDecoder(nn.Module):
    """Mirror of `NormEncoder`: 4 -> 7 -> 14 -> 28 pixels, the last convolution at full size, linear output."""

    def __init__(self, latent_dim: int, channels: int = 16):
        super().__init__()
        c = channels
        self.channels = c
        self.project = nn.Linear(latent_dim, 64 * c)
        widths = (4 * c, 4 * c, 2 * c, c)
        self.trunk = nn.Sequential(
            nn.BatchNorm2d(4 * c), nn.ReLU(),
            *(layer for i, (n_in, n_out) in enumerate(zip(widths, widths[1:])) for layer in (
                nn.ConvTranspose2d(n_in, n_out, 3, stride=2, padding=1, output_padding=1 if i else 0, bias=False),
                nn.BatchNorm2d(n_out), nn.ReLU())),
            nn.Conv2d(c, 3, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        return self.trunk(self.project(z).view(-1, 4 * self.channels, 4, 4))


class ResidualBlock(nn.Module):
    """x + 0.1 f(x), f = leaky ReLU, 3x3 convolution, leaky ReLU, 3x3 convolution; no normalisation.

    A bias-free 1x1 convolution carries the shortcut where the width changes.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        hidden = min(n_in, n_out)
        self.conv0 = nn.Conv2d(n_in, hidden, 3, padding=1)
        self.conv1 = nn.Conv2d(hidden, n_out, 3, padding=1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, bias=False) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        dx = self.conv0(F.leaky_relu(x, 0.2))
        dx = self.conv1(F.leaky_relu(dx, 0.2))
        return self.shortcut(x) + 0.1 * dx


class ResNetEncoder(nn.Module):
    """The paper's PolyMNIST encoder: 28 -> 14 -> 7 pixels, 64, 128, 256 channels, 12,544 features -> mean, logvar."""

    def __init__(self, latent_dim: int, channels: int = 64):
        super().__init__()
        self.trunk = resnet_trunk(channels)
        self.mean = nn.Linear(4 * channels * 49, latent_dim)
        self.logvar = nn.Linear(4 * channels * 49, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h), self.logvar(h)


class ResNetDecoder(nn.Module):
    """Mirror of `ResNetEncoder`: nearest-neighbour upsampling 7 -> 14 -> 28, linear output."""

    def __init__(self, latent_dim: int, channels: int = 64):
        super().__init__()
        c = channels
        self.channels = c
        self.project = nn.Linear(latent_dim, 4 * c * 49)
        self.trunk = nn.Sequential(
            ResidualBlock(4 * c, 2 * c), nn.Upsample(scale_factor=2),
            ResidualBlock(2 * c, c), nn.Upsample(scale_factor=2),
            ResidualBlock(c, c), nn.LeakyReLU(0.2),
            nn.Conv2d(c, 3, 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.trunk(self.project(z).view(-1, 4 * self.channels, 7, 7))


def resnet_trunk(channels: int) -> nn.Sequential:
    """3x28x28 -> (196 x channels) features."""
    c = channels
    return nn.Sequential(
        nn.Conv2d(3, c, 3, padding=1),
        ResidualBlock(c, c), nn.AvgPool2d(3, stride=2, padding=1),
        ResidualBlock(c, 2 * c), nn.AvgPool2d(3, stride=2, padding=1),
        ResidualBlock(2 * c, 4 * c),
        nn.Flatten(),
    )


class DigitClassifier(nn.Module):
    """Prepared images (B, 3, 28, 28) -> logits (B, C).

    `trunk="resnet"` is the paper's: the ResNet encoder's trunk, leaky ReLU and one linear layer
    (`ClfImgPolyMNIST.py`). "conv" is for CPUs: three 3x3 convolutions with max-pooling and dropout; the small
    encoder's own trunk, which strides where this one pools, stays below the 98 % that the paper asks for.
    """

    def __init__(self, trunk: str = "conv", channels: int | None = None, n_classes: int = 10):
        super().__init__()
        if trunk not in ("conv", "resnet"):
            raise UserError(f"unknown trunk {trunk!r}: use 'conv' or 'resnet'")
        if trunk == "resnet":
            channels = channels or 64
            self.trunk, n_features = resnet_trunk(channels), 196 * channels
        else:
            c = channels or 16
            self.trunk, n_features = nn.Sequential(
                nn.Conv2d(3, c, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),                       # 28 -> 14
                nn.Conv2d(c, 2 * c, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),                   # 14 -> 7
                nn.Conv2d(2 * c, 4 * c, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),               # 7 -> 3
                nn.Flatten(), nn.Dropout(0.3),
            ), 36 * c
        self.head = nn.Linear(n_features, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, (B, F): 576 numbers of the small one, 12,544 of the paper's."""
        return F.leaky_relu(self.trunk(x), 0.2)  # changes nothing where max-pooled ReLUs come in

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


NETWORKS = {"conv": (ConvEncoder, ConvDecoder), "norm": (NormEncoder, NormDecoder),
            "resnet": (ResNetEncoder, ResNetDecoder)}
