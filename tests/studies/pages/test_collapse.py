"""The chapter `collapse`: derived thresholds and losses against the optimum that L-BFGS finds, in float64."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from mmvm import Modality, MultimodalData, Normal, paths
from mmvm.objectives import mixture_kl_monte_carlo
from studies.pages import collapse
from studies.pages.collapse import KEPT, Factors, LinearVAE, least_loss, thresholds

CLOSED = ("independent", "mmvm", "poe", "moe", collapse.GEOMETRIC)
CASES = {"two": Factors(), "noisy": Factors(2.0, 0.5, 0.3, 0.2), "three": Factors(shared=0.5, m=3)}


@pytest.mark.slow
@pytest.mark.parametrize("method", CLOSED)
@pytest.mark.parametrize("case", CASES)
def test_the_optimum_is_the_derived_one(method, case):
    f = CASES[case]
    beta = 0.6 * max(thresholds(method, f))
    found, _ = LinearVAE(method, f, beta).minimise(starts=2)
    assert found == pytest.approx(least_loss(method, f, beta), abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("method", CLOSED)
@pytest.mark.parametrize("which", (0, 1))
def test_a_factor_is_dropped_at_its_threshold(method, which):
    f = Factors(shared=0.7, private=1.3, noise=0.2, likelihood=0.15)
    beta = thresholds(method, f)[which]
    below, above = (LinearVAE(method, f, share * beta).minimise(starts=1)[1][which] for share in (0.9, 1.2))
    assert below > KEPT and above < 1e-6


@pytest.mark.slow
def test_three_modalities_keep_their_private_factors_at_the_derived_loss():
    f = CASES["three"]
    beta = 0.6 * thresholds("mmvm", f)[1]
    found, (_, about_private) = LinearVAE("mmvm", f, beta).minimise(starts=4)
    assert found == pytest.approx(least_loss("mmvm", f, beta), abs=1e-7) and about_private > KEPT
    other, _ = LinearVAE("mmvm", f, beta / 3).minimise(starts=1, seed=1)  # may end in a local optimum above
    assert other > least_loss("mmvm", f, beta / 3) - 1e-7


@pytest.mark.slow
def test_more_dimensions_lower_the_loss_at_small_beta_and_leave_the_thresholds():
    f = Factors(shared=0.05)
    assert LinearVAE("mmvm", f, 0.05, latent_dim=5).minimise(3)[0] < least_loss("mmvm", f, 0.05) - 1e-3
    for share in (0.9, 1.1):
        beta = share * thresholds("mmvm", f)[0]
        found, (about_shared, _) = LinearVAE("mmvm", f, beta, latent_dim=5).minimise(3)
        assert found == pytest.approx(least_loss("mmvm", f, beta), abs=1e-7) and (about_shared > KEPT) == (share < 1)


@pytest.mark.parametrize("method", CLOSED)
def test_the_loss_has_no_jump_at_the_thresholds_and_ends_at_that_of_no_latent(method):
    f = Factors()
    for beta in thresholds(method, f):
        assert least_loss(method, f, beta * (1 - 1e-9)) == pytest.approx(least_loss(method, f, beta * (1 + 1e-9)))
    nothing = f.m * (f.shared + f.private + 2 * f.noise) / (2 * f.likelihood)
    assert least_loss(method, f, 1.01 * max(thresholds(method, f))) == pytest.approx(nothing)


def test_points_have_the_covariance_of_the_model():
    f = Factors(0.5, 2.0, 0.1, 0.1, 3)
    _, x = collapse.points(f)
    x = x.transpose(0, 1).reshape(len(x[0]), -1)
    covariance = x.T @ x / len(x)
    shared = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(3)
    expected = 0.5 * torch.outer(shared, shared) + 2.0 * torch.diag(1 - shared) + 0.1 * torch.eye(6)
    assert torch.allclose(covariance, expected.double())


def test_distortion_is_that_of_a_linear_regression():
    torch.manual_seed(0)
    x, mean = torch.randn(200, 2, dtype=torch.float64), torch.randn(1, 200, 3, dtype=torch.float64)
    z = mean[0] + 0
    residual = x - z @ torch.linalg.lstsq(z, x).solution
    found = collapse.distortion(mean, torch.zeros_like(mean), torch.ones(1, dtype=torch.float64), x)
    assert float(found) == pytest.approx(float(residual.square().sum() / 200))


def test_information_of_a_known_channel():
    factor = torch.tensor([1.0, -1.0], dtype=torch.float64)
    q = collapse.DiagonalGaussian(factor.reshape(1, 2, 1), torch.full((1, 2, 1), math.log(0.5), dtype=torch.float64))
    assert collapse.about(q, factor) == pytest.approx(0.5 * math.log(1 + 1 / 0.5))


@pytest.mark.parametrize("p", (1, 2, 3, 8))
def test_the_exact_mixture_charges_for_all_private_factors_together(p):
    below, t = collapse.exact_keeps_below(p)
    assert below == pytest.approx(max(2.0, p / (2 * math.log(2))), rel=2e-3)
    assert (t < 0.01) == (p < 3)  # a little of them pays, or all


def test_the_mean_cost_of_the_mixture_is_that_of_draws():
    rng = np.random.default_rng(0)
    t, n = 0.8, 200_000
    delta = np.sqrt(2 * t) * rng.standard_normal((n, 2))
    z = rng.standard_normal((n, 2))
    ratio = (z * delta).sum(1) - 0.5 * (delta**2).sum(1)
    draws = 2 * (math.log(2) - np.logaddexp(0, ratio))
    assert collapse.mean_mixture_kl(t, 2) == pytest.approx(draws.mean(), abs=5 * draws.std() / math.sqrt(n))
    assert collapse.mean_mixture_kl(1e6, 2) == pytest.approx(2 * math.log(2), rel=1e-2)


@pytest.mark.slow
def test_the_points_of_the_diagram_are_those_of_the_code():
    found = pd.read_csv(paths.REPOSITORY / "data" / "collapse.csv")
    assert set(found["method"]) == set(collapse.METHODS)
    for method in set(CLOSED) & set(collapse.METHODS):
        part = found[found["method"] == method]
        derived = [least_loss(method, Factors(shared=a), beta) for a, beta in zip(part["shared"], part["beta"])]
        np.testing.assert_allclose(part["loss"], derived, atol=1e-5)
    line = found[found["method"] == "mmvm:bound=monte_carlo"].iloc[len(found) // 10]
    again = collapse.diagram([line["method"]], [line["shared"]], [line["beta"]]).iloc[0]
    # the search has many ends near the least loss, and which one it finds depends on the processor's rounding: none may
    # be worse than the committed one, nor much better, for then that is no optimum
    assert 0.995 * line["loss"] < again["loss"] < line["loss"] * (1 + 1e-4)


def test_the_exact_mixture_is_cheaper_than_its_bound_and_keeps_more():
    found = pd.read_csv(paths.REPOSITORY / "data" / "collapse.csv").pivot_table(
        index=["shared", "beta"], columns="method", values=["loss", "about_shared", "about_private"])
    assert (found["loss"]["mmvm:bound=monte_carlo"] < found["loss"]["mmvm"] + 0.05).all()
    assert (found["about_private"]["mmvm:bound=monte_carlo"] > found["about_private"]["mmvm"] - 0.01).all()


def test_the_exact_mixture_is_that_of_the_objective():
    f = Factors()
    model = LinearVAE("mmvm:bound=monte_carlo", f, beta=2.0)
    parameters = torch.linspace(-0.4, 0.6, 3 * f.m * model.d, dtype=torch.float64)
    q = model.posteriors(parameters)
    log_weights = q.mean.new_full(q.shape[:2], -math.log(f.m))
    kl = mixture_kl_monte_carlo(q, log_weights, q.mean + q.std * model.noise).sum(0).mean()
    without = LinearVAE("mmvm:bound=monte_carlo", f, beta=0.0)
    assert float(model.loss(parameters) - without.loss(parameters)) == pytest.approx(2 * float(kl))


def test_canonical_correlations_are_those_of_the_shared_direction():
    f, rng = Factors(shared=3.0, private=2.0, noise=1.0, m=3), torch.Generator().manual_seed(0)
    sets = []
    for _ in range(2):
        values = torch.randn(8000, 1 + 3 * f.m, generator=rng, dtype=torch.float64)
        x = torch.einsum("mij,bj->mbi", f.mixing(), values).float()
        specs = tuple(Modality(f"m{m}", (2,), Normal()) for m in range(f.m))
        sets.append(MultimodalData({s.name: own for s, own in zip(specs, x)}, specs))
    found = collapse.canonical_correlations(*sets, d=2)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found, [[0.75, 0.0]] * 3, atol=0.04)
