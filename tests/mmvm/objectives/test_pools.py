"""Pools of posteriors against their densities: numerical integration in one dimension, loops, and Monte Carlo."""

import itertools
import math

import pytest
import torch
from hypothesis import given, strategies as st

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives import (
    MMVM,
    Aggregated,
    Hellinger,
    Pool,
    build,
    mixture_kl_pairwise,
    mixture_kl_variational,
    pairs,
)

SOME = torch.tensor([[1, 1, 1, 0, 1, 0], [1, 1, 0, 1, 0, 0], [1, 0, 1, 1, 0, 0]], dtype=torch.bool)
PRIORS = ["mmvm:prior=geometric", "mmvm:prior=hellinger", "mmvm:bound=variational,prior=hellinger",
          "mmvm:bound=monte_carlo,prior=hellinger", "mmvm:exponent=0.25", "mmvm:bound=variational,exponent=0.7",
          "mmvm:bound=monte_carlo,exponent=0.7", "mmvm:pool=matched", "mmvm:prior=hellinger,pool=matched",
          "mmvm:prior=hellinger,bhattacharyya=per_dimension",
          "mmvm:prior=hellinger,pool=matched,bhattacharyya=per_dimension"]
POOLED = ["hellinger", "hellinger:bhattacharyya=joint", "hellinger:pool=exact",
          "hellinger:pool=exact,bhattacharyya=joint", "hellinger:pool=components,bhattacharyya=joint"]
one_dimensional = dict(seed=st.integers(0, 10_000), m=st.integers(2, 4), spread=st.floats(0, 6))


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def gaussians(m=3, b=1, d=1, seed=0, spread=1.5):
    g = torch.Generator().manual_seed(seed)
    return DiagonalGaussian(spread * torch.randn(m, b, d, generator=g), 0.8 * torch.randn(m, b, d, generator=g))


def weights(m=3, b=1, seed=None):
    if seed is None:
        return torch.full((m, b), -math.log(m))
    return torch.randn(m, b, generator=torch.Generator().manual_seed(seed)).log_softmax(0)


def grid(q, n=40_001):
    """Points (n,) that cover q (M, 1, 1) by twelve standard deviations, and their distance."""
    z = torch.linspace((q.mean - 12 * q.std).min().item(), (q.mean + 12 * q.std).max().item(), n)
    return z, z[1] - z[0]


def density(q, log_w, t, z):
    """The power mean written out, normalised by the sum over the grid: (n,)."""
    p = [q[m].log_prob(z[:, None, None])[:, 0].exp() for m in range(len(q.mean))]
    w = log_w[:, 0].exp()
    h = torch.stack([p_m ** w_m for p_m, w_m in zip(p, w)]).prod(0) if t == 0 else \
        sum(w_m * p_m ** t for p_m, w_m in zip(p, w)) ** (1 / t)
    return h / (h.sum() * (z[1] - z[0]))


def moments(h, z):
    mean = (h * z).sum() / h.sum()
    return mean, (h * (z - mean) ** 2).sum() / h.sum()


def quadrature(q, log_w, t):
    """KL(q_m || pool), (M,) nats."""
    z, dz = grid(q)
    log_q = torch.stack([q[m].log_prob(z[:, None, None])[:, 0] for m in range(len(q.mean))])
    log_p = log_w[:, 0, None] + t * log_q
    log_h = (log_w[:, 0, None].exp() * log_q).sum(0) if t == 0 else log_p.logsumexp(0) / t
    log_h = log_h - (log_h.logsumexp(0) + dz.log())
    return (log_q.exp() * (log_q - log_h)).sum(1) * dz


# the density

@pytest.mark.parametrize("t", [0.0, 0.25, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("seed", [None, 1], ids=["equal", "unequal"])
def test_the_density_is_the_normalised_power_mean(t, seed):
    q, log_w = gaussians(), weights(seed=seed)
    z, _ = grid(q, 10_001)
    pool, expected = Pool(q, log_w, t), density(q, log_w, t, z)
    torch.testing.assert_close(pool.log_prob(z[:, None, None])[:, 0].exp(), expected, rtol=1e-8, atol=1e-12)
    if t:
        parts, log_v = pool.components()
        assert len(log_v) == math.comb(3 + round(1 / t) - 1, round(1 / t))
        torch.testing.assert_close(parts.mixture_log_prob(z[:, None, None], log_v)[:, 0].exp(), expected, rtol=1e-8,
                                   atol=1e-12)
    torch.testing.assert_close(torch.stack([pool.gaussian().mean[0, 0], pool.gaussian().var[0, 0]]),
                               torch.stack(moments(expected, z)), rtol=1e-6, atol=1e-8)


def test_the_components_of_the_hellinger_pool_are_those_of_the_formula():
    q, w = gaussians(3, 4, 2), weights(3, 4, seed=5).exp()
    parts, log_v = Pool(q, w.log(), 0.5).components()
    expected = []
    for k, (m, n) in enumerate(itertools.combinations_with_replacement(range(3), 2)):
        a, b = 1 / q.var[m], 1 / q.var[n]
        torch.testing.assert_close(parts.var[k], 2 / (a + b))
        torch.testing.assert_close(parts.mean[k], (a * q.mean[m] + b * q.mean[n]) / (a + b))
        s, distance = q.var[m] + q.var[n], (q.mean[m] - q.mean[n]).square()
        coefficient = ((2 * q.std[m] * q.std[n] / s).sqrt() * (-distance / (4 * s)).exp()).prod(-1)
        expected.append((1 if m == n else 2) * w[m] * w[n] * coefficient)
    torch.testing.assert_close(log_v.exp(), torch.stack(expected) / sum(expected))


def test_the_normaliser_rises_with_the_exponent_up_to_one_and_draws_estimate_it():
    q, log_w, n = gaussians(spread=2.5), weights(), 100_000
    z, dz = grid(q)
    exact = []
    for t in (0.1, 0.25, 0.5, 0.7, 1.0):
        p = torch.stack([q[m].log_prob(z[:, None, None])[:, 0] for m in range(3)])
        exact.append(((log_w[:, 0, None] + t * p).logsumexp(0) / t).exp().sum() * dz)
        many = Pool(DiagonalGaussian(q.mean.expand(3, n, 1), q.logvar.expand(3, n, 1)), log_w.expand(3, n), t)
        found = many.log_normaliser().exp()
        assert abs(found.mean() - exact[-1]) < 5 * found.std() / math.sqrt(n) + 1e-8
        assert many.order in (0, round(1 / t)) and (many.order == 0) == (t in (0.1, 0.7))
    assert all(a < b for a, b in zip(exact, exact[1:])) and exact[-1] == pytest.approx(1)


@given(seed=st.integers(0, 10_000), spread=st.floats(0, 6))
def test_two_posteriors_pool_to_a_spread_between_product_and_mixture(seed, spread):
    q = gaussians(2, seed=seed, spread=spread)
    pooled = Pool(q, weights(2)).gaussian().var.item()
    product = q.product().var.item()
    mixture = Pool(q, weights(2), 1.0).gaussian().var.item()
    assert product < pooled <= mixture * (1 + 1e-9)


@given(**one_dimensional)
def test_no_pool_is_narrower_than_the_product(seed, m, spread):
    q = gaussians(m, seed=seed, spread=spread)
    assert all(Pool(q, weights(m), t).gaussian().var.item() > q.product().var.item() for t in (0.0, 1 / 3, 0.5, 1.0))


@pytest.mark.parametrize("per_dimension", [False, True])
@pytest.mark.parametrize("t", [0.0, 1 / 3, 0.5, 1.0])
def test_one_posterior_and_equal_posteriors_pool_to_themselves(t, per_dimension):
    one = gaussians(1, 5, 3)
    for m in (1, 3):
        q = DiagonalGaussian(one.mean.expand(m, 5, 3), one.logvar.expand(m, 5, 3))
        pool = Pool(q, weights(m, 5, seed=2), t, per_dimension)
        torch.testing.assert_close(pool.gaussian().mean, one.mean[0])
        torch.testing.assert_close(pool.gaussian().logvar, one.logvar[0])
        z = torch.randn(7, 5, 3)
        torch.testing.assert_close(pool.log_prob(z), one.log_prob(z.unsqueeze(1))[:, 0])


def test_per_dimension_is_a_product_of_one_dimensional_pools():
    q, log_w, z = gaussians(3, 4, 3), weights(3, 4, seed=1), torch.randn(3, 4, 3)
    pool = Pool(q, log_w, 0.5, per_dimension=True)
    alone = [Pool(q[..., d:d + 1], log_w, 0.5) for d in range(3)]
    torch.testing.assert_close(pool.log_prob(z), sum(one.log_prob(z[..., d:d + 1]) for d, one in enumerate(alone)))
    torch.testing.assert_close(pool.gaussian().var, torch.cat([one.gaussian().var for one in alone], -1))
    for bound in MMVM.BOUNDS:
        torch.testing.assert_close(pool.kl(bound, z), sum(one.kl(bound, z[..., d:d + 1])
                                                          for d, one in enumerate(alone)))


# the divergence

@given(**one_dimensional)
def test_the_bounds_lie_above_the_divergence_and_below_the_ceiling(seed, m, spread):
    q, log_w, small = gaussians(m, seed=seed, spread=spread), weights(m), 1e-6
    for k in (2, 3):
        pool, exact = Pool(q, log_w, 1 / k), quadrature(q, log_w, 1 / k)
        variational, pairwise = (pool.kl(bound, q.mean)[:, 0] for bound in ("variational", "pairwise"))
        assert (exact > -small).all() and (exact <= variational + small).all()
        assert (variational <= pairwise + small).all()
        assert (variational <= k * math.log(m) + pool.log_normaliser() + small).all()


@given(**one_dimensional)
def test_the_geometric_prior_is_the_pairwise_bound_with_its_normaliser(seed, m, spread):
    q, log_w = gaussians(m, seed=seed, spread=spread), weights(m)
    found = Pool(q, log_w, 0.0).kl("pairwise", q.mean)[:, 0]
    torch.testing.assert_close(found, quadrature(q, log_w, 0.0), rtol=1e-6, atol=1e-6)
    normaliser = -(log_w.exp() * Pool(q, log_w, 0.0).gaussian().kl(q)).sum()
    torch.testing.assert_close(found, mixture_kl_pairwise(q, log_w)[:, 0] + normaliser, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0.25, 0.5, 0.7])
def test_single_draws_estimate_the_divergence(t):
    n, q, log_w = 200_000, gaussians(spread=1.0), weights()
    many = DiagonalGaussian(q.mean.expand(3, n, 1), q.logvar.expand(3, n, 1))
    torch.manual_seed(0)
    found = Pool(many, log_w.expand(3, n), t).kl("monte_carlo", many.sample())
    bias = 0.02 if t == 0.7 else 0  # the logarithm of an estimated normaliser
    assert (found.mean(1) - quadrature(q, log_w, t)).abs().max() < 5 * found.std(1).max() / math.sqrt(n) + bias


def test_the_family_runs_from_the_geometric_prior_to_the_mixture():
    q, log_w = gaussians(spread=1.5), weights()
    exact = [quadrature(q, log_w, t).sum().item() for t in (0.0, 1e-4, 0.25, 0.5, 0.75, 1.0)]
    assert all(a > b for a, b in zip(exact, exact[1:])) and exact[1] == pytest.approx(exact[0], rel=0.02)
    mixture, z = Pool(q, log_w, 1.0), q.sample()
    torch.testing.assert_close(mixture.kl("pairwise", z), mixture_kl_pairwise(q, log_w))
    torch.testing.assert_close(mixture.kl("variational", z), mixture_kl_variational(q, log_w))
    torch.testing.assert_close(mixture.kl("monte_carlo", z), q.log_prob(z) - q.mixture_log_prob(z, log_w))
    many = DiagonalGaussian(q.mean.expand(3, 20_000, 1), q.logvar.expand(3, 20_000, 1))
    small, z = Pool(many, log_w.expand(3, 20_000), 1e-4), many.sample()
    log_z = small.log_normaliser(z)  # of one draw each: its mean is biased, the logarithm of the mean of all is not
    near = (small.kl("variational", z) - log_z).mean(1) + log_z.exp().mean().log()
    torch.testing.assert_close(near, Pool(q, log_w, 0.0).kl("variational", q.mean)[:, 0], rtol=0.02, atol=0.02)


def test_a_dimension_of_two_unit_gaussians():
    """Distance d: geometric d^2/4, half the pairwise bound; matched mixture log(1 + d^2/4); all in nats, summed."""
    for d in (0.5, 3.0, 40.0):
        q = DiagonalGaussian(torch.tensor([0.0, d]).view(2, 1, 1), torch.zeros(2, 1, 1))
        cost = {text: build(text, 1, 2)(q, torch.ones(2, 1, dtype=torch.bool)).regulariser.item()
                for text in ("mmvm", "mmvm:prior=geometric", "mmvm:pool=matched",
                             "mmvm:bound=variational,prior=hellinger")}
        assert list(cost.values()) == pytest.approx(
            [d**2 / 2, d**2 / 4, math.log(1 + d**2 / 4),
             2 * (-2 * math.log((1 + math.exp(-d**2 / 4)) / 2) + math.log((1 + math.exp(-d**2 / 8)) / 2))])


# draws

@pytest.mark.parametrize("d", [1, 2])
def test_draws_have_the_pools_moments_and_their_pathwise_gradient(d):
    """d/d(mean, logvar) of E[sin z_0] and of E[z_0 z_1] by draws, against the mixture's closed forms."""
    n, q = 100_000, gaussians(2, 1, d, seed=3, spread=0.8)
    mean, logvar = q.mean.clone().requires_grad_(), q.logvar.clone().requires_grad_()

    def expectation(z):
        return z[:, 0].sin() + (z[:, 0] * z[:, -1] if d > 1 else 0)

    torch.manual_seed(0)
    wide = [value.expand(2, n, d).detach().requires_grad_() for value in (mean, logvar)]
    value = expectation(Pool(DiagonalGaussian(*wide), weights(2, n)).sample())
    gradients = torch.autograd.grad(value.sum(), wide)

    parts, log_v = Pool(DiagonalGaussian(mean, logvar), weights(2)).components()
    by_part = parts.mean[..., 0].sin() * (-parts.var[..., 0] / 2).exp()  # E sin z of a Gaussian
    if d > 1:
        by_part = by_part + parts.mean[..., 0] * parts.mean[..., 1]
    exact = (log_v.exp() * by_part).sum()
    assert abs(value.mean() - exact) < 5 * value.std() / math.sqrt(n)
    for found, expected in zip(gradients, torch.autograd.grad(exact, (mean, logvar))):
        error = found.std(1) / math.sqrt(n)
        assert ((found.mean(1) - expected[:, 0]).abs() < 5 * error + 1e-4).all()


@pytest.mark.parametrize("text", POOLED)
def test_hellinger_is_the_divergence_of_its_own_density(text):
    n, q = 50_000, gaussians(3, 1, 1, spread=1.0)
    objective = build(text, 1, 3)
    torch.manual_seed(0)
    many = DiagonalGaussian(q.mean.expand(3, n, 1), q.logvar.expand(3, n, 1))
    shared = objective(many, torch.ones(3, n, dtype=torch.bool))
    z, dz = grid(q)
    h, standard = density(q, weights(), 0.5, z), (-0.5 * (z.square() + math.log(2 * math.pi))).exp()
    if objective.pool == "matched":
        mean, variance = moments(h, z)
        h = DiagonalGaussian(mean.view(1), variance.log().view(1)).log_prob(z[:, None]).exp()
    expected = (torch.xlogy(h, h) - torch.xlogy(h, standard)).sum() * dz
    found = shared.regulariser
    assert abs(found.mean() - expected) < 5 * found.std() / math.sqrt(n) + 1e-6
    moment = shared.reconstruction(shared.latents[..., 0].square()) / 3
    assert abs(moment.mean() - (h * z.square()).sum() * dz) < 5 * moment.std() / math.sqrt(n)
    assert (shared.latents == shared.latents[:, :1]).all()  # one z for all decoders
    ratio = objective.importance_draws(many, torch.ones(3, n, dtype=torch.bool), 1)[1][0, 0]
    assert abs(ratio.exp().mean() - 1) < 5 * ratio.exp().std() / math.sqrt(n)


# missing modalities, extremes

def same_draws(monkeypatch):
    """Every draw lies 0.6 standard deviations above its mean, of the first component that exists."""
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.full(
        shape if isinstance(shape[0], int) else shape[0], 0.6))
    monkeypatch.setattr(torch, "multinomial", lambda p, n, **_: (p > 0).int().argmax(1, keepdim=True))


@pytest.mark.parametrize("text", PRIORS + POOLED)
def test_what_is_absent_is_as_if_it_did_not_exist(text, monkeypatch):
    same_draws(monkeypatch)
    clean = gaussians(3, 6, 2)
    mean, logvar = (torch.where(SOME[..., None], value, math.nan).requires_grad_()
                    for value in (clean.mean, clean.logvar))
    shared = build(text, 2, 3)(DiagonalGaussian(mean, logvar), SOME)
    total = shared.regulariser.sum() + shared.reconstruction(
        shared.latents.square().sum(-1).masked_fill(~SOME, 0.0)).sum()
    gradients = torch.autograd.grad(total, (mean, logvar))
    assert all(g.isfinite().all() and (g[~SOME] == 0).all() for g in gradients) and shared.regulariser[-1] == 0
    for b in range(5):
        present = SOME[:, b]
        own = [value[present, b:b + 1].detach().requires_grad_() for value in (mean, logvar)]
        n = int(present.sum())
        expected = build(text, 2, n)(DiagonalGaussian(*own), torch.ones(n, 1, dtype=torch.bool))
        torch.testing.assert_close(shared.regulariser[b:b + 1], expected.regulariser)
        its = expected.regulariser.sum() + expected.reconstruction(expected.latents.square().sum(-1)).sum()
        for whole, alone in zip(gradients, torch.autograd.grad(its, own)):
            torch.testing.assert_close(whole[present, b:b + 1], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("text", PRIORS + POOLED)
def test_posteriors_far_apart_have_finite_gradients(text, dtype):
    place = torch.tensor([-1e3, 0.0, 1e3], dtype=dtype)[:, None, None]
    width = torch.tensor([1e-6, 1.0, 1e6], dtype=dtype).log()[:, None, None]
    mean, logvar = (value.repeat(1, 6, 3).requires_grad_() for value in (place, width))
    objective = build(text, 3, 3)
    shared = objective(DiagonalGaussian(mean, logvar), SOME)
    assert shared.regulariser.isfinite().all() and shared.latents.isfinite().all()
    gradients = torch.autograd.grad(shared.regulariser.sum() + shared.latents.sum(), (mean, logvar))
    assert all(g.isfinite().all() for g in gradients)
    assert objective.impute_latents(DiagonalGaussian(mean, logvar), SOME).isfinite().all()


@pytest.mark.parametrize("text", ["mmvm:prior=geometric", "mmvm:prior=hellinger", "mmvm:exponent=0.25",
                                  "mmvm:prior=hellinger,pool=matched", "mmvm:prior=hellinger,bound=variational",
                                  "mmvm:prior=hellinger,bhattacharyya=per_dimension", "hellinger",
                                  "mmvm:prior=hellinger,pool=matched,bhattacharyya=per_dimension"])
def test_gradients_are_those_of_differences(text):
    q, observed = gaussians(3, 3, 2), SOME[:, :3]
    objective = build(text, 2, 3)
    assert torch.autograd.gradcheck(
        lambda mean, logvar: objective(DiagonalGaussian(mean, logvar), observed).regulariser,
        (q.mean.clone().requires_grad_(), q.logvar.clone().requires_grad_()))


@pytest.mark.parametrize("per_dimension", [False, True])
@pytest.mark.parametrize("m", [1, 2, 4])
def test_moments_of_pairs_are_those_of_their_mixture_and_so_are_their_gradients(m, per_dimension):
    q, log_w = gaussians(m, 3, 2, seed=4), weights(m, 3, seed=5)
    parts, log_v = Pool(q, log_w, 0.5, per_dimension).components()
    v = log_v.exp().unsqueeze(-1)
    mean = (v * parts.mean).sum(0)
    var = (v * (parts.var + (parts.mean - mean) ** 2)).sum(0)
    found = Pool(q, log_w, 0.5, per_dimension).gaussian()
    torch.testing.assert_close((found.mean, found.var), (mean.reshape(3, 2), var.reshape(3, 2)))
    log_weights = torch.randn(m * (m + 1) // 2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda *given: pairs.moments(*given, per_dimension), (
        q.mean.clone().requires_grad_(), q.logvar.clone().requires_grad_(), log_weights.requires_grad_()))


@pytest.mark.parametrize("per_dimension", [False, True])
def test_moments_of_pairs_in_single_precision_are_those_in_double_at_the_limits(per_dimension):
    """Variances from e^-20 to e^20, means up to 1,000 apart: finite, and as in float64 to a thousandth."""
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(3, 40, 4, generator=g) * 10.0 ** torch.randint(-2, 4, (3, 40, 4), generator=g)
    logvar = (40 * torch.rand(3, 40, 4, generator=g) - 20)
    log_weights, pull = torch.randn(6, 40, generator=g), torch.randn(2, 40, 4, generator=g)
    found = []
    for dtype in (torch.float32, torch.float64):
        given = [x.to(dtype).requires_grad_() for x in (mean.float(), logvar.float(), log_weights.float())]
        m, var = pairs.moments(*given, per_dimension)
        loss = (pull[0].to(dtype) * m).sum() + (pull[1].to(dtype) * var.log()).sum()
        found.append([m, var.log(), *torch.autograd.grad(loss, given)])
    for single, double in zip(*found):
        assert single.isfinite().all()
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3 * float(double.detach().abs().max()))


def test_modalities_far_apart_are_not_fused_and_close_ones_are():
    near = DiagonalGaussian(torch.tensor([0.0, 0.0, 50.0]).view(3, 1, 1), torch.zeros(3, 1, 1))
    _, log_v = Pool(near, weights()).components()  # pairs 00 01 02 11 12 22
    torch.testing.assert_close(log_v.exp().flatten(), torch.tensor([1.0, 2.0, 0.0, 1.0, 0.0, 1.0]) / 5)


# mistakes

@pytest.mark.parametrize("text, message", [
    ("mmvm:exponent=0.7", "exponent=0.7 the prior is no mixture of Gaussians: add bound=variational or"),
    ("mmvm:exponent=0.7,bound=variational,pool=matched", "with pool=exact, or use an exponent of 1/2"),
    ("mmvm:prior=geometric,exponent=0.5", "prior='geometric' has an exponent of its own: leave prior or exponent out"),
    ("mmvm:prior=geometric,gate=soft", "a gate weighs the mixture of all dimensions: leave prior, pool"),
    ("mmvm:exponent=1.5", "exponent must be number at least 0 at most 1, got '1.5'"),
    ("hellinger:pool=components", "pool=components needs bhattacharyya=joint"),
])
def test_mistakes_are_named_with_their_cure(text, message):
    with pytest.raises(UserError, match=message):
        build(text, 4, 3)


def test_what_has_too_many_components_or_none_is_said():
    q = gaussians(30, 1, 1)
    with pytest.raises(UserError, match="30 posteriors with exponent 1/3 has 4,960 components: use an exponent of 1/2"):
        Pool(q, weights(30), 1 / 3).components()
    with pytest.raises(UserError, match="exponent 1/2 has 3,240 components: use an exponent of 1, or 0"):
        Pool(gaussians(80, 1, 1), weights(80), 0.5).components()
    with pytest.raises(UserError, match="exponent 0.7 is no mixture of Gaussians"):
        Pool(q, weights(30), 0.7).components()


def test_hellinger_lies_between_the_methods_beside_it():
    q = gaussians(2, spread=1.0)
    everyone = torch.ones(2, 1, dtype=torch.bool)
    product = Aggregated("poe").components(q, everyone)[0]
    assert product.var.item() < Hellinger().pooled(q, everyone).gaussian().var.item()


def kept_for_the_gradient(objective, m: int) -> int:
    """Bytes of the distinct tensors that the forward pass keeps."""
    torch.manual_seed(0)
    mean, logvar = (torch.randn(m, 64, 8, requires_grad=True) for _ in range(2))
    kept: dict[int, int] = {}
    held = []  # a tensor's place must not be taken by another

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(DiagonalGaussian(mean, logvar), torch.ones(m, 64, dtype=torch.bool)).regulariser.mean()
    return sum(kept.values())


@pytest.mark.parametrize("options, least, most", [
    ({"prior": "geometric"}, 1.7, 2.1), ({}, 1.7, 2.1),
    ({"prior": "hellinger"}, 3.0, 4.2), ({"prior": "hellinger", "bound": "variational"}, 3.4, 4.2)])
def test_memory_grows_linearly_in_m_and_quadratically_under_hellinger_priors(options, least, most):
    few, many = (kept_for_the_gradient(MMVM(**options), m) for m in (30, 60))
    assert least < many / few < most
