"""Draws that vary as the data do, less, or not at all, in what a picture may do on its own."""

import numpy as np
import pytest
import torch
from torch import nn

from mmvm.data import Modality, MultimodalData
from mmvm.likelihoods import Laplace
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPEncoder
from mmvm.objectives import Independent
from studies.polymnist.variety import factor_spread

SHAPE, M, N = (3, 8, 8), 2, 1_500


class Painted(nn.Module):
    """The decoder of pictures (B, 3, 8, 8) that a latent (B, 3) tells: a class's stripe, of an intensity, and noise's
    level."""

    def __init__(self):
        super().__init__()
        self.device = nn.Parameter(torch.zeros(()))

    def forward(self, z):
        picture = 0.2 + 0.02 * z[:, 2].view(-1, 1, 1, 1).expand(-1, *SHAPE)
        stripe = torch.zeros(len(z), *SHAPE)
        stripe[:, :, :4] = (z[:, 0] == 0).float().view(-1, 1, 1, 1)
        stripe[:, :, 4:] = (z[:, 0] == 1).float().view(-1, 1, 1, 1)
        return picture + (0.4 + 0.1 * z[:, 1].view(-1, 1, 1, 1)) * stripe


class Judge(nn.Module):
    """The class by the brighter half; as features the means of both."""

    def features(self, images):
        return images.mean((1, 3)).unflatten(1, (2, 4)).mean(2)

    def forward(self, images):
        return self.features(images)


class Fixed:
    def __init__(self, z):
        self.z = z

    def sample(self, n):
        return self.z[:, :n]


def latents(seed, spread=1.0, n=N):
    """(M, n, 3): class, intensity, level."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(M, n, 3, generator=random)
    z[:, :, 0] = torch.arange(n) % 2
    z[:, :, 1] *= spread
    return z


def data(seed):
    z, paint = latents(seed), Painted()
    specs = tuple(Modality(f"m{m}", SHAPE, Laplace()) for m in range(M))
    pictures = {spec.name: paint(z_m) for spec, z_m in zip(specs, z)}
    return MultimodalData(pictures, specs, z[0, :, 0].long(), n_classes=2), z


@pytest.fixture(scope="module")
def measured():
    (train, z), (test, z_test) = data(1), data(2)
    factors = {"intensity": (z[:, :, 1].numpy(), z_test[:, :, 1].numpy()),
               "unseen": tuple(np.random.default_rng(seed).normal(size=(M, N)) for seed in (0, 1))}
    model = MultimodalVAE(train.specs, [MLPEncoder(SHAPE, 3, (4,)) for _ in range(M)], [Painted()] * M, Independent())

    def measure(draws):
        return factor_spread(model, Fixed(draws), train, test, factors, [Judge()] * M, n=400)
    return measure


def test_draws_that_vary_as_the_data_do_have_a_spread_of_one(measured):
    found = measured(latents(3))
    assert (found["readable_intensity"] > 0.85).all()
    np.testing.assert_allclose(found["joint_spread_intensity"], 1, atol=0.1)


def test_draws_that_vary_less_have_less(measured):
    half, none = (measured(latents(3, spread))["joint_spread_intensity"] for spread in (0.5, 0.0))
    assert (half > 0.4).all() and (half < 0.65).all() and (none < 0.35).all(), "the level of a picture is read a little"


def test_the_class_is_no_variety(measured):
    draws = latents(3, 0.0)
    draws[:, :, 2] = 0
    assert (measured(draws)["joint_spread_intensity"] < 0.02).all(), "two classes, each with one picture"


def test_a_factor_of_one_value_has_no_numbers_and_no_warnings(recwarn):
    (train, z), (test, z_test) = data(1), data(2)
    factors = {"intensity": (z[:, :, 1].numpy(), z_test[:, :, 1].numpy()), "still": (np.ones((M, N)), np.ones((M, N)))}
    model = MultimodalVAE(train.specs, [MLPEncoder(SHAPE, 3, (4,)) for _ in range(M)], [Painted()] * M, Independent())
    found = factor_spread(model, Fixed(latents(3)), train, test, factors, [Judge()] * M, n=400)
    assert all(np.isnan(found[f"{what}_still"]).all() for what in ("readable", "joint_spread"))
    assert (found["readable_intensity"] > 0.8).all() and not [w for w in recwarn if "divide" in str(w.message)]


def test_what_no_picture_shows_is_said_not_to_be_readable(measured):
    assert (measured(latents(3))["readable_unseen"] < 0.05).all()
