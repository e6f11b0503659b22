"""Frechet distances: the formula, the moments, and the features of a classifier."""


import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, strategies as st
from torch import nn

from mmvm.errors import UserError
from studies.polymnist.frechet import RunningMoments, features_of, frechet_distance
from studies.polymnist.networks import DigitClassifier


def covariance(f, rank, seed):
    a = np.random.default_rng(seed).standard_normal((f, rank)) * np.random.default_rng(seed + 1).uniform(0.1, 3, rank)
    return a @ a.T


# The distance --------------------------------------------------------------------------------------------------------

gaussians = st.tuples(st.integers(1, 8), st.integers(1, 10), st.integers(1, 10), st.integers(0, 10 ** 6))


@given(gaussians)
def test_distance_is_symmetric_and_not_negative_for_any_rank(numbers):
    f, rank_1, rank_2, seed = numbers
    mean_1, mean_2 = np.random.default_rng(seed).standard_normal((2, f))
    cov_1, cov_2 = covariance(f, rank_1, seed), covariance(f, rank_2, seed + 7)
    there, back = frechet_distance(mean_1, cov_1, mean_2, cov_2), frechet_distance(mean_2, cov_2, mean_1, cov_1)
    assert isinstance(there, float) and there >= 0
    assert there == pytest.approx(back, rel=1e-9, abs=1e-9)
    assert there >= ((mean_1 - mean_2) ** 2).sum() - 1e-9


@given(gaussians)
def test_distance_of_equals_is_zero_for_any_rank(numbers):
    f, rank, _, seed = numbers
    mean, cov = np.full(f, 3.0), covariance(f, rank, seed)
    assert 0 <= frechet_distance(mean, cov, mean, cov) <= 1e-12 * (1 + np.trace(cov))


@given(st.lists(st.tuples(*[st.one_of(st.just(0.0), st.floats(1e-3, 50))] * 2, *[st.floats(-9, 9)] * 2),
                min_size=1, max_size=6))
def test_distance_of_diagonal_covariances_in_closed_form(rows):
    variance_1, variance_2, mean_1, mean_2 = np.array(rows).T
    expected = ((mean_1 - mean_2) ** 2).sum() + ((np.sqrt(variance_1) - np.sqrt(variance_2)) ** 2).sum()
    assert frechet_distance(mean_1, np.diag(variance_1), mean_2, np.diag(variance_2)) == pytest.approx(
        expected, rel=1e-9, abs=1e-9)


@given(gaussians)
def test_distance_agrees_with_the_formula_in_scipy(numbers):
    f, _, _, seed = numbers
    mean_1, mean_2 = np.random.default_rng(seed).standard_normal((2, f))
    cov_1, cov_2 = (covariance(f, 3 * f, seed + i) + 0.1 * np.eye(f) for i in (0, 7))
    expected = ((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1 + cov_2 - 2 * scipy.linalg.sqrtm(cov_1 @ cov_2).real)
    assert frechet_distance(mean_1, cov_1, mean_2, cov_2) == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_distance_of_covariances_of_rank_one():
    """C1 = u u^T, C2 = v v^T: the trace of the root is |u . v|."""
    u, v = np.random.default_rng(0).standard_normal((2, 300))
    expected = u @ u + v @ v - 2 * abs(u @ v)
    assert frechet_distance(np.zeros(300), np.outer(u, u), np.zeros(300), np.outer(v, v)) == pytest.approx(
        expected, rel=1e-6)


def test_distance_takes_float32_tensors_and_eigenvalues_that_rounding_made_negative():
    x = torch.randn(5, 40)                                                      # 4 of 40 directions
    cov = x.T.cov()
    assert torch.linalg.eigvalsh(cov.double())[0] < 0
    assert frechet_distance(x.mean(0), cov, x.mean(0), cov) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("arguments, message", [
    ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), r"means \(2,\), \(3,\).*of the same F features"),
    ((np.zeros(2), np.eye(3), np.zeros(2), np.eye(2)), r"covariances \(3, 3\), \(2, 2\)"),
    ((np.zeros(2), np.full((2, 2), np.nan), np.zeros(2), np.eye(2)), "NaN or infinity"),
    ((np.zeros(2), np.diag([1, -0.5]), np.zeros(2), np.eye(2)), "eigenvalue -0.5 beside 1, so it is none"),
])
def test_distance_refuses_what_is_no_gaussian(arguments, message):
    with pytest.raises(UserError, match=message):
        frechet_distance(*arguments)


# Moments -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sizes", [[20], [1] * 20, [0, 7, 1, 0, 12], [19, 1]])
def test_moments_of_batches_are_those_of_the_whole(sizes):
    x = torch.randn(20, 4).double() * torch.tensor([1e-3, 1.0, 1e3, 1.0]) + torch.tensor([1e6, 0.0, -5.0, 1e8])
    moments = RunningMoments()
    for batch in x.split(sizes):
        moments.update(batch)
    assert moments.n == 20 and moments.cov.dtype == moments.mean.dtype == torch.float64
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.cov, np.cov(x.numpy(), rowvar=False), rtol=1e-6, atol=1e-7)


def test_moments_are_in_float64_whatever_comes():
    x = torch.randn(500, 2) + 3000.0                           # float32 sums of squares would keep no digit of it
    moments = RunningMoments()
    for batch in x.split(100):
        moments.update(batch)
    np.testing.assert_allclose(moments.cov, np.cov(x.double().numpy(), rowvar=False), rtol=1e-10)


def test_moments_need_two_samples_and_one_width():
    moments = RunningMoments()
    with pytest.raises(UserError, match="at least 2 samples, there are 0"):
        moments.cov  # noqa: B018
    moments.update(torch.zeros(1, 3))
    with pytest.raises(UserError, match="at least 2 samples, there are 1"):
        moments.cov  # noqa: B018
    for wrong in (torch.zeros(2, 4), torch.zeros(3)):
        with pytest.raises(UserError, match=r"give \(B, F\), with one F for all"):
            moments.update(wrong)


# Features ------------------------------------------------------------------------------------------------------------

def test_features_are_what_the_last_layer_sees_without_dropout():
    classifier, x, seen = DigitClassifier(channels=2), torch.rand(5, 3, 28, 28), []
    classifier.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    features = features_of(classifier, x)
    assert classifier.training and not features.requires_grad
    classifier.eval()(x)
    assert torch.equal(features, seen[0])


@pytest.mark.parametrize("channels, width", [(2, 392), (11, 44)])
def test_wide_features_are_averaged_over_positions(channels, width):
    classifier, x = DigitClassifier("resnet", channels=channels), torch.rand(2, 3, 28, 28)
    features = features_of(classifier, x)
    assert features.shape == (2, width)
    if width == 44:
        torch.testing.assert_close(features, classifier.features(x).view(2, 44, 49).mean(-1))


def test_features_of_a_network_without_any():
    with pytest.raises(UserError, match="Linear has no method `features`"):
        features_of(nn.Linear(2, 2), torch.rand(1, 2))
