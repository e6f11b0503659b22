"""Weights under which modalities have as many nats to explain: against closed forms."""

import math
from dataclasses import replace

import pytest
import torch

from mmvm import (
    Beta,
    Categorical,
    Laplace,
    Modality,
    MultimodalData,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    suggest_weights,
)
from mmvm.choose import deviance
from mmvm.errors import UserError


def one(x, likelihood, **fields):
    return MultimodalData({"a": x}, (Modality("a", tuple(x.shape[1:]), likelihood, **fields),))


def test_a_normal_has_half_its_variance_over_the_scales():
    x = 3 * torch.randn(400, 5)
    expected = 0.5 * (x - x.mean(0)).square().sum(1).mean().item() / 2**2
    assert deviance(one(x, Normal(2.0)), 0) == pytest.approx(expected, rel=1e-3)


def test_a_laplace_has_its_distance_from_the_median():
    x = torch.randn(401, 4)
    expected = (x - x.median(0).values).abs().sum(1).mean().item() / 0.75
    assert deviance(one(x, Laplace()), 0) == pytest.approx(expected, rel=2e-2)


def test_a_poisson_has_half_its_deviance():
    x = torch.poisson(torch.rand(300, 4) * 10)
    mean = x.mean(0)
    expected = (torch.xlogy(x, x / mean) - x + mean).sum(1).mean().item()
    assert deviance(one(x.long(), Poisson()), 0) == pytest.approx(expected, rel=2e-2)


def test_classes_have_their_entropy():
    x = torch.tensor([0, 0, 0, 1, 2, 2]).repeat(50).unsqueeze(1)
    share = torch.tensor([1 / 2, 1 / 6, 1 / 3])
    expected = -(share * share.log()).sum().item()
    assert deviance(one(x, Categorical()), 0) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("centre, spread", [(1e4, 1.0), (0.0, 1e3), (-5.0, 1e-3)])
def test_values_may_lie_anywhere(centre, spread):
    x = (centre + spread * torch.randn(300, 4, dtype=torch.float64)).float()
    expected = 0.5 * (x.double() - x.double().mean(0)).square().sum(1).mean().item() / spread**2
    assert deviance(one(x, Normal(spread)), 0) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", [NegativeBinomial(), NegativeBinomial(library=100), StudentT(4.0, None), Beta()],
                         ids=repr)
def test_a_learned_dispersion_leaves_a_finite_deviance(likelihood):
    torch.manual_seed(0)
    x = torch.poisson(torch.rand(200, 3) * 20) if isinstance(likelihood, NegativeBinomial) else torch.rand(200, 3)
    found = deviance(one(x, likelihood), 0)
    assert 0 < found < 200 and math.isfinite(found)


@pytest.mark.slow
def test_weights_make_deviances_equal_and_say_their_numbers():
    x = {"few": torch.randn(300, 10), "many": torch.randn(300, 1000), "tens": 10 * torch.randn(300, 10)}
    specs = (Modality("few", (10,), Normal()), Modality("many", (1000,), Normal()),
             Modality("tens", (10,), Normal(), standardise=True))
    data, said = MultimodalData(x, specs), []
    weights = suggest_weights(data, said.append)
    assert weights["many"] == 1 and weights["few"] == pytest.approx(100, rel=0.1)
    assert weights["tens"] == pytest.approx(100, rel=0.1)
    assert said[1].startswith("many: 1000 entries") and said[1].endswith("weight 1")
    weighted = MultimodalData(x, tuple(replace(spec, weight=weights[spec.name]) for spec in data.specs))
    nats = [spec.weight * deviance(weighted, m) for m, spec in enumerate(weighted.specs)]
    assert max(nats) / min(nats) < 1.01


def test_entries_that_are_missing_count_nothing():
    x = torch.randn(400, 6)
    holes = x.clone()
    holes[:, 3:] = torch.nan
    found = deviance(one(holes, Normal(), missing="nan"), 0)
    assert found == pytest.approx(deviance(one(x[:, :3], Normal()), 0), rel=1e-4)


def test_what_does_not_vary_is_named():
    data = MultimodalData({"a": torch.ones(50, 3), "b": torch.randn(50, 3)},
                          (Modality("a", (3,), Normal()), Modality("b", (3,), Normal())))
    with pytest.raises(UserError, match="'a' is the same in all samples"):
        suggest_weights(data, None)
    data.modalities["a"][7, 1] = torch.nan
    with pytest.raises(UserError, match="'a', sample .* holds NaN or infinity"):
        suggest_weights(data, None)
