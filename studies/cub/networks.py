"""Encoders and decoders of images of 64 x 64 and of captions, and the attribute classifiers (paper appendix B.6).

Image networks map (B, 3, 64, 64) to (mean, logvar), each (B, D), and z (B, D) back, through a sigmoid. Text networks
take token numbers (B, 32) and give logits (B, V, 32). Widths and strides are the released code's; a text encoder looks
at the embedded sentence as at a picture of 32 words by `embedding_dim`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvm.errors import UserError
from mmvm.options import Option
from studies.cub.captions import EOS, PAD


class ImageEncoder(nn.Module):
    """Four 4x4 convolutions of stride 2 (64 -> 4 pixels), c, 2c, 4c, 8c wide, ReLU; a 4x4 convolution per head.

    `channels` c; paper: 64.
    """

    def __init__(self, latent_dim: int, channels: int = 64):
        super().__init__()
        self.trunk = image_trunk(channels)
        self.mean = nn.Conv2d(8 * channels, latent_dim, 4)
        self.logvar = nn.Conv2d(8 * channels, latent_dim, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h).flatten(1), self.logvar(h).flatten(1)  # the released squeeze() also drops a batch of one


class ImageDecoder(nn.Module):
    """Mirror of `ImageEncoder`; the mean of the Laplace likelihood goes through a sigmoid."""

    def __init__(self, latent_dim: int, channels: int = 64):
        super().__init__()
        c = channels
        self.trunk = nn.Sequential(
            nn.ConvTranspose2d(latent_dim, 8 * c, 4), nn.ReLU(),
            *(layer for n in (8, 4, 2) for layer in (
                nn.ConvTranspose2d(n * c, n * c // 2, 4, stride=2, padding=1), nn.ReLU())),
            nn.ConvTranspose2d(c, 3, 4, stride=2, padding=1), nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.trunk(z[..., None, None])


def image_trunk(channels: int) -> nn.Sequential:
    """(B, 3, 64, 64) -> (B, 8 x channels, 4, 4)."""
    c = channels
    widths = (3, c, 2 * c, 4 * c, 8 * c)
    return nn.Sequential(*(layer for n_in, n_out in zip(widths, widths[1:]) for layer in (
        nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), nn.ReLU())))


class TextEncoder(nn.Module):
    """Embedding; 4x4 convolutions of stride 2 to c, 2c, 4c channels (4 words by E/8); 1x4 ones of stride (1, 2) to
    4 x 4; each with batch norm and ReLU; a 4x4 convolution per head.

    n_words  V, with the special tokens; channels c; paper: 32; embedding_dim E, a power of two from 32; paper: 128
    """

    def __init__(self, n_words: int, latent_dim: int, channels: int = 32, embedding_dim: int = 128):
        super().__init__()
        self.embedding = nn.Embedding(n_words, embedding_dim, padding_idx=PAD)
        layers, n_in = [], 1
        for n_out, kernel, stride, padding in _text_layers(channels, embedding_dim):
            layers += [nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
            n_in = n_out
        self.trunk = nn.Sequential(*layers)
        self.mean = nn.Conv2d(4 * channels, latent_dim, 4)
        self.logvar = nn.Conv2d(4 * channels, latent_dim, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(_embedded(x, self.embedding, self.training).unsqueeze(1))
        return self.mean(h).flatten(1), self.logvar(h).flatten(1)


class TextDecoder(nn.Module):
    """Mirror of `TextEncoder` up to 32 words by E, ReLU, then one linear layer from E to the V words."""

    def __init__(self, n_words: int, latent_dim: int, channels: int = 32, embedding_dim: int = 128):
        super().__init__()
        stages = _text_layers(channels, embedding_dim)
        layers = [nn.ConvTranspose2d(latent_dim, 4 * channels, 4, bias=False), nn.BatchNorm2d(4 * channels), nn.ReLU()]
        for i in reversed(range(len(stages))):
            n_in, kernel, stride, padding = stages[i]
            if i:
                n_out = stages[i - 1][0]
                layers += [nn.ConvTranspose2d(n_in, n_out, kernel, stride, padding, bias=False), nn.BatchNorm2d(n_out),
                           nn.ReLU()]
            else:
                layers += [nn.ConvTranspose2d(n_in, 1, kernel, stride, padding), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.words = nn.Linear(embedding_dim, n_words)

    def forward(self, z: Tensor) -> Tensor:
        h = self.trunk(z[..., None, None]).squeeze(1)       # (B, 32, E)
        return self.words(h).transpose(1, 2)                # (B, V, 32)


def _embedded(x: Tensor, words: nn.Embedding, training: bool) -> Tensor:
    """Token numbers (B, 32) -> (B, 32, E). Raises `UserError` for what is no word; on a GPU, where each look is waited
    for, not in a training, whose tokens are looked at before."""
    if x.is_floating_point():
        raise UserError("captions are stored as floats: give token numbers as integers, as in x.long()")
    unknown = x[:0] if training and x.is_cuda else x[(x < 0) | (x >= words.num_embeddings)]
    if unknown.numel():
        raise UserError(f"token {int(unknown[0])} is no word: the vocabulary has {words.num_embeddings} words, 0 to "
                        f"{words.num_embeddings - 1}; number captions by the vocabulary of the data that the network "
                        "was made for")
    return words(x)


def _text_layers(channels: int, embedding_dim: int) -> list[tuple]:
    """(channels, kernel, stride, padding) from 32 words by E to 4 by 4."""
    flat = math.log2(embedding_dim) - 5
    if flat < 0 or flat % 1:
        raise UserError(f"embedding_dim must be a power of two, 32 or more, got {embedding_dim}")
    c = channels
    return ([(n, 4, 2, 1) for n in (c, 2 * c, 4 * c)] + [(4 * c, (1, 4), (1, 2), (0, 1))] * int(flat))


class ImageAttributeClassifier(nn.Module):
    """Prepared images (B, 3, 64, 64) -> logits (B, C): 3x3 convolutions at 32, 16, 8 and 4 pixels with batch norm, then
    mean and maximum over the image: how much of a colour there is, and whether. Training mirrors half of the images.
    """

    def __init__(self, n_labels: int, channels: int = 16):
        super().__init__()
        c = channels
        self.trunk = nn.Sequential(
            nn.AvgPool2d(2), *_block(3, c), *_block(c, c), nn.MaxPool2d(2), *_block(c, 2 * c), nn.MaxPool2d(2),
            *_block(2 * c, 4 * c), nn.MaxPool2d(2), *_block(4 * c, 4 * c))
        self.head = nn.Linear(8 * c, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(-1), x)
        h = self.trunk(x)
        h = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)
        return self.head(F.dropout(h, 0.2, self.training))


def _block(n_in: int, n_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()


class TextAttributeClassifier(nn.Module):
    """Token numbers (B, 32) -> logits (B, C): embedding, convolutions over one and three words, maximum over the
    sentence without its padding and whatever stands after its first <eos>.
    """

    def __init__(self, n_words: int, n_labels: int, channels: int = 64, embedding_dim: int = 32):
        super().__init__()
        self.embedding = nn.Embedding(n_words, embedding_dim, padding_idx=PAD)
        self.word = nn.Conv1d(embedding_dim, channels, 1)
        self.phrase = nn.Conv1d(embedding_dim, channels, 3, padding=1)
        self.head = nn.Linear(2 * channels, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.long()
        ended = (x == EOS).cumsum(1) - (x == EOS).long() > 0  # a decoder never learns what stands after the end
        x = x.masked_fill(ended, PAD)
        h = _embedded(x, self.embedding, self.training).transpose(1, 2)          # (B, E, 32)
        h = F.relu(torch.cat([self.word(h), self.phrase(h)], 1))                 # (B, 2 x channels, 32), not negative
        return self.head(F.dropout(h.masked_fill((x == PAD).unsqueeze(1), 0.0).amax(-1), 0.2, self.training))


NETWORK_OPTIONS = {"conv": (
    Option("image_channels", 8, "width of the first image convolution", at_least=1, paper="64"),
    Option("text_channels", 8, "width of the first text convolution", at_least=1, paper="32"),
    Option("embedding_dim", 64, "of a word, a power of two from 32", at_least=32, paper="128"))}
