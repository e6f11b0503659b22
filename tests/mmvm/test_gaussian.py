"""Closed forms of diagonal Gaussians against torch.distributions, grids and Monte Carlo, and their numerics."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import distributions as dist

from mmvm.gaussian import LOGVAR_LIMIT, DiagonalGaussian


def random_gaussian(*shape, seed=0, spread=2.0):
    """Means within a few units, standard deviations between 0.2 and 5, float64."""
    g = torch.Generator().manual_seed(seed)
    return DiagonalGaussian(spread * torch.randn(shape, generator=g, dtype=torch.float64),
                            1.5 * torch.randn(shape, generator=g, dtype=torch.float64))


def as_torch(q):
    return dist.Independent(dist.Normal(q.mean, q.std), 1)


# closed forms

def test_moments_are_the_parameters():
    q = random_gaussian(3, 4, 2)
    assert q.shape == (3, 4, 2)
    torch.testing.assert_close(q.var, q.logvar.exp())
    torch.testing.assert_close(q.std ** 2, q.var)


@given(seed=st.integers(0, 10_000), m=st.integers(1, 4), d=st.integers(1, 5))
def test_log_prob_and_divergences_agree_with_torch(seed, m, d):
    q, p = random_gaussian(m, 3, d, seed=seed), random_gaussian(m, 3, d, seed=seed + 1)
    z = 3 * torch.randn(m, 3, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    standard = dist.Independent(dist.Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)
    torch.testing.assert_close(q.log_prob(z), as_torch(q).log_prob(z))
    torch.testing.assert_close(q.kl(p), dist.kl_divergence(as_torch(q), as_torch(p)))
    torch.testing.assert_close(q.kl_standard_normal(), dist.kl_divergence(as_torch(q), standard))
    assert (q.kl(p) >= 0).all()
    assert torch.equal(q.kl(q), torch.zeros(m, 3, dtype=torch.float64))


def test_pairwise_kl_is_every_pair_in_the_stated_order():
    q = random_gaussian(3, 2, 4)
    pairs = q.pairwise_kl()
    assert pairs.shape == (3, 3, 2)
    for m in range(3):
        for n in range(3):
            torch.testing.assert_close(pairs[m, n], dist.kl_divergence(as_torch(q[m]), as_torch(q[n])))


def test_kl_agrees_with_monte_carlo():
    q, p = random_gaussian(3, seed=3), random_gaussian(3, seed=4)
    z = as_torch(q).sample((200_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    standard_error = ratio.std() / math.sqrt(len(z))
    assert abs(ratio.mean() - q.kl(p)) < 4 * standard_error


def test_kl_of_nearly_equal_variances_keeps_its_digits_in_float32():
    r = 1e-3
    exact = 0.5 * (math.expm1(r) - r)  # 2.5e-7, computed in float64
    q = DiagonalGaussian(torch.zeros(1), torch.full((1,), r))
    assert q.kl(DiagonalGaussian(torch.zeros(1), torch.zeros(1))).item() == pytest.approx(exact, rel=1e-3)
    assert q.kl_standard_normal().item() == pytest.approx(exact, rel=1e-3)


@given(seed=st.integers(0, 10_000), m=st.integers(1, 4))
def test_mixture_log_prob_agrees_with_torch(seed, m):
    q = random_gaussian(m, 3, 2, seed=seed)
    g = torch.Generator().manual_seed(seed)
    log_weights = torch.randn(m, 3, dtype=torch.float64, generator=g).log_softmax(0)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(logits=log_weights.t()),
        dist.Independent(dist.Normal(q.mean.movedim(0, 1), q.std.movedim(0, 1)), 1))
    z = 3 * torch.randn(5, 3, 2, dtype=torch.float64, generator=g)
    torch.testing.assert_close(q.mixture_log_prob(z, log_weights), mixture.log_prob(z))
    torch.testing.assert_close(q.mixture_log_prob(z[0], log_weights), mixture.log_prob(z[0]))  # without leading dims


def test_mixture_leaves_a_component_of_weight_zero_out():
    q = random_gaussian(3, 2, 2)
    mean = q.mean.clone().requires_grad_()
    log_weights = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()[:, None].expand(3, 2)
    z = torch.zeros(2, 2, dtype=torch.float64)
    density = DiagonalGaussian(mean, q.logvar).mixture_log_prob(z, log_weights)
    torch.testing.assert_close(density, q[:2].mixture_log_prob(z, log_weights[:2]))
    density.sum().backward()
    assert mean.grad.isfinite().all() and (mean.grad[2] == 0).all() and (mean.grad[:2] != 0).all()


# draws

def test_draws_have_the_moments_and_depend_on_the_generator():
    q = DiagonalGaussian(torch.tensor([1.0, -2.0]).expand(100_000, 2), torch.tensor([0.0, 2.0]).expand(100_000, 2))
    z = q.sample(torch.Generator().manual_seed(1))
    for i in range(2):
        std = q.std[0, i].item()
        assert z[:, i].mean().item() == pytest.approx(q.mean[0, i].item(), abs=4 * std / math.sqrt(len(z)))
        assert z[:, i].std().item() == pytest.approx(std, rel=0.015)
    assert torch.equal(z, q.sample(torch.Generator().manual_seed(1)))
    assert not torch.equal(z, q.sample(torch.Generator().manual_seed(2)))


def test_draws_are_reparametrised():
    mean = torch.zeros(4, requires_grad=True)
    logvar = torch.zeros(4, requires_grad=True)
    z = DiagonalGaussian(mean, logvar).sample()
    z.sum().backward()
    assert torch.equal(mean.grad, torch.ones(4))
    torch.testing.assert_close(logvar.grad, 0.5 * z.detach())  # dz/dlogvar = std * noise / 2


def test_the_global_seed_decides_the_draw():
    q = random_gaussian(2, 3)
    torch.manual_seed(5)
    first = q.sample()
    torch.manual_seed(5)
    assert torch.equal(first, q.sample())


# product of experts

@pytest.mark.parametrize("prior_expert", [False, True])
@given(seed=st.integers(0, 10_000), m=st.integers(1, 4))
def test_product_agrees_with_normalisation_on_a_grid(prior_expert, seed, m):
    q = random_gaussian(m, 1, 1, seed=seed, spread=1.0)
    z = torch.linspace(-60, 60, 120_001, dtype=torch.float64)[:, None]
    log_density = sum(q[i, 0].log_prob(z) for i in range(m)) + (prior_expert * -0.5 * z.square().sum(-1))
    p = (log_density - log_density.max()).exp()
    p = p / p.sum()
    mean = (p * z[:, 0]).sum()
    var = (p * (z[:, 0] - mean) ** 2).sum()
    product = q.product(prior_expert=prior_expert)
    torch.testing.assert_close(product.mean[0, 0], mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(product.var[0, 0], var, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prior_expert", [False, True])
@pytest.mark.parametrize("rubbish", [math.nan, math.inf, 1e38])
def test_product_neither_reads_nor_trains_what_is_absent(prior_expert, rubbish):
    observed = torch.tensor([[True, True, False], [True, False, True], [False, True, True]])
    clean = random_gaussian(3, 3, 2)
    mean, logvar = (torch.where(observed[..., None], value, rubbish).requires_grad_()
                    for value in (clean.mean, clean.logvar))
    product = DiagonalGaussian(mean, logvar).product(observed, prior_expert)
    for b in range(3):
        alone = clean[observed[:, b], b].product(prior_expert=prior_expert)
        torch.testing.assert_close(product.mean[b], alone.mean)
        torch.testing.assert_close(product.logvar[b], alone.logvar)
    (product.mean.sum() + product.logvar.sum()).backward()
    for grad in (mean.grad, logvar.grad):
        assert (grad[~observed] == 0).all() and (grad[observed] != 0).all() and grad.isfinite().all()


def test_product_of_nothing_is_the_prior_expert():
    product = random_gaussian(2, 3, 2).product(torch.zeros(2, 3, dtype=torch.bool), prior_expert=True)
    assert (product.mean == 0).all() and (product.logvar == 0).all()


# selection

def test_stack_and_index_are_inverse():
    q = random_gaussian(3, 2, 4)
    again = DiagonalGaussian.stack([q[0], q[1], q[2]])
    assert torch.equal(again.mean, q.mean) and torch.equal(again.logvar, q.logvar)


@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf, 1e38])
def test_where_puts_a_standard_normal_and_no_gradient(rubbish):
    keep = torch.tensor([[True, False], [False, True]])
    mean, logvar = (torch.where(keep[..., None], 0.5, rubbish).expand(2, 2, 3).clone().requires_grad_()
                    for _ in range(2))
    q = DiagonalGaussian(mean, logvar).where(keep)
    assert (q.mean[~keep] == 0).all() and (q.logvar[~keep] == 0).all()
    assert (q.mean[keep] == 0.5).all() and (q.logvar[keep] == 0.5).all()
    (q.kl_standard_normal().sum() + q.sample().square().sum()).backward()
    for grad in (mean.grad, logvar.grad):
        assert grad.isfinite().all() and (grad[~keep] == 0).all() and (grad[keep] != 0).all()


# gradients

def test_gradients_in_float64():
    parameters = [t.requires_grad_() for g in (random_gaussian(2, 2, 2, seed=1), random_gaussian(2, 2, 2, seed=2))
                  for t in (g.mean, g.logvar)]
    z = torch.randn(2, 2, 2, dtype=torch.float64)
    log_weights = torch.tensor([[0.3, 0.6], [0.7, 0.4]], dtype=torch.float64).log()

    def everything(m1, v1, m2, v2):
        q, p = DiagonalGaussian(m1, v1), DiagonalGaussian(m2, v2)
        product = q.product(prior_expert=True)
        return (q.kl(p), q.kl_standard_normal(), q.pairwise_kl(), q.log_prob(z), q.mixture_log_prob(z, log_weights),
                product.mean, product.logvar)

    assert torch.autograd.gradcheck(everything, parameters)


# numerics

@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extreme", [-1000.0, -60.0, 0.0, 60.0, 1000.0])
def test_extreme_parameters_stay_finite(dtype, extreme):
    mean = torch.tensor([[[1e4, 0.0]], [[-1e4, 3.0]], [[0.0, 0.0]]]).to(dtype).requires_grad_()
    logvar = torch.tensor([[[extreme, 0.0]], [[0.0, -extreme]], [[extreme, extreme]]]).to(dtype).requires_grad_()
    q = DiagonalGaussian(mean, logvar)
    assert q.mean.dtype == q.logvar.dtype == torch.float32
    z = q.sample()
    values = [q.kl_standard_normal(), q.pairwise_kl(), z, q.log_prob(z), q.var, q.std, q.product().mean,
              q.product().logvar, q.mixture_log_prob(z, torch.full((3, 1), -math.log(3)))]
    assert all(value.isfinite().all() for value in values)
    assert (values[0] >= 0).all() and (values[1] >= 0).all()
    sum(value.sum() for value in values).backward()
    assert mean.grad.isfinite().all() and logvar.grad.isfinite().all()


@pytest.mark.parametrize("value, clamped", [(1000.0, LOGVAR_LIMIT), (-1000.0, -LOGVAR_LIMIT), (1e9, LOGVAR_LIMIT),
                                            (-1e30, -LOGVAR_LIMIT), (3.0, 3.0)])
def test_clamp_of_the_log_variance_is_exact_and_passes_the_gradient(value, clamped):
    logvar = torch.full((2,), value, requires_grad=True)
    q = DiagonalGaussian(torch.zeros(2), logvar)
    assert (q.logvar == clamped).all()
    q.logvar.sum().backward()
    assert torch.equal(logvar.grad, torch.ones(2))


def test_a_variance_beyond_the_limit_comes_back_in_training():
    logvar = torch.full((1,), 40.0, requires_grad=True)
    optimizer = torch.optim.Adam([logvar], lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        DiagonalGaussian(torch.zeros(1), logvar).kl_standard_normal().backward()
        optimizer.step()
    assert logvar.item() < LOGVAR_LIMIT


def test_float64_is_kept():
    assert random_gaussian(2, 2).sample().dtype == torch.float64


def test_bfloat16_differs_from_float32_only_by_the_rounding_of_its_input():
    exact = random_gaussian(2, 5, 8)
    rounded = DiagonalGaussian(exact.mean.bfloat16(), exact.logvar.bfloat16())
    wide = DiagonalGaussian(exact.mean.bfloat16().double(), exact.logvar.bfloat16().double())
    torch.testing.assert_close(rounded.pairwise_kl().double(), wide.pairwise_kl(), rtol=1e-5, atol=1e-5)


def test_information_is_that_of_a_gaussian_channel():
    """Means of variance 3 beside a width of 1: 0.5 log 4 nats; equal means tell nothing, whatever the width."""
    mean = torch.tensor([-1.0, 1.0]).repeat(50) * (math.sqrt(3 * 99 / 100))  # the sample's variance is 3
    q = DiagonalGaussian(torch.stack([mean, torch.full_like(mean, 7.0)], -1), torch.zeros(100, 2))
    torch.testing.assert_close(q.information(), torch.tensor([0.5 * math.log(4), 0.0]))
