"""Likelihoods against torch.distributions, their normalisation, their floors and the moments of their draws."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import distributions as dist

from mmvm.errors import UserError
from mmvm.likelihoods import Bernoulli, Categorical, Laplace, Likelihood, Normal, Poisson

CONTINUOUS = [(Laplace(), lambda p: dist.Laplace(p, 0.75)), (Laplace(0.1), lambda p: dist.Laplace(p, 0.1)),
              (Normal(), lambda p: dist.Normal(p, 1.0)), (Normal(2.5), lambda p: dist.Normal(p, 2.5))]
DISCRETE = [(Bernoulli(), lambda p: dist.Bernoulli(logits=p)), (Poisson(), lambda p: dist.Poisson(p.exp()))]
ALL = CONTINUOUS + DISCRETE


def named(value) -> str:
    """A test's name; functions have none that two workers agree on."""
    return "reference" if "<" in repr(value) else repr(value)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood, reference", ALL, ids=named)
@given(seed=st.integers(0, 10_000))
def test_log_prob_agrees_with_torch_for_every_event_ndim(likelihood, reference, seed):
    torch.manual_seed(seed)
    params = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = reference(params)
    x = expected.sample()
    for event_ndim in range(4):
        found = likelihood.log_prob(params, x, event_ndim)
        terms = expected.log_prob(x)
        torch.testing.assert_close(found, terms.flatten(3 - event_ndim).sum(-1) if event_ndim else terms)
        assert found.shape == params.shape[:3 - event_ndim]


@pytest.mark.parametrize("likelihood, reference", ALL, ids=named)
def test_parameters_of_several_sources_broadcast_over_x(likelihood, reference):
    params = torch.randn(5, 2, 3, dtype=torch.float64)  # (S, B, D) against (B, D)
    x = reference(params[0]).sample()
    found = likelihood.log_prob(params, x, 1)
    assert found.shape == (5, 2)
    for s in range(5):
        torch.testing.assert_close(found[s], likelihood.log_prob(params[s], x, 1))


@pytest.mark.parametrize("likelihood, reference", CONTINUOUS, ids=named)
def test_densities_integrate_to_one(likelihood, reference):
    x = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    density = likelihood.log_prob(torch.full_like(x, 0.3), x, 0).exp()
    assert density.sum().item() * (x[1] - x[0]).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("parameter", [-3.0, 0.0, 1.5])
def test_probabilities_sum_to_one(parameter):
    two, many = torch.tensor([0.0, 1.0]), torch.arange(200.0)
    assert Bernoulli().log_prob(torch.full((2,), parameter), two, 0).exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert Poisson().log_prob(torch.full((200,), parameter), many, 0).exp().sum().item() == pytest.approx(1, abs=1e-5)
    logits = torch.tensor([parameter, 0.0, 2.0]).expand(3, 3)[..., None]  # (x, C, L = 1)
    p = Categorical().log_prob(logits, torch.arange(3)[:, None], 1).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-6)


# floors

@pytest.mark.parametrize("likelihood, reference", CONTINUOUS, ids=named)
def test_floor_is_the_density_at_the_mode(likelihood, reference):
    params = torch.randn(6, 7, dtype=torch.float64)
    best = likelihood.log_prob(params, likelihood.mean(params), 2)
    assert likelihood.floor(42) == pytest.approx(-best.item())
    assert (likelihood.log_prob(params, params + 0.1 * torch.randn(6, 7), 2) < best).all()


def test_floor_of_polymnist_is_the_papers():
    assert Laplace(0.75).floor(3 * 2352) == pytest.approx(3 * 2352 * math.log(1.5))
    assert round(Laplace().floor(3 * 3 * 28 * 28)) == 2861


def test_floor_of_probabilities_is_reached_and_never_undercut():
    certain = torch.full((5,), 50.0)
    assert Bernoulli().floor(5) == pytest.approx(-Bernoulli().log_prob(certain, torch.ones(5), 1).item(), abs=1e-6)
    assert Poisson().floor(5) == pytest.approx(-Poisson().log_prob(-certain, torch.zeros(5), 1).item(), abs=1e-6)
    logits = torch.stack([certain, -certain])
    assert Categorical().floor(5) == pytest.approx(-Categorical().log_prob(logits, torch.zeros(5), 1).item(), abs=1e-6)


# categorical

def test_categorical_agrees_with_cross_entropy():
    logits, x = torch.randn(4, 6, 5, dtype=torch.float64), torch.randint(6, (4, 5))  # (B, C, L) and (B, L)
    expected = -torch.nn.functional.cross_entropy(logits, x, reduction="none")
    torch.testing.assert_close(Categorical().log_prob(logits, x, 1), expected.sum(-1))
    torch.testing.assert_close(Categorical().log_prob(logits, x.to(torch.uint8), 1), expected.sum(-1))


def test_categorical_with_several_sources():
    logits, x = torch.randn(3, 4, 6, 5), torch.randint(6, (4, 5))  # (S, B, C, L) and (B, L)
    found = Categorical().log_prob(logits, x, 1)
    assert found.shape == (3, 4)
    for s in range(3):
        torch.testing.assert_close(found[s], Categorical().log_prob(logits[s], x, 1))


def test_categorical_of_a_single_class_label_and_of_an_image():
    logits, x = torch.randn(4, 6), torch.randint(6, (4,))
    torch.testing.assert_close(Categorical().log_prob(logits, x, 0), dist.Categorical(logits=logits).log_prob(x))
    logits, x = torch.randn(4, 6, 3, 2), torch.randint(6, (4, 3, 2))
    torch.testing.assert_close(Categorical().log_prob(logits, x, 2),
                               dist.Categorical(logits=logits.movedim(1, -1)).log_prob(x).sum((1, 2)))


@pytest.mark.parametrize("ignore", [0, 5, -1, -100])
def test_ignored_class_counts_nothing_and_gets_no_gradient(ignore):
    logits = torch.randn(4, 6, 5, requires_grad=True)
    x = torch.randint(1, 5, (4, 5))
    padding = torch.zeros(4, 5, dtype=torch.bool)
    padding[:, 3:] = True
    padded = x.masked_fill(padding, ignore)
    found = Categorical(ignore=ignore).log_prob(logits, padded, 1)
    torch.testing.assert_close(found, Categorical().log_prob(logits[..., :3], x[:, :3], 1))
    found.sum().backward()
    assert (logits.grad[..., 3:] == 0).all() and (logits.grad[..., :3] != 0).all()


def test_categorical_mean_and_draws():
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0], [2.0, -2.0]]).expand(20_000, 3, 2)
    p = Categorical().mean(logits)
    torch.testing.assert_close(p.sum(-2), torch.ones(20_000, 2))
    draws = Categorical().sample(logits)
    assert draws.shape == (20_000, 2) and not draws.is_floating_point()
    for c in range(3):
        assert (draws == c).float().mean(0).tolist() == pytest.approx(p[0, c].tolist(), abs=0.015)


# draws

@pytest.mark.parametrize("likelihood, reference", ALL, ids=named)
def test_draws_have_the_moments(likelihood, reference):
    params = torch.tensor([-1.0, 0.4, 1.3]).expand(200_000, 3)
    x = likelihood.sample(params)
    expected = reference(params[0].double())
    assert x.shape == params.shape
    torch.testing.assert_close(likelihood.mean(params)[0].double(), expected.mean)
    sd = expected.stddev
    assert ((x.double().mean(0) - expected.mean).abs() < 4.5 * sd / math.sqrt(len(x))).all()
    torch.testing.assert_close(x.double().std(0), sd, rtol=0.02, atol=0)


def test_laplace_draws_follow_the_distribution_function():
    x = Laplace(0.75).sample(torch.zeros(100_000)).sort().values
    steps = torch.arange(1, 100_001) / 100_000
    assert (dist.Laplace(0.0, 0.75).cdf(x) - steps).abs().max() < 1.95 / math.sqrt(100_000)  # Kolmogorov, p = 0.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("likelihood", [Laplace(), Normal(), Bernoulli(), Poisson(), Categorical()], ids=named)
def test_draws_are_finite_and_follow_the_generator(likelihood, dtype):
    params = torch.zeros(500, 7, 20, dtype=dtype)
    x = likelihood.sample(params, torch.Generator().manual_seed(1))
    assert x.isfinite().all()
    assert torch.equal(x, likelihood.sample(params, torch.Generator().manual_seed(1)))
    assert not torch.equal(x, likelihood.sample(params, torch.Generator().manual_seed(2)))


# numerics

@pytest.mark.parametrize("likelihood", [Laplace(), Normal(), Bernoulli(), Poisson()], ids=named)
def test_half_precision_parameters_are_summed_in_float32(likelihood):
    torch.manual_seed(0)
    params = torch.randn(2, 3, 28, 28).bfloat16()
    x = torch.rand(2, 3, 28, 28).round()
    found = likelihood.log_prob(params, x, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), likelihood.log_prob(params.double(), x.double(), 3), rtol=1e-5, atol=0)


def test_half_precision_logits_are_summed_in_float32():
    torch.manual_seed(0)
    logits, x = torch.randn(2, 30, 500).bfloat16(), torch.randint(30, (2, 500))
    found = Categorical().log_prob(logits, x, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), Categorical().log_prob(logits.double(), x, 1), rtol=1e-5, atol=0)


def test_certain_logits_stay_finite():
    params = torch.tensor([1e4, -1e4], requires_grad=True)
    value = Bernoulli().log_prob(params, torch.tensor([0.0, 1.0]), 1)
    value.backward()
    assert value.item() == pytest.approx(-2e4) and params.grad.isfinite().all()
    logits = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    value = Categorical().log_prob(logits, torch.tensor([1]), 1)
    value.backward()
    assert value.item() == pytest.approx(-2e4) and logits.grad.isfinite().all()


def test_bernoulli_takes_bytes_and_soft_targets():
    params = torch.randn(5)
    torch.testing.assert_close(Bernoulli().log_prob(params, torch.ones(5, dtype=torch.uint8), 1),
                               Bernoulli().log_prob(params, torch.ones(5), 1))
    soft = Bernoulli().log_prob(params, torch.full((5,), 0.25), 0)
    torch.testing.assert_close(soft, 0.25 * Bernoulli().log_prob(params, torch.ones(5), 0)
                               + 0.75 * Bernoulli().log_prob(params, torch.zeros(5), 0))


@pytest.mark.parametrize("likelihood", [Laplace(), Normal(3.0), Bernoulli(), Poisson()], ids=named)
def test_gradients_in_float64(likelihood):
    x = torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64)
    params = torch.tensor([[0.3, -0.7, 2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: likelihood.log_prob(p, x, 1), params)


# mistakes

@pytest.mark.parametrize("kind", [Laplace, Normal])
@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_that_is_not_positive_is_refused(kind, scale):
    with pytest.raises(UserError, match=f"{kind.__name__} scale must be positive, got {scale}"):
        kind(scale)


def test_the_base_class_leaves_the_density_to_its_children():
    with pytest.raises(NotImplementedError):
        Likelihood().log_prob(torch.zeros(1), torch.zeros(1), 1)
    with pytest.raises(NotImplementedError):
        Likelihood().sample(torch.zeros(1))


def test_likelihoods_are_values():
    assert Laplace() == Laplace(0.75) and Laplace() != Laplace(1.0) and Laplace() != Normal()
    assert len({Laplace(), Laplace(0.75), Categorical(0)}) == 2
