"""Counts, fractions and outliers: against scipy in float64, at the ends, with masks, and by their draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import stats

from mmvm.errors import UserError
from mmvm.likelihoods import Beta, NegativeBinomial, Normal, Poisson, StudentT, ZeroInflatedNegativeBinomial
from mmvm.likelihoods.counts import logarithm

COUNTS = [NegativeBinomial(), NegativeBinomial(2.5), NegativeBinomial(library=1e4), NegativeBinomial(0.3, library=50),
          ZeroInflatedNegativeBinomial(), ZeroInflatedNegativeBinomial(4.0), ZeroInflatedNegativeBinomial(library=100)]
REALS = [StudentT(), StudentT(1.5, 0.2), StudentT(10, None)]
FRACTIONS = [Beta(), Beta(20.0), Beta(0.5)]
ALL = COUNTS + REALS + FRACTIONS


def test_a_fixed_number_is_not_repeated_for_every_entry():
    """Which would take memory and time of all of them; a draw is of each entry all the same."""
    assert logarithm(2.0, [torch.zeros(5, 7)]).shape == () and logarithm(None, torch.zeros(2, 5, 7)).shape == (5, 7)
    torch.manual_seed(0)
    assert len(NegativeBinomial(0.5).sample(torch.full((200,), 6.0)).unique()) > 20


def values_for(likelihood, n=(5, 7)):
    torch.manual_seed(1)
    params = torch.randn(*likelihood.parameter_shape(n), dtype=torch.float64)
    if likelihood in COUNTS:
        return params, torch.randint(0, 30, n).double() * (torch.rand(n) > 0.4)
    return params, torch.rand(n, dtype=torch.float64) if likelihood in FRACTIONS else 3 * torch.randn(n).double()


def by_scipy(likelihood, params, x):
    """Every entry's log p, by another library's densities."""
    parts = (params if likelihood.per_entry > 1 else params[..., None]).numpy()
    first, x = parts[..., 0], x.numpy()
    if isinstance(likelihood, NegativeBinomial):
        if likelihood.library is None:
            mu = np.exp(first)
        else:
            mu = np.exp(first) / np.exp(first).sum(-1, keepdims=True) * np.maximum(x.sum(-1, keepdims=True), 1)
        r = np.exp(parts[..., 1]) if likelihood.dispersion is None else likelihood.dispersion
        log_p = stats.nbinom.logpmf(x, r, r / (r + mu))
        if not likelihood.inflated:
            return log_p
        pi = 1 / (1 + np.exp(-parts[..., -1]))
        return np.where(x == 0, np.log(pi + (1 - pi) * np.exp(log_p)), np.log1p(-pi) + log_p)
    if isinstance(likelihood, StudentT):
        scale = np.exp(parts[..., 1]) if likelihood.scale is None else likelihood.scale
        return stats.t.logpdf(x, likelihood.df, first, scale)
    c = np.exp(parts[..., 1]) if likelihood.concentration is None else likelihood.concentration
    m = 1 / (1 + np.exp(-first))
    return stats.beta.logpdf(np.clip(x, likelihood.margin, 1 - likelihood.margin), m * c, (1 - m) * c)


@pytest.mark.parametrize("likelihood", ALL, ids=repr)
def test_log_prob_is_scipys(likelihood):
    params, x = values_for(likelihood)
    found = likelihood.log_prob(params, x, 1)
    assert found.shape == (5,)
    np.testing.assert_allclose(found.numpy(), by_scipy(likelihood, params, x).sum(-1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("likelihood", ALL, ids=repr)
def test_gradients_are_those_of_the_values(likelihood):
    params, x = values_for(likelihood, (2, 3))
    x = x.clamp(0.05, 0.95) if likelihood in FRACTIONS else x
    assert torch.autograd.gradcheck(lambda p: likelihood.log_prob(p, x, 1), params.requires_grad_(True))


@pytest.mark.parametrize("likelihood", ALL, ids=repr)
def test_several_sources_broadcast_and_float32_agrees(likelihood):
    params, x = values_for(likelihood)
    several = torch.stack([params, params + 0.1, params - 0.2])
    found = likelihood.log_prob(several.float(), x.float(), 1)
    assert found.shape == (3, 5) and found.dtype == torch.float32
    for s in range(3):
        torch.testing.assert_close(found[s].double(), likelihood.log_prob(several[s], x, 1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("likelihood", ALL, ids=repr)
def test_entries_that_are_not_seen_add_nothing_whatever_they_hold(likelihood):
    params, x = values_for(likelihood)
    seen = torch.rand(x.shape) > 0.5
    seen[:, 0] = True
    hidden = x.masked_fill(~seen, torch.nan)
    leaf = params.clone().requires_grad_(True)
    found = likelihood.log_prob(leaf, hidden, 1, seen)
    found.sum().backward()
    for row in range(len(x)):
        alone = likelihood.log_prob(params[row][seen[row]], x[row][seen[row]], 1)
        torch.testing.assert_close(found[row].detach(), alone)
    gradient = leaf.grad if likelihood.per_entry > 1 else leaf.grad[..., None]
    assert (gradient[~seen] == 0).all() and (gradient[seen].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("likelihood", COUNTS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_of_nothing_and_of_a_million_are_finite_with_gradients(likelihood, dtype):
    x = torch.tensor([[0.0, 1e6, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    for size in (-100.0, 0.0, 14.0, 100.0):
        params = torch.full(likelihood.parameter_shape((2, 3)), size, dtype=dtype, requires_grad=True)
        value = likelihood.log_prob(params, x, 1)
        assert value.isfinite().all() and (value <= 0).all()
        assert torch.autograd.grad(value.sum(), params)[0].isfinite().all()


def test_float32_counts_of_a_million_are_exact_to_a_thousandth_of_a_nat():
    params = torch.tensor([[14.0, 3.0]])
    expected = stats.nbinom.logpmf(1_000_000, np.exp(3.0), np.exp(3.0) / (np.exp(3.0) + np.exp(14.0)))
    assert NegativeBinomial().log_prob(params, torch.tensor([1e6]), 0).item() == pytest.approx(expected, abs=1e-3)


def test_negative_binomial_becomes_a_poisson():
    x, log_mean = torch.arange(40.0, dtype=torch.float64), torch.full((40,), 2.0, dtype=torch.float64)
    torch.testing.assert_close(NegativeBinomial(1e7).log_prob(log_mean, x, 0), Poisson().log_prob(log_mean, x, 0),
                               rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("library", ["total", True, 0, float("nan")])
def test_a_library_is_a_number(library):
    with pytest.raises(UserError, match="NegativeBinomial library must be positive, got"):
        NegativeBinomial(library=library)


@given(x=st.lists(st.integers(0, 50), min_size=3, max_size=3), shift=st.floats(-20, 20))
def test_shares_of_a_library_do_not_feel_a_common_shift(x, shift):
    likelihood = NegativeBinomial(3.0, library=1.0)
    params = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    x = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(likelihood.log_prob(params, x, 1), likelihood.log_prob(params + shift, x, 1))
    assert likelihood.mean(params).sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("margin", [1e-3, 1e-6])
def test_fractions_of_zero_and_one_are_taken_at_the_margin(margin):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    params = torch.tensor([[0.2, 1.0], [0.2, 1.0]], dtype=torch.float64)
    moved = torch.tensor([margin, 1 - margin], dtype=torch.float64)
    likelihood = Beta(margin=margin)
    torch.testing.assert_close(likelihood.log_prob(params, ends, 0), likelihood.log_prob(params, moved, 0))
    far = torch.tensor([[300.0, 40.0], [-300.0, 40.0]], requires_grad=True)
    value = likelihood.log_prob(far, ends.float(), 0)
    assert value.isfinite().all() and torch.autograd.grad(value.sum(), far)[0].isfinite().all()


def test_an_outlier_costs_a_t_little():
    x, params = torch.tensor([[0.0], [100.0]]), torch.zeros(2, 1)
    t, normal = StudentT(3.0).log_prob(params, x, 1), Normal().log_prob(params, x, 1)
    assert t[0] - t[1] < 20 < 4_000 < normal[0] - normal[1]
    assert StudentT(3.0, 0.5).floor(4) == pytest.approx(-4 * stats.t.logpdf(0, 3, 0, 0.5))


@pytest.mark.parametrize("likelihood", ALL, ids=repr)
def test_draws_have_the_mean(likelihood):
    torch.manual_seed(2)
    params = torch.randn(likelihood.parameter_shape((1, 3))).expand(100_000, *likelihood.parameter_shape((3,)))
    if isinstance(likelihood, StudentT) and likelihood.df < 2:
        found = likelihood.sample(params).median(0).values  # it has no variance
        torch.testing.assert_close(found, likelihood.mean(params)[0], rtol=0.0, atol=0.01)
        return
    x = likelihood.sample(params)
    assert x.shape == (100_000, 3)
    error = (x.double().mean(0) - likelihood.mean(params)[0].double()).abs()
    assert (error < 5 * x.double().std(0) / len(x)**0.5).all()


def test_wrong_settings_are_named():
    for make, word in ((lambda: NegativeBinomial(0), "dispersion"), (lambda: NegativeBinomial(library=-1), "library"),
                       (lambda: StudentT(0), "df"), (lambda: StudentT(scale=-1), "scale"),
                       (lambda: Beta(-2), "concentration"), (lambda: Beta(margin=0.5), "margin")):
        with pytest.raises(UserError, match=word):
            make()
