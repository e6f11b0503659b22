"""What the paper and its lemma say of the objectives, checked against quadrature, closed forms and a plain VAE."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives import (
    MMVM,
    Independent,
    Schedule,
    mixture_kl_monte_carlo,
    mixture_kl_pairwise,
    mixture_kl_variational,
)

EXACT = {0.5: 0.0606, 1.0: 0.2228, 2.0: 0.6737, 5.0: 1.3519}  # M = 2, N(0, 1) and N(d, 1): sum_m KL(q_m || h)
BOUNDS = MMVM.BOUNDS


def random_gaussian(*shape, seed=0, spread=2.0):
    g = torch.Generator().manual_seed(seed)
    return DiagonalGaussian(spread * torch.randn(shape, generator=g, dtype=torch.float64),
                            torch.randn(shape, generator=g, dtype=torch.float64))


def two(d):
    """N(0, 1) and N(d, 1), shape (2, 1, 1)."""
    return DiagonalGaussian(torch.tensor([0.0, d], dtype=torch.float64).view(2, 1, 1),
                            torch.zeros(2, 1, 1, dtype=torch.float64))


def uniform(m, b=1):
    return torch.full((m, b), -math.log(m), dtype=torch.float64)


def grid(q, n=40_001):
    """Points (n, 1, 1) that cover q (M, 1, 1) by twelve standard deviations, and their distance."""
    low = (q.mean - 12 * q.std).min().item()
    high = (q.mean + 12 * q.std).max().item()
    z = torch.linspace(low, high, n, dtype=torch.float64)
    return z.view(-1, 1, 1), z[1] - z[0]


def exact_kl(q, log_weights, log_prior=None):
    """KL(q_m || prior) for each m (M,), one-dimensional quadrature; the prior is the mixture unless given."""
    z, dz = grid(q)
    log_h = q.mixture_log_prob(z, log_weights)[:, 0] if log_prior is None else log_prior(z)
    log_q = torch.stack([q[m].log_prob(z)[:, 0] for m in range(len(q.mean))])
    return (log_q.exp() * (log_q - log_h)).sum(1) * dz


def name_of(objective):
    return "-".join(filter(None, (type(objective).__name__, getattr(objective, "bound", None))))


def everyone(q):
    return torch.ones(q.shape[:2], dtype=torch.bool)


@pytest.fixture
def fixed_noise(monkeypatch):
    """Draws become mean + std * noise with noise given by the test, so that two computations see the same one."""
    def use(noise):
        monkeypatch.setattr(DiagonalGaussian, "sample",
                            lambda self, generator=None: self.mean + self.std * noise.to(self.mean.dtype))
    return use


# the numbers of the paper's example

@pytest.mark.parametrize("d", EXACT)
def test_two_unit_gaussians_exact_value_and_surrogate(d):
    q = two(d)
    assert exact_kl(q, uniform(2)).sum().item() == pytest.approx(EXACT[d], abs=5e-5)
    assert mixture_kl_pairwise(q, uniform(2)).sum().item() == pytest.approx(d ** 2 / 2, rel=1e-12)
    assert mixture_kl_variational(q, uniform(2)).sum().item() == pytest.approx(
        -2 * math.log((1 + math.exp(-d ** 2 / 2)) / 2), rel=1e-12)


@pytest.mark.parametrize("d", EXACT)
def test_two_unit_gaussians_monte_carlo(d):
    n = 400_000
    q = two(d)
    many = DiagonalGaussian(q.mean.expand(2, n, 1), q.logvar.expand(2, n, 1))
    estimates = mixture_kl_monte_carlo(many, uniform(2, n)).sum(0)
    assert abs(estimates.mean().item() - EXACT[d]) < 4 * estimates.std().item() / math.sqrt(n) + 5e-5


def test_exact_gradient_dies_for_distant_posteriors_and_the_surrogates_grows():
    exact, pairwise = [], []
    for d in (2.0, 5.0, 12.0, 24.0):
        for kl, found in ((exact_kl, exact), (mixture_kl_pairwise, pairwise)):
            mean = torch.tensor(d, dtype=torch.float64, requires_grad=True)
            q = DiagonalGaussian(torch.stack([torch.zeros_like(mean), mean]).view(2, 1, 1),
                                 torch.zeros(2, 1, 1, dtype=torch.float64))
            kl(q, uniform(2)).sum().backward()
            found.append(mean.grad.item())
    assert pairwise == pytest.approx([2.0, 5.0, 12.0, 24.0])
    assert exact[0] > exact[1] > exact[2] > 0
    assert exact[2] < 1e-5 and abs(exact[3]) < 1e-12


# bounds and identities

one_dimensional = dict(seed=st.integers(0, 10_000), m=st.integers(2, 5), spread=st.floats(0, 10))


@pytest.mark.slow
@given(**one_dimensional)
def test_order_of_the_bounds(seed, m, spread):
    q = random_gaussian(m, 1, 1, seed=seed, spread=spread)
    exact = exact_kl(q, uniform(m))
    variational = mixture_kl_variational(q, uniform(m))[:, 0]
    pairwise = mixture_kl_pairwise(q, uniform(m))[:, 0]
    small = 1e-7
    assert (exact >= -small).all() and (exact <= math.log(m) + small).all()
    assert exact.sum() <= m * math.log(m) + small
    assert (exact <= variational + small).all()
    assert (variational <= pairwise + small).all() and (variational <= math.log(m) + small).all()


@given(seed=st.integers(0, 10_000), m=st.integers(2, 4))
def test_order_of_the_bounds_with_unequal_weights(seed, m):
    q = random_gaussian(m, 1, 1, seed=seed)
    log_weights = torch.randn(m, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).log_softmax(0)
    exact = exact_kl(q, log_weights)
    small = 1e-7
    assert (exact <= -log_weights[:, 0] + small).all()
    assert (exact <= mixture_kl_variational(q, log_weights)[:, 0] + small).all()
    assert (mixture_kl_variational(q, log_weights) <= mixture_kl_pairwise(q, log_weights) + small).all()
    assert (mixture_kl_variational(q, log_weights) <= -log_weights + small).all()


@given(seed=st.integers(0, 10_000), m=st.integers(2, 4))
def test_monte_carlo_is_unbiased(seed, m):
    q = random_gaussian(m, 1, 1, seed=seed)
    torch.manual_seed(seed)
    n = 20_000
    many = DiagonalGaussian(q.mean.expand(m, n, 1), q.logvar.expand(m, n, 1))
    estimates = mixture_kl_monte_carlo(many, uniform(m, n)).sum(0)
    # 1e-3: posteriors far apart have draws that are rarer than 1 in n, which the standard error does not know of
    assert abs(estimates.mean() - exact_kl(q, uniform(m)).sum()) < 5 * estimates.std() / math.sqrt(n) + 1e-3


def test_monte_carlo_averages_its_draws():
    q = random_gaussian(3, 2, 4)
    torch.manual_seed(1)
    single = [mixture_kl_monte_carlo(q, uniform(3, 2)) for _ in range(5)]
    torch.manual_seed(1)
    torch.testing.assert_close(mixture_kl_monte_carlo(q, uniform(3, 2), n_samples=5), torch.stack(single).mean(0))


@given(**one_dimensional)
def test_regulariser_is_m_times_the_jensen_shannon_divergence(seed, m, spread):
    """sum_m KL(q_m || h) = M H(h) - sum_m H(q_m), with the entropies of Gaussians in closed form."""
    q = random_gaussian(m, 1, 1, seed=seed, spread=spread)
    z, dz = grid(q)
    log_h = q.mixture_log_prob(z, uniform(m))[:, 0]
    entropy_h = -(log_h.exp() * log_h).sum() * dz
    entropies = 0.5 * (q.logvar + math.log(2 * math.pi * math.e)).sum()
    torch.testing.assert_close(exact_kl(q, uniform(m)).sum(), m * entropy_h - entropies, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), m=st.integers(2, 4), tilt=st.floats(0.05, 1.0))
def test_the_mixture_is_the_optimal_prior(seed, m, tilt):
    """Lemma 4.1: any other prior costs more, summed over the modalities."""
    q = random_gaussian(m, 1, 1, seed=seed)
    best = exact_kl(q, uniform(m)).sum()

    mean = q.mean.mean()
    variance = (q.var + q.mean ** 2).mean() - mean ** 2
    matched = DiagonalGaussian(mean.view(1), variance.log().view(1))
    others = {"moment-matched Gaussian": lambda z: matched.log_prob(z)[:, 0],
              "standard normal": lambda z: DiagonalGaussian(torch.zeros(1), torch.zeros(1)).log_prob(z)[:, 0]}
    weights = (tilt * torch.arange(m, dtype=torch.float64)).log_softmax(0).view(m, 1)
    others["reweighted mixture"] = lambda z: q.mixture_log_prob(z, weights)[:, 0]
    moved = DiagonalGaussian(q.mean + tilt * torch.tensor([1.0, -1.0] * m)[:m].view(m, 1, 1), q.logvar)
    others["shifted mixture"] = lambda z: moved.mixture_log_prob(z, uniform(m))[:, 0]
    wider = DiagonalGaussian(q.mean, q.logvar + tilt)
    others["widened mixture"] = lambda z: wider.mixture_log_prob(z, uniform(m))[:, 0]
    for name, log_prior in others.items():
        assert exact_kl(q, uniform(m), log_prior).sum() > best, name


@pytest.mark.parametrize("weights", ["uniform", [1.0, 2.0, 5.0]])
@pytest.mark.parametrize("bound", BOUNDS)
def test_identical_posteriors_cost_nothing(bound, weights):
    one = random_gaussian(1, 4, 3)
    q = DiagonalGaussian(one.mean.expand(3, 4, 3), one.logvar.expand(3, 4, 3))
    regulariser = MMVM(bound, weights)(q, everyone(q)).regulariser
    torch.testing.assert_close(regulariser, torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)


@given(seed=st.integers(0, 10_000), m=st.integers(1, 5), bound=st.sampled_from(BOUNDS))
def test_different_posteriors_cost_something_on_average(seed, m, bound):
    q = random_gaussian(m, 50, 2, seed=seed)
    torch.manual_seed(seed)
    mean = MMVM(bound)(q, everyone(q)).regulariser.mean()
    assert mean > 0.1 if m > 1 else abs(mean) < 1e-6


def test_an_outlier_of_the_posteriors_costs_at_most_m_log_m_but_not_pairwise():
    q = two(1000.0)
    for bound in ("variational", "monte_carlo"):
        assert MMVM(bound)(q, everyone(q)).regulariser.item() == pytest.approx(2 * math.log(2))
    assert MMVM("pairwise")(q, everyone(q)).regulariser.item() == pytest.approx(5e5)


# one modality

@pytest.mark.parametrize("bound", BOUNDS)
def test_one_modality_without_alpha_costs_nothing(bound):
    q = random_gaussian(1, 5, 3)
    mean = q.mean.clone().requires_grad_()
    shared = MMVM(bound)(DiagonalGaussian(mean, q.logvar), everyone(q))
    torch.testing.assert_close(shared.regulariser, torch.zeros(5, dtype=torch.float64), atol=1e-6, rtol=0)
    shared.regulariser.sum().backward()
    torch.testing.assert_close(mean.grad, torch.zeros_like(mean), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bound", BOUNDS)
def test_alpha_one_is_independent(bound, fixed_noise):
    q = random_gaussian(3, 4, 2)
    fixed_noise(torch.randn(3, 4, 2))
    ours, theirs = MMVM(bound, standard_normal_weight=1.0)(q, everyone(q)), Independent()(q, everyone(q))
    torch.testing.assert_close(ours.regulariser, theirs.regulariser)
    torch.testing.assert_close(theirs.regulariser, q.kl_standard_normal().sum(0))
    assert torch.equal(ours.latents, theirs.latents)


@given(alpha=st.floats(0, 1), bound=st.sampled_from(["pairwise", "variational"]))
def test_alpha_interpolates(alpha, bound):
    q = random_gaussian(3, 4, 2)
    shared = MMVM(bound, standard_normal_weight=alpha)(q, everyone(q))
    assert set(shared.parts) == {"kl_mixture", "kl_standard_normal"}
    torch.testing.assert_close(shared.parts["kl_mixture"], MMVM(bound)(q, everyone(q)).regulariser)
    torch.testing.assert_close(shared.parts["kl_standard_normal"], q.kl_standard_normal().sum(0))
    torch.testing.assert_close(shared.regulariser, (1 - alpha) * shared.parts["kl_mixture"]
                               + alpha * shared.parts["kl_standard_normal"])


def test_alpha_zero_never_touches_the_other_term():
    q = DiagonalGaussian(torch.full((2, 1, 1), 1e30, requires_grad=True), torch.zeros(2, 1, 1))
    assert q.kl_standard_normal().isinf().all()
    assert MMVM()(q, everyone(q)).regulariser.item() == 0


def test_alpha_one_never_touches_the_mixture():
    q = DiagonalGaussian(torch.tensor([1e16, -1e16]).view(2, 1, 1), torch.full((2, 1, 1), -20.0))
    assert q.pairwise_kl().isinf().any()
    assert MMVM(standard_normal_weight=1.0)(q, everyone(q)).regulariser.isfinite().all()


# permutations and gradients

@pytest.mark.parametrize("weights", ["uniform", [0.2, 0.5, 0.3]])
@pytest.mark.parametrize("bound", BOUNDS)
def test_permuted_modalities_give_permuted_results(bound, weights, fixed_noise):
    order = [2, 0, 1]
    q, noise = random_gaussian(3, 4, 2), torch.randn(3, 4, 2)
    observed = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    fixed_noise(noise)
    shared = MMVM(bound, weights)(q, observed)
    fixed_noise(noise[order])
    permuted = MMVM(bound, weights if weights == "uniform" else [weights[i] for i in order])(q[order], observed[order])
    torch.testing.assert_close(permuted.regulariser, shared.regulariser)
    assert torch.equal(permuted.latents, shared.latents[:, order])


def test_functions_permute_with_the_modalities():
    order = [2, 0, 1]
    q = random_gaussian(3, 4, 2)
    log_weights = torch.randn(3, 4, dtype=torch.float64).log_softmax(0)
    z = q.sample()
    for kl in (mixture_kl_pairwise, mixture_kl_variational):
        torch.testing.assert_close(kl(q[order], log_weights[order]), kl(q, log_weights)[order])
    torch.testing.assert_close(mixture_kl_monte_carlo(q[order], log_weights[order], z[order]),
                               mixture_kl_monte_carlo(q, log_weights, z)[order])


def test_functions_agree_with_the_formula_written_out():
    q, log_weights = random_gaussian(3, 2, 4), torch.randn(3, 2, dtype=torch.float64).log_softmax(0)
    z = q.sample()
    for m in range(3):
        for b in range(2):
            kl = [q[m, b].kl(q[n, b]) for n in range(3)]
            w = log_weights[:, b].exp()
            h = sum(w[n] * q[n, b].log_prob(z[m, b]).exp() for n in range(3))
            for ours, expected in (
                    (mixture_kl_pairwise(q, log_weights), sum(w[n] * kl[n] for n in range(3))),
                    (mixture_kl_variational(q, log_weights), -sum(w[n] * (-kl[n]).exp() for n in range(3)).log()),
                    (mixture_kl_monte_carlo(q, log_weights, z), q[m, b].log_prob(z[m, b]) - h.log())):
                torch.testing.assert_close(ours[m, b], expected)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("weights", ["uniform", [1.0, 3.0]])
def test_gradients_in_float64(bound, weights, fixed_noise):
    fixed_noise(torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    q = random_gaussian(2, 3, 2, spread=1.0)
    observed = torch.tensor([[1, 1, 0], [1, 0, 1]], dtype=torch.bool)
    objective = MMVM(bound, weights, standard_normal_weight=0.25).double()

    def regulariser(mean, logvar):
        shared = objective(DiagonalGaussian(mean, logvar), observed)
        return shared.regulariser, shared.latents, *shared.parts.values()

    assert torch.autograd.gradcheck(regulariser, (q.mean.clone().requires_grad_(), q.logvar.clone().requires_grad_()))


def test_pairwise_gradient_goes_through_both_arguments():
    """The released code does not detach the target: pulling q_0 towards q_1 moves both, equal and opposite."""
    mean = torch.tensor([0.0, 3.0], dtype=torch.float64).view(2, 1, 1).requires_grad_()
    q = DiagonalGaussian(mean, torch.zeros(2, 1, 1, dtype=torch.float64))
    mixture_kl_pairwise(q, uniform(2))[0].sum().backward()
    assert mean.grad.flatten().tolist() == pytest.approx([-1.5, 1.5])


# numerics

@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extreme", [-1000.0, -60.0, 60.0, 1000.0])
@pytest.mark.parametrize("bound", [*BOUNDS, "independent"])
def test_extreme_posteriors_stay_finite(bound, extreme, dtype):
    mean = torch.tensor([[[1e4, 0.0]], [[-1e4, 3.0]], [[0.0, 0.0]]]).to(dtype).requires_grad_()
    logvar = torch.tensor([[[extreme, 0.0]], [[0.0, -extreme]], [[extreme, extreme]]]).to(dtype).requires_grad_()
    objective = Independent() if bound == "independent" else MMVM(bound, standard_normal_weight=0.5)
    q = DiagonalGaussian(mean, logvar)
    shared = objective(q, everyone(q))
    assert shared.regulariser.dtype == torch.float32
    assert shared.regulariser.isfinite().all() and shared.latents.isfinite().all()
    (shared.regulariser.sum() + shared.latents.sum()).backward()
    assert mean.grad.isfinite().all() and logvar.grad.isfinite().all()


# missing modalities

OBJECTIVES_WITH_WEIGHTS = [Independent(), *(MMVM(bound, weights, standard_normal_weight=alpha) for bound in BOUNDS
                                            for weights, alpha in (("uniform", 0.0), ([1.0, 2.0, 5.0], 0.3)))]


@pytest.mark.parametrize("rubbish", [math.nan, math.inf, 1e38])
@pytest.mark.parametrize("objective", OBJECTIVES_WITH_WEIGHTS, ids=name_of)
def test_what_is_absent_changes_nothing(objective, rubbish, fixed_noise):
    """Each sample costs what it would cost with its observed modalities alone, and only these get a gradient."""
    noise = torch.randn(3, 5, 2)
    clean = random_gaussian(3, 5, 2)
    observed = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 0]], dtype=torch.bool)
    mean, logvar = (torch.where(observed[..., None], value, rubbish).requires_grad_()
                    for value in (clean.mean, clean.logvar))
    fixed_noise(noise)
    shared = objective(DiagonalGaussian(mean, logvar), observed)
    (shared.regulariser.sum() + shared.latents[:, observed].sum()).backward()
    assert all(value.isfinite().all() for value in shared.parts.values())
    for grad in (mean.grad, logvar.grad):
        assert grad.isfinite().all() and (grad[~observed] == 0).all()

    for b in range(5):
        present = observed[:, b]
        alone = objective
        if isinstance(objective, MMVM):
            alone = MMVM(objective.bound, "uniform" if objective.weights is None else objective.weights[present],
                         objective.standard_normal_weight)
        own_mean, own_logvar = (value[present, b:b + 1].clone().requires_grad_()
                                for value in (clean.mean, clean.logvar))
        fixed_noise(noise[present, b:b + 1])
        q = DiagonalGaussian(own_mean, own_logvar)
        expected = alone(q, everyone(q))
        torch.testing.assert_close(shared.regulariser[b:b + 1], expected.regulariser)
        torch.testing.assert_close(shared.latents[:, present, b:b + 1], expected.latents)
        (expected.regulariser.sum() + expected.latents.sum()).backward()
        torch.testing.assert_close(mean.grad[present, b:b + 1], own_mean.grad)
        torch.testing.assert_close(logvar.grad[present, b:b + 1], own_logvar.grad)


@pytest.mark.parametrize("objective", OBJECTIVES_WITH_WEIGHTS, ids=name_of)
def test_a_sample_of_which_nothing_is_observed_costs_nothing(objective):
    clean = random_gaussian(3, 2, 2)
    mean, logvar = clean.mean.clone().requires_grad_(), clean.logvar.clone().requires_grad_()
    shared = objective(DiagonalGaussian(mean, logvar), torch.tensor([[True, False]] * 3))
    shared.regulariser.sum().backward()
    assert shared.regulariser[1] == 0
    for grad in (mean.grad, logvar.grad):
        assert (grad[:, 1] == 0).all() and grad[:, 0].isfinite().all() and (grad[:, 0] != 0).any()


def test_weights_are_normalised_over_what_is_observed():
    observed, q = torch.tensor([[1, 1], [1, 0], [1, 1]], dtype=torch.bool), random_gaussian(3, 2, 2)
    q = DiagonalGaussian(q.mean.float(), q.logvar.float())
    torch.testing.assert_close(MMVM().log_weights(q, observed).exp(),
                               torch.tensor([[1 / 3, 1 / 2], [1 / 3, 0], [1 / 3, 1 / 2]]))
    torch.testing.assert_close(MMVM(weights=[2, 3, 5]).log_weights(q, observed).exp(),
                               torch.tensor([[0.2, 2 / 7], [0.3, 0], [0.5, 5 / 7]]))
    torch.testing.assert_close(MMVM(weights=torch.tensor([4e-30, 6e-30, 10e-30])).log_weights(q, observed).exp(),
                               torch.tensor([[0.2, 2 / 7], [0.3, 0], [0.5, 5 / 7]]))


# imputation

@pytest.mark.parametrize("objective", [Independent(), MMVM()])
def test_absent_modalities_borrow_a_draw_of_a_present_one(objective):
    clean = random_gaussian(4, 300, 2)
    observed = torch.tensor([True, False, True, False])[:, None].expand(4, 300)
    q = DiagonalGaussian(torch.where(observed[..., None], clean.mean, math.nan), clean.logvar)
    latents = objective.impute_latents(q, observed)
    assert latents.shape == (4, 300, 2) and latents.isfinite().all()
    for absent in (1, 3):
        sources = torch.stack([(latents[absent] == latents[present]).all(-1) for present in (0, 2)])
        assert (sources.sum(0) == 1).all()
        assert 110 < sources[0].sum() < 190  # either source half of the time: 150 +- 4.6 sd
    assert not torch.equal(latents[1], latents[3])  # each target chooses for itself


def test_one_present_modality_speaks_for_all():
    torch.manual_seed(0)
    q = random_gaussian(3, 5, 2)
    observed = torch.tensor([False, True, False])[:, None].expand(3, 5)
    latents = MMVM().impute_latents(q, observed)
    assert torch.equal(latents[0], latents[1]) and torch.equal(latents[2], latents[1])


def test_imputation_draws_from_the_weighted_mixture():
    q = random_gaussian(3, 4_000, 1)
    observed = torch.tensor([True, True, False])[:, None].expand(3, 4_000)
    latents = MMVM(weights=[1.0, 9.0, 5.0]).impute_latents(q, observed)
    share = (latents[2] == latents[1]).float().mean().item()
    assert share == pytest.approx(0.9, abs=0.02)  # 4.2 standard errors


def test_present_modalities_keep_their_own_posterior(fixed_noise):
    q, noise = random_gaussian(3, 4, 2), torch.randn(3, 4, 2)
    fixed_noise(noise)
    latents = MMVM().impute_latents(q, everyone(q))
    torch.testing.assert_close(latents, q.mean + q.std * noise)


# schedules

@pytest.mark.parametrize("form", ["exponential", "linear", "cosine"])
def test_schedule_starts_ends_and_stays(form):
    alpha = Schedule(1.0, 0.0, 1000, form)
    values = [alpha(step) for step in range(1500)]
    assert values[0] == pytest.approx(1.0) and set(values[1000:]) == {0.0}
    assert all(a > b for a, b in zip(values[:1000], values[1:1001]))
    rising = Schedule(0.25, 0.75, 10, form)
    assert rising(0) == pytest.approx(0.25) and rising(10) == rising(11) == 0.75 and 0.25 < rising(5) < 0.75


def test_schedule_values():
    exponential = Schedule(1.0, 0.0, 150_000)  # the released code's
    assert exponential(15_000) == pytest.approx(0.1)
    assert exponential(45_000) == pytest.approx(1e-3)
    for step in (1, 777, 149_999):
        assert exponential(step) == pytest.approx(10 ** (-10 * step / 150_000))
    linear = Schedule(0.8, 0.2, 10, "linear")
    assert linear(5) == pytest.approx(0.5) and linear(1) == pytest.approx(0.74)
    cosine = Schedule(1.0, 0.0, 100, "cosine")
    assert cosine(50) == pytest.approx(0.5) and cosine(25) == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_schedule_drives_alpha():
    q = random_gaussian(2, 3, 2)
    objective = MMVM(standard_normal_weight=Schedule(1.0, 0.0, 10, "linear"))
    for step, alpha in ((0, 1.0), (3, 0.7), (10, 0.0), (99, 0.0)):
        expected = MMVM(standard_normal_weight=alpha)(q, everyone(q)).regulariser
        torch.testing.assert_close(objective(q, everyone(q), step).regulariser, expected)


# mistakes

@pytest.mark.parametrize("make, message", [
    (lambda: MMVM(bound="exact"), "'exact'.*'pairwise', 'monte_carlo', 'variational'"),
    (lambda: MMVM(weights="equal"), "'equal'.*'uniform', a sequence"),
    (lambda: MMVM(weights=[1.0, 0.0]), r"positive finite.*\[1.0, 0.0\]"),
    (lambda: MMVM(weights=[1.0, -1.0]), "positive"),
    (lambda: MMVM(weights=[1.0, math.nan]), "positive"),
    (lambda: MMVM(weights=[1.0, math.inf]), "finite"),
    (lambda: MMVM(weights=[[1.0, 2.0]]), "M positive"),
    (lambda: MMVM(weights=[]), "M positive"),
    (lambda: MMVM(standard_normal_weight=1.5), r"\[0, 1\].*1.5"),
    (lambda: MMVM(standard_normal_weight=-0.1), r"\[0, 1\].*-0.1"),
    (lambda: MMVM(standard_normal_weight=math.nan), r"\[0, 1\]"),
    (lambda: MMVM(standard_normal_weight=Schedule(2.0, 0.0, 10)), r"\[0, 1\].*2.0"),
    (lambda: MMVM(standard_normal_weight=Schedule(1.0, -1.0, 10, "linear")), r"\[0, 1\].*-1.0"),
    (lambda: Schedule(1.0, 0.0, 10, "step"), "'step'.*'exponential', 'linear' or 'cosine'"),
    (lambda: Schedule(1.0, 0.0, 0), "at least one step, got 0"),
])
def test_mistakes_are_named_with_their_cure(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_wrong_number_of_weights_is_named():
    q = random_gaussian(3, 2, 2)
    with pytest.raises(UserError, match="2 mixture weights for 3 modalities: give one each"):
        MMVM(weights=[1.0, 2.0])(q, everyone(q))
