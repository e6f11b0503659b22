"""Residual encoder and decoder of 3 x 28 x 28 images, the larger ones of the paper's two sets of networks."""

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + 0.1 f(x), f = leaky ReLU, 3x3 convolution, leaky ReLU, 3x3 convolution; no normalisation.

    A bias-free 1x1 convolution carries the shortcut where the width changes.

    >>> mmvm.networks.ResidualBlock(4, 8)(torch.zeros(1, 4, 7, 7)).shape
    torch.Size([1, 8, 7, 7])
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
    """The paper's encoder: 28 -> 14 -> 7 pixels, 64, 128, 256 channels, 12,544 features -> mean, logvar,
    each (B, D), of x (B, 3, 28, 28).

    >>> mean, logvar = mmvm.networks.ResNetEncoder(latent_dim=8, channels=4)(torch.zeros(1, 3, 28, 28))
    >>> mean.shape
    torch.Size([1, 8])
    """

    def __init__(self, latent_dim: int, channels: int = 64):
        super().__init__()
        self.trunk = resnet_trunk(channels)
        self.mean = nn.Linear(4 * channels * 49, latent_dim)
        self.logvar = nn.Linear(4 * channels * 49, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h), self.logvar(h)


class ResNetDecoder(nn.Module):
    """Mirror of `ResNetEncoder`: z (B, D) -> (B, 3, 28, 28), nearest-neighbour upsampling 7 -> 14 -> 28, linear output.

    >>> mmvm.networks.ResNetDecoder(latent_dim=8, channels=4)(torch.zeros(1, 8)).shape
    torch.Size([1, 3, 28, 28])
    """

    def __init__(self, latent_dim: int, channels: int = 64):
        super().__init__()
        self.channels = c = channels
        self.project = nn.Linear(latent_dim, 4 * c * 49)
        self.trunk = nn.Sequential(
            ResidualBlock(4 * c, 2 * c), nn.Upsample(scale_factor=2),
            ResidualBlock(2 * c, c), nn.Upsample(scale_factor=2),
            ResidualBlock(c, c), nn.LeakyReLU(0.2), nn.Conv2d(c, 3, 3, padding=1),
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
        ResidualBlock(2 * c, 4 * c), nn.Flatten(),
    )
