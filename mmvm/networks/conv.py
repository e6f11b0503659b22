"""Small convolutional encoders and decoders of 3 x 28 x 28 images."""

from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """3x28x28 -> three 3x3 convolutions of stride 2 (14, 7, 4 pixels), `channels` x (1, 2, 4) wide -> mean, logvar.

    >>> mean, logvar = mmvm.networks.ConvEncoder(latent_dim=8)(torch.zeros(5, 3, 28, 28))
    >>> mean.shape
    torch.Size([5, 8])
    """

    def __init__(self, latent_dim: int, channels: int = 32):
        super().__init__()
        c = channels
        self.trunk = nn.Sequential(
            nn.Conv2d(3, c, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        )
        self.mean = nn.Linear(64 * c, latent_dim)
        self.logvar = nn.Linear(64 * c, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h), self.logvar(h)


class ConvDecoder(nn.Module):
    """Mirror of `ConvEncoder`: z (B, D) -> (B, 3, 28, 28), linear (no sigmoid, as in the paper).

    >>> mmvm.networks.ConvDecoder(latent_dim=8)(torch.zeros(5, 8)).shape
    torch.Size([5, 3, 28, 28])
    """

    def __init__(self, latent_dim: int, channels: int = 32):
        super().__init__()
        self.channels = c = channels
        self.project = nn.Linear(latent_dim, 4 * c * 16)
        self.trunk = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(4 * c, 2 * c, 3, stride=2, padding=1), nn.ReLU(),                   # 4 -> 7
            nn.ConvTranspose2d(2 * c, c, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),     # 7 -> 14
            nn.ConvTranspose2d(c, 3, 3, stride=2, padding=1, output_padding=1),                    # 14 -> 28
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.trunk(self.project(z).view(-1, 4 * self.channels, 4, 4))
