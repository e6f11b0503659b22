"""JMVAE, MVAE and MMVAE against their originals' formulas, spelled out for each sample in float64; Laplaces."""

import math

import pytest
import torch
from conftest import SEED
from test_methods import (
    ALL,
    BETA,
    SOME,
    STANDARD,
    B,
    D,
    M,
    check,
    complete_or_not,
    decode,
    kl_standard,
    leaves,
    product,
    recorded,
)
from torch import distributions as dist

from mmvm import Modality, MultimodalData, MultimodalVAE, Normal
from mmvm.errors import UserError
from mmvm.evaluation import rate
from mmvm.evaluation.encodings import posteriors
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives import JMVAE, MMVAE, MVAE, Aggregated, MMVAEPlus, build
from mmvm.objectives.laplace import DiagonalLaplace


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def laplace(p):
    return dist.Laplace(p.mean, p.stddev / math.sqrt(2))


# JMVAE

@complete_or_not
@pytest.mark.parametrize("alpha", [0.0, 0.1, 2.0])
def test_jmvae_equals_its_definition(alpha, observed):
    objective = JMVAE(M, D, alpha, width=7)

    def reference(b, q, drawn, ll):
        read = []
        for m in range(M):
            p = q.get(m)
            read += [p.mean, p.variance.log(), torch.ones(1)] if p else [torch.zeros(2 * D + 1)]
        mean, logvar = objective.joint(torch.cat(read)).chunk(2)
        joint = dist.Normal(mean, (logvar / 2).exp())
        z = joint.mean + joint.stddev * drawn["randn"][0][b]
        regulariser = kl_standard(joint) + alpha * sum(dist.kl_divergence(joint, p).sum() for p in q.values())
        return [(0, m, 1.0, z) for m in q], regulariser, -sum(ll(m, z) for m in q) + BETA * regulariser
    check(objective, observed, reference)


def test_jmvae_imputes_from_its_joint_posterior_or_from_the_product_of_what_is_there():
    mean, logvar, _ = leaves()
    q, objective = DiagonalGaussian(mean.detach(), logvar.detach()), JMVAE(M, D)
    torch.manual_seed(SEED)
    draws = torch.stack([objective.impute_latents(q, SOME) for _ in range(1_500)])
    assert (draws == draws[:, :1]).all(), "one z for all decoders"
    joint = objective.posterior(q, SOME)
    for b in range(B):
        there = [dist.Normal(q.mean[m, b], q.std[m, b]) for m in range(M) if SOME[m, b]]
        expected = dist.Normal(joint.mean[b], joint.std[b]) if len(there) == M else product(there, False)
        error = expected.stddev / math.sqrt(len(draws))
        assert ((draws[:, 0, b].mean(0) - expected.mean).abs() < 5 * error).all()
        assert torch.allclose(draws[:, 0, b].std(0), expected.stddev, rtol=0.15)


def test_jmvae_trains_its_joint_encoder_and_the_encoders_with_both_terms():
    mean, logvar, _ = leaves()
    objective = JMVAE(M, D)
    for name in ("kl_joint", "kl_unimodal"):
        part = objective(DiagonalGaussian(mean, logvar), ALL).parts[name].sum()
        found = torch.autograd.grad(part, [mean, *objective.joint.parameters()], allow_unused=True)
        assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in found)


# MVAE

@complete_or_not
@pytest.mark.parametrize("subsets", [0, 1, 3])
def test_mvae_equals_its_definition(subsets, observed, monkeypatch):
    """The bound of everything, of each modality alone, and of subsets of 2 to M - 1, each with N(0, I) as an expert."""
    drawn_subsets, randint = [], torch.randint
    monkeypatch.setattr(torch, "randint", lambda *a, **k: drawn_subsets.append(randint(*a, **k)) or drawn_subsets[-1])
    pairs = [{0, 1}, {0, 2}, {1, 2}]

    def reference(b, q, drawn, ll):
        bounds = [(0, set(q), drawn["randn"][0][b])]
        bounds += [(1 + m, {m}, drawn["randn"][1][m, b]) for m in q]
        for k in range(subsets):
            members = pairs[drawn_subsets[0][k, b]] & set(q)
            if members:
                bounds.append((1 + M + k, members, drawn["randn"][2][k, b]))
        sources, regulariser, loss = [], 0, 0
        for s, members, noise in bounds:
            posterior = product([q[m] for m in members], True)
            z = posterior.mean + posterior.stddev * noise
            sources += [(s, m, 1.0, z) for m in members]
            regulariser = regulariser + kl_standard(posterior)
            loss = loss - sum(ll(m, z) for m in members) + BETA * kl_standard(posterior)
        return sources, regulariser, loss
    check(MVAE(subsets), observed, reference)
    assert [len(found) for found in drawn_subsets] == [subsets] * (subsets > 0)


def test_subsets_are_drawn_for_every_sample_and_alike_often():
    q = DiagonalGaussian(torch.zeros(4, 9_000, D), torch.zeros(4, 9_000, D))
    weights = build("poe:subsets=1", D, 4)(q, torch.ones(4, 9_000, dtype=torch.bool)).weights[1]     # (M, B)
    members, counts = weights.t().unique(dim=0, return_counts=True)
    assert sorted(members.sum(1).tolist()) == [2] * 6 + [3] * 4
    assert ((counts - 900).abs() < 150).all()


def test_subsets_belong_to_products_and_to_training():
    with pytest.raises(UserError, match="subsets belong to kind='poe', not to 'moe'"):
        Aggregated("moe", subsets=1)
    mean, logvar, _ = leaves()
    q = DiagonalGaussian(mean, logvar)
    assert len(MVAE(2)(q, ALL).latents) == 1 + M + 2 and len(MVAE(2).eval()(q, ALL).latents) == 1
    assert len(MVAE(2)(q[:2], ALL[:2]).latents) == 1 + 2, "between one of two and both is nothing"


# Laplace posteriors

def test_laplaces_are_those_of_torch_with_the_mean_and_variance_of_the_gaussian():
    mean, logvar, _ = leaves()
    q, other = DiagonalLaplace(mean, logvar), DiagonalLaplace(mean.flip(0), logvar.flip(0))
    theirs = laplace(dist.Normal(mean, (logvar / 2).exp()))
    torch.testing.assert_close(theirs.variance, q.var)
    z = 3 * torch.randn(5, M, B, D)
    torch.testing.assert_close(q.log_prob(z), theirs.log_prob(z).sum(-1))
    torch.testing.assert_close(q.kl(other), dist.kl_divergence(theirs, laplace(
        dist.Normal(mean.flip(0), (logvar.flip(0) / 2).exp()))).sum(-1))
    torch.testing.assert_close(q.kl_standard_normal(), dist.kl_divergence(theirs, laplace(STANDARD)).sum(-1))
    assert type(q[0]) is type(q.where(SOME)) is DiagonalLaplace


def test_draws_of_a_laplace_are_distributed_so_and_carry_the_gradient():
    q = DiagonalLaplace(torch.full((20_000, 1), 2.0, requires_grad=True), torch.full((20_000, 1), 1.0))
    z = q.sample()
    quantiles = torch.tensor([0.02, 0.1, 0.5, 0.9, 0.98])
    expected = dist.Laplace(2.0, math.exp(0.5) / math.sqrt(2)).icdf(quantiles)
    assert torch.allclose(z.detach().quantile(quantiles), expected, atol=0.12)
    assert torch.autograd.grad(z.sum(), q.mean)[0].eq(1).all()


# MMVAE

@complete_or_not
@pytest.mark.parametrize("posterior", ["normal", "laplace"])
@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
def test_mmvae_equals_its_definition(posterior, estimator, observed):
    """Shi et al. 2019: the mean over modalities of the importance-weighted bound of draws from one, of everything."""
    n_samples, (mean, logvar, theta) = 3, leaves()
    objective = MMVAE(M, n_samples, estimator, posterior)
    shared = objective(DiagonalGaussian(mean, logvar), observed)
    loss = objective.loss(decode(shared.latents, theta, observed), shared, BETA)
    family = laplace if posterior == "laplace" else (lambda p: p)
    for b in range(B):
        present = [m for m in range(M) if observed[m, b]]
        q = [family(dist.Normal(mean[m, b], (logvar[m, b] / 2).exp())) for m in present]
        bounds = []
        for s in present:
            log_w = []
            for n in range(n_samples):
                z = shared.latents[n * M + s, 0, b]
                assert (shared.latents[n * M + s, :, b] == z).all(), "nothing is private"
                log_q = torch.stack([p.log_prob(z).sum() for p in q]).logsumexp(0) - math.log(len(q))
                log_p = sum(-(theta[m] * z - 1).square().sum() for m in present)
                log_w.append(log_p + BETA * (family(STANDARD).log_prob(z).sum() - log_q))
            bounds.append(torch.stack(log_w).logsumexp(0) - math.log(n_samples))
        torch.testing.assert_close(loss[b], -sum(bounds) / len(bounds), rtol=1e-9, atol=1e-10)


def test_mmvae_is_mmvaeplus_without_private_latents():
    mean, logvar, theta = leaves()
    found = []
    for objective in (MMVAE(M, 2, "iwae", "normal"), MMVAEPlus(M, 0, "mixture", n_samples=2, estimator="iwae")):
        torch.manual_seed(SEED)
        shared = objective(DiagonalGaussian(mean, logvar), SOME)
        found.append(objective.loss(decode(shared.latents, theta, SOME), shared, BETA))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_private_parts_are_laplaces_too():
    mean, logvar, _ = leaves()
    objective = build("mmvaeplus:posterior=laplace,private_dim=1,kl=mixture", D, M)
    with recorded() as drawn:
        shared = objective(DiagonalGaussian(mean, logvar), ALL)
    assert "randn" not in drawn, "no draw is a Gaussian's"
    z, w = shared.draws
    q = laplace(dist.Normal(mean, (logvar / 2).exp()))
    log_q = torch.stack([q.log_prob(torch.cat([z[0, s].expand(M, B, D - 1), w[0, s].expand(M, B, 1)], -1))[
        ..., :D - 1].sum(-1) for s in range(M)])                                            # (S, M, B)
    log_q = log_q.logsumexp(1) - math.log(M) + q.log_prob(torch.cat([z[0], w[0]], -1))[..., -1]
    prior = laplace(STANDARD).log_prob(torch.cat([z[0], w[0]], -1)).sum(-1)
    torch.testing.assert_close(shared.log_ratio[0], prior - log_q)


@pytest.mark.parametrize("text", ["jmvae", "mvae", "mmvae", "mmvae:posterior=normal", "mmvaeplus:posterior=laplace"])
def test_importance_draws_weigh_the_evidence_of_one_gaussian(text):
    """M decoders x_m ~ N(z, 1) of D latents: the estimate of log p(X) is that of the closed form."""
    if text.startswith("mmvaeplus"):
        text += ",private_dim=0"
    objective = build(text, D, M).eval()
    laplacian = "laplace" in text or text == "mmvae"
    mean, logvar, _ = leaves()
    q = DiagonalGaussian(0.3 * mean.detach(), 0.2 * logvar.detach())
    torch.manual_seed(SEED)
    z, log_ratio = objective.importance_draws(q, SOME, 6_000)                              # (N, M, B, D), (N, 1, B)
    x = torch.zeros(M, B, D)
    log_p = dist.Normal(z, 1.0).log_prob(x).sum(-1).masked_fill(~SOME, 0.0).sum(1)          # (N, B)
    found = (log_p + log_ratio[:, 0]).logsumexp(0) - math.log(len(z))
    grid = torch.linspace(-12, 12, 24_001)
    prior = laplace(STANDARD) if laplacian else STANDARD
    n = SOME.sum(0)
    expected = torch.stack([D * torch.logsumexp(
        prior.log_prob(grid) + k * STANDARD.log_prob(grid) + math.log(grid[1] - grid[0]), 0) for k in n.tolist()])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.2)


def test_what_is_encoded_is_a_laplace_wherever_the_objective_says_so():
    """So rates, information and draws are those of the model's own posteriors."""
    torch.set_default_dtype(torch.float32)
    data = MultimodalData({name: torch.randn(50, 3) for name in "ab"},
                          tuple(Modality(name, (3,), Normal()) for name in "ab"))
    for text, kind in (("mmvae", DiagonalLaplace), ("mmvae:posterior=normal", DiagonalGaussian)):
        model = MultimodalVAE.for_data(data, 2, text, say=None)
        x = list(data.modalities.values())
        q = model.encode(x)
        assert type(q) is type(posteriors(model, data)[0]) is kind
        found = rate(model, data)
        kl = q.kl_standard_normal().mean(1).detach()
        torch.testing.assert_close(torch.as_tensor(found.information + found.marginal).float(), kl)
