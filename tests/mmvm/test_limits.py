"""What holds for every method: one modality, equal posteriors, missing and permuted modalities; and the log-likelihood
of linear models, whose log p(X) is known."""

import copy
import itertools
import math

import pytest
import torch
from torch import distributions as dist, nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.errors import log_likelihood
from mmvm.gaussian import DiagonalGaussian
from mmvm.likelihoods import Normal
from mmvm.model import MultimodalVAE
from mmvm.objectives import JMVAE, MMVAE, MMVM, MVAE, MVTCAE, Aggregated, Gated, Independent, MMVAEPlus

M, B, D, BETA = 3, 6, 3, 0.7
SOME = torch.tensor([[1, 1, 1, 0, 1, 0], [1, 1, 0, 1, 0, 0], [1, 0, 1, 1, 0, 1]], dtype=torch.bool)
SUBSETS = [subset for size in range(1, M + 1) for subset in itertools.combinations(range(M), size)]


def plus(n_modalities, **options):
    """With auxiliary Gaussians that are not N(0, I)."""
    objective = MMVAEPlus(n_modalities, **options)
    with torch.no_grad():
        objective.private_mean.normal_()
        objective.private_logvar.normal_()
    return objective


def named(*makers):
    """Makers of objectives, each written as it is called: a name for the test and the maker itself."""
    return [pytest.param(maker, id=name) for name, maker in makers]


def aggregated(**options):
    return "-".join(map(str, options.values())), lambda: Aggregated(**options)


EVERY = named(
    ("independent", Independent), ("square", lambda: Independent(True)),
    *((f"mmvm-{bound}", lambda bound=bound: MMVM(bound, [1.0, 2.0, 4.0], 0.3)) for bound in MMVM.BOUNDS),
    *((f"mmvm-{n}-experts", lambda n=n: MMVM("variational", n_experts=n)) for n in (1, 2)),
    *((f"mmvm-others-{bound}", lambda bound=bound: MMVM(bound, self_component=False)) for bound in MMVM.BOUNDS),
    *((f"mmvm-{side}-{bound}", lambda side=side, bound=bound: MMVM(bound, gradient=side))
      for side in ("posterior", "prior") for bound in MMVM.BOUNDS),
    *((f"gated-{mode}-{bound}", lambda mode=mode, bound=bound: MMVM(bound, Gated(D, mode)))
      for mode in Gated.MODES for bound in MMVM.BOUNDS),
    ("gated-balanced", lambda: MMVM("pairwise", Gated(D, load_balance=2.0, detach=False), 0.1, n_experts=2)),
    *(aggregated(kind="avg", average=average) for average in Aggregated.AVERAGES),
    *(aggregated(kind="poe", prior_expert=expert, kl=kl, unimodal_elbos=alone)
      for expert, kl, alone in zip(Aggregated.PRIOR_EXPERTS, Aggregated.KLS, (False, True, True))),
    *(aggregated(kind=kind, sampling=sampling, kl=kl) for kind in ("moe", "mopoe")
      for sampling in Aggregated.SAMPLINGS for kl in Aggregated.KLS),
    *(aggregated(kind="mopoe", prior_expert=expert, kl_per_modality=True) for expert in ("full_set", "always")),
    ("jmvae", lambda: JMVAE(M, D, width=8)), ("mvae", lambda: MVAE(2)),
    ("mmvae", lambda: MMVAE(M, 2, "iwae", "normal")),
    ("mvtcae", MVTCAE), ("mvtcae-1", lambda: MVTCAE(1.0)), ("mmvaeplus-0", lambda: plus(M, private_dim=0)),
    ("mmvaeplus-components", lambda: plus(M, private_dim=1, kl="components", kl_per_modality=True)),
    *((f"mmvaeplus-{estimator}", lambda estimator=estimator:
       plus(M, private_dim=1, n_samples=2, estimator=estimator, learn_private_mean=True))
      for estimator in MMVAEPlus.ESTIMATORS))


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def same_noise(monkeypatch):
    """From its call on every draw lies 0.6 standard deviations above its mean."""
    return lambda: monkeypatch.setattr(
        torch, "randn", lambda *shape, **_: torch.full(shape if isinstance(shape[0], int) else shape[0], 0.6))


def leaves(m=M):
    """Random means and log-variances (M, B, D), and a parameter (M, D) for the decoders below."""
    return [(scale * torch.randn(shape)).requires_grad_()
            for scale, shape in ((1.5, (m, B, D)), (0.8, (m, B, D)), (1.0, (m, D)))]


def decode(latents, theta, observed):
    """Stands in for decoders and likelihoods: latents (S, M, B, D) -> log p (S, M, B), 0 where not observed."""
    return -(theta[:, None] * latents - 1).square().sum(-1).masked_fill(~observed, 0.0)


def cost(objective, mean, logvar, theta, observed, step=3):
    """(loss (B,), Shared) of the stand-in decoders."""
    shared = objective(DiagonalGaussian(mean, logvar), observed, step)
    return objective.loss(decode(shared.latents, theta, observed), shared, BETA), shared


def everyone(m=M):
    return torch.ones(m, B, dtype=torch.bool)


# one modality, equal posteriors

@pytest.mark.slow
@pytest.mark.parametrize("objective, scale", [
    *((Aggregated(kind, sampling=sampling, kl=kl), 1.0) for kind in Aggregated.KINDS
      for sampling, kl in zip(Aggregated.SAMPLINGS, Aggregated.KLS)),
    (Aggregated("poe", kl_per_modality=True), 1.0), (Aggregated("poe", unimodal_elbos=True), 2.0),
    (MMVAE(1, 2, "iwae", "normal"), 1.0),
    (Independent(), 1.0), (MMVM(standard_normal_weight=1.0), 1.0),
    (MMVAEPlus(1, 0), 1.0), (MMVAEPlus(1, 2), 1.0), (MMVAEPlus(1, 2, kl="components", kl_per_modality=True), 1.0),
    (MMVAEPlus(1, 1, n_samples=2, estimator="iwae"), 1.0), (MVTCAE(0.0), 1.0), (MVTCAE(0.3), 0.7), (MVTCAE(), 0.5)])
def test_one_modality_is_a_plain_vae(objective, scale, same_noise):
    """Loss and gradients, up to a scale of the whole. With equal noise two draws are one."""
    mean, logvar, theta = leaves(1)
    same_noise()
    loss, shared = cost(objective, mean, logvar, theta, everyone(1))

    q, standard = dist.Normal(mean[0], (logvar[0] / 2).exp()), dist.Normal(torch.zeros(D), torch.ones(D))
    z = q.mean + 0.6 * q.stddev
    kl = dist.kl_divergence(q, standard).sum(-1)
    if getattr(objective, "kl", "") == "mixture":
        kl = (q.log_prob(z) - standard.log_prob(z)).sum(-1)
    expected = (theta * z - 1).square().sum(-1) + BETA * kl
    torch.testing.assert_close(shared.latents[:, 0], z.expand(len(shared.latents), B, D), rtol=1e-9, atol=0)
    torch.testing.assert_close(shared.regulariser, scale * kl, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss, scale * expected, rtol=1e-9, atol=0)
    for ours, theirs in zip(*(torch.autograd.grad(value.sum(), (mean, logvar, theta)) for value in (loss, expected))):
        torch.testing.assert_close(ours, scale * theirs, rtol=1e-9, atol=1e-12)


def test_equal_posteriors_are_their_own_average_and_mixture_and_m_times_as_precise_as_a_product():
    one = DiagonalGaussian(torch.randn(1, B, D), torch.randn(1, B, D))
    q = DiagonalGaussian(one.mean.expand(M, B, D), one.logvar.expand(M, B, D))

    def precisions(kind, **options):
        parts, log_weights = Aggregated(kind, **options).components(q, everyone())
        torch.testing.assert_close(log_weights.exp().sum(0), torch.ones(B))
        if options.get("prior_expert", "never") == "never":
            torch.testing.assert_close(parts.mean, one.mean.expand_as(parts.mean))
        return [part * one.var[0] for part in 1 / parts.var]

    for found, expected in ((precisions("avg"), [1]), (precisions("avg", average="deviation"), [1]),
                            (precisions("moe"), [1, 1, 1]), (precisions("poe"), [3]),
                            (precisions("poe", prior_expert="always"), [3 + one.var[0]]),
                            (precisions("poe", prior_expert="full_set"), [3 + one.var[0]]),
                            (precisions("mopoe"), [1, 1, 1, 2, 2, 2, 3]),
                            (precisions("mopoe", prior_expert="full_set"), [1, 1, 1, 2, 2, 2, 3 + one.var[0]])):
        assert len(found) == len(expected)
        for value, times in zip(found, expected):
            torch.testing.assert_close(value, torch.ones(B, D) * times)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_equal_posteriors_in_closed_form(alpha):
    """MVTCAE pays for its joint posterior being narrower: KL(N(mu, var/M) || N(mu, var)) = D (1/M - 1 + ln M) / 2."""
    mean, logvar = torch.randn(B, D), torch.randn(B, D)
    q = DiagonalGaussian(mean.expand(M, B, D), logvar.expand(M, B, D))
    var = logvar.exp() / M
    expected = (1 - alpha) * 0.5 * (var + mean ** 2 - 1 - var.log()).sum(-1) \
        + alpha * 0.5 * D * (1 / M - 1 + math.log(M))
    torch.testing.assert_close(MVTCAE(alpha)(q, everyone()).regulariser, expected)
    for bound in MMVM.BOUNDS:
        for weights in ("uniform", [1.0, 2.0, 3.0], Gated(D), Gated(D, "hard"), Gated(D, "gumbel")):
            regulariser = MMVM(bound, weights)(q, everyone()).regulariser
            torch.testing.assert_close(regulariser, torch.zeros_like(regulariser), rtol=0, atol=1e-5)


# missing modalities

@pytest.mark.slow
@pytest.mark.parametrize("objective", EVERY)
def test_what_is_absent_influences_nothing(objective):
    """Bit for bit, in training and in imputing from any subset: what is learnt, paid and imagined."""
    objective = objective()
    clean_mean, clean_logvar, theta = leaves()
    parameters = [p for p in objective.parameters() if p.requires_grad and p.numel()]
    results = []
    for rubbish in (0.5, math.nan, math.inf, -math.inf, 1e38):
        def spoil(value, observed, rubbish=rubbish):
            return torch.where(observed[..., None], value.detach(), rubbish).requires_grad_()

        torch.manual_seed(1)
        mean, logvar = spoil(clean_mean, SOME), spoil(clean_logvar, SOME)
        loss, shared = cost(objective, mean, logvar, theta, SOME)
        counts = shared.latents.new_ones(shared.latents.shape[:3]) if shared.weights is None else shared.weights
        used = (counts > 0) & SOME
        gradients = torch.autograd.grad(loss.sum(), [mean, logvar, theta, *parameters], allow_unused=True)
        gradients = [torch.zeros(1) if g is None else g for g in gradients]
        assert (gradients[0][~SOME] == 0).all() and (gradients[1][~SOME] == 0).all()
        imputed = []
        for subset in SUBSETS:
            observed = torch.tensor([m in subset for m in range(M)])[:, None].expand(M, B)
            q = DiagonalGaussian(spoil(clean_mean, observed), spoil(clean_logvar, observed))
            imputed.append(objective.impute_latents(q, observed))
            assert imputed[-1].shape == (M, B, D)
        results.append([loss, shared.regulariser, *shared.parts.values(), shared.latents[used], *gradients, *imputed])
    for clean, *spoilt in zip(*results):
        assert clean.isfinite().all() and all(torch.equal(clean, value) for value in spoilt)


@pytest.mark.parametrize("objective", EVERY)
def test_a_sample_of_which_nothing_is_observed_costs_nothing(objective):
    objective, observed = objective(), SOME & (torch.arange(B) != 1)
    mean, logvar, theta = leaves()
    loss, shared = cost(objective, mean, logvar, theta, observed)
    balance = 0.0
    if "load_balance" in shared.parts:  # a number of the batch, not of the sample
        balance = 2.0 * shared.parts["load_balance"][1].item()
    assert (shared.regulariser[1].item(), loss[1].item()) == pytest.approx((balance, BETA * balance), rel=1e-6)
    for gradient in torch.autograd.grad(loss.sum(), (mean, logvar)):
        assert (gradient[:, 1] == 0).all() and gradient.isfinite().all()


@pytest.mark.parametrize("make", named(
    *((f"{kind}-{kl}-{expert}", lambda m, options=dict(kind=kind, kl=kl, prior_expert=expert):
       Aggregated(sampling="stratified", **options))
      for kind in Aggregated.KINDS for kl in Aggregated.KLS for expert in ("never", "always")),
    ("deviation", lambda m: Aggregated("avg", average="deviation")),
    ("unimodal_elbos", lambda m: Aggregated("poe", unimodal_elbos=True)), ("independent", lambda m: Independent()),
    ("mmvm", lambda m: MMVM("variational", standard_normal_weight=0.3)),
    *((f"mmvaeplus-{kl}", lambda m, kl=kl: MMVAEPlus(m, 1, kl=kl)) for kl in MMVAEPlus.KLS),
    ("mmvaeplus-iwae", lambda m: MMVAEPlus(m, 1, n_samples=2, estimator="iwae"))))
def test_a_sample_costs_what_it_would_cost_a_model_of_its_observed_modalities(make, same_noise):
    mean, logvar, theta = leaves()
    same_noise()
    loss, shared = cost(make(M), mean, logvar, theta, SOME)
    for b in range(B):
        present = SOME[:, b]
        n = int(present.sum())
        alone, its = cost(make(n), mean[present], logvar[present], theta[present], everyone(n))
        torch.testing.assert_close(loss[b], alone[b], rtol=1e-9, atol=0)
        torch.testing.assert_close(shared.regulariser[b], its.regulariser[b], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", Aggregated.KINDS)
@pytest.mark.parametrize("sampling", Aggregated.SAMPLINGS)
def test_one_observed_modality_is_the_joint_posterior(kind, sampling, same_noise):
    mean, logvar, _ = leaves()
    observed = torch.tensor([False, True, False])[:, None].expand(M, B)
    same_noise()
    objective, q = Aggregated(kind, sampling=sampling), DiagonalGaussian(mean, logvar)
    shared = objective(q, observed)
    expected = mean[1] + 0.6 * (logvar[1] / 2).exp()
    weights = torch.ones(1, M, B) if shared.weights is None else shared.weights
    torch.testing.assert_close((weights[..., None] * shared.latents).sum(0), expected.expand(M, B, D))
    torch.testing.assert_close(objective.impute_latents(q, observed), expected.expand(M, B, D))


def test_imputation_draws_from_the_joint_posterior_of_what_is_observed(same_noise):
    mean, logvar, _ = leaves()
    observed = torch.tensor([True, True, False])[:, None].expand(M, B)
    same_noise()
    precision = (-logvar[:2]).exp()
    product = (precision * mean[:2]).sum(0) / precision.sum(0) + 0.6 * precision.sum(0) ** -0.5
    average = mean[:2].mean(0) + 0.6 * logvar[:2].exp().mean(0).sqrt()
    for objective, expected in ((Aggregated("poe"), product), (MVTCAE(), product), (Aggregated("avg"), average)):
        torch.testing.assert_close(objective.impute_latents(DiagonalGaussian(mean, logvar), observed),
                                   expected.expand(M, B, D))


def test_mmvaeplus_imputes_with_its_own_or_a_standard_normal_private_part(same_noise):
    mean, logvar, _ = leaves()
    objective = plus(M, private_dim=1)
    observed = torch.tensor([True, False, True])[:, None].expand(M, B)
    same_noise()
    latents, own = objective.impute_latents(DiagonalGaussian(mean, logvar), observed), mean + 0.6 * (logvar / 2).exp()
    for m in (0, 2):
        torch.testing.assert_close(latents[m], own[m])
    borrowed = (latents[1, None, :, :2] - own[:, :, :2]).abs().amax(-1) < 1e-9
    assert (borrowed.sum(0) == 1).all() and not borrowed[1].any()
    torch.testing.assert_close(latents[1, :, 2], torch.full((B,), 0.6))


@pytest.mark.parametrize("objective", named(
    *(aggregated(kind="avg", average=average) for average in Aggregated.AVERAGES), ("mvtcae", MVTCAE),
    *(aggregated(kind="poe", prior_expert=expert, unimodal_elbos=True) for expert in Aggregated.PRIOR_EXPERTS),
    *(aggregated(kind=kind, kl=kl, prior_expert=expert, sampling="stratified")
      for kind in ("moe", "mopoe") for kl in Aggregated.KLS for expert in Aggregated.PRIOR_EXPERTS),
    ("mmvaeplus", lambda: plus(M, private_dim=1, n_samples=2, estimator="iwae"))))
def test_permuted_modalities_give_permuted_results(objective, same_noise):
    order, objective, (mean, logvar, theta) = [2, 0, 1], objective(), leaves()
    again = copy.deepcopy(objective)
    if isinstance(objective, MMVAEPlus):
        for p in again.parameters():
            p.data = p.data[order]
    same_noise()
    loss, shared = cost(objective, mean, logvar, theta, SOME)
    permuted, its = cost(again, mean[order], logvar[order], theta[order], SOME[order])
    torch.testing.assert_close(its.regulariser, shared.regulariser, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(permuted, loss, rtol=1e-9, atol=0)
    reported = shared.mean_over_sources(decode(shared.latents, theta, SOME))
    torch.testing.assert_close(its.mean_over_sources(decode(its.latents, theta[order], SOME[order])), reported[order],
                               rtol=1e-9, atol=1e-12)


# log p(X)

X, SCALE = 4, 0.8


class Affine(nn.Module):
    """x -> (mean, log-variance): the posterior of one modality alone, but for its correlations."""

    def __init__(self, loading, centre):
        super().__init__()
        precision = torch.eye(loading.shape[1]) + loading.t() @ loading / SCALE ** 2
        self.weight = nn.Parameter(torch.linalg.solve(precision, loading.t() / SCALE ** 2))
        self.centre, self.logvar = centre, precision.inverse().diagonal().log()

    def forward(self, x):
        return (x.double() - self.centre) @ self.weight.t(), self.logvar.expand(len(x), -1)


def linear_model(objective, n=60):
    """A model with x_m = W_m z + c_m + noise, n samples from it, and the exact log p (n,) of the observed modalities:
    the first D - private columns of W_m belong to the shared z, the others to modality m alone."""
    private = D if isinstance(objective, Independent) else getattr(objective, "private_dim", 0)
    loadings, centres = 0.6 * torch.randn(M, X, D), torch.randn(M, X)
    decoders = [nn.Linear(D, X) for _ in range(M)]
    with torch.no_grad():
        for decoder, loading, centre in zip(decoders, loadings, centres):
            decoder.weight.copy_(loading)
            decoder.bias.copy_(centre)
    specs = tuple(Modality(f"x{m}", (X,), Normal(SCALE), weight=2.0 + m) for m in range(M))
    model = MultimodalVAE(specs, [Affine(*pair) for pair in zip(loadings, centres)], decoders, objective)

    common, own = loadings[..., :D - private], loadings[..., D - private:]
    covariance = torch.block_diag(*(w @ w.t() + SCALE ** 2 * torch.eye(X) for w in own))
    covariance += common.flatten(0, 1) @ common.flatten(0, 1).t()
    x = dist.MultivariateNormal(centres.flatten(), covariance).sample((n,)).float().double()

    def exact(observed):
        values = []
        for row, present in zip(x, observed.t()):
            keep = present.repeat_interleave(X)
            p = dist.MultivariateNormal(centres.flatten()[keep], covariance[keep][:, keep])
            values.append(p.log_prob(row[keep]))
        return torch.stack(values)
    return model, dict(zip((spec.name for spec in specs), x.unflatten(1, (M, X)).unbind(1))), exact


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("objective", named(
    ("poe", lambda: Aggregated("poe")), ("avg", lambda: Aggregated("avg")), ("moe", lambda: Aggregated("moe")),
    ("mopoe", lambda: Aggregated("mopoe", prior_expert="full_set")), ("mvtcae", MVTCAE), ("independent", Independent),
    ("mmvaeplus-0", lambda: plus(M, private_dim=0)), ("mmvaeplus-1", lambda: plus(M, private_dim=1))))
def test_log_likelihood_is_that_of_the_linear_model(objective, missing):
    model, data, exact = linear_model(objective())
    n = len(data["x0"])
    observed = torch.ones(M, n, dtype=torch.bool)
    if missing:
        observed = torch.rand(M, n) < 0.6
        observed[0] |= ~observed.any(0)
        data = {name: torch.where(o[:, None], v, math.nan) for (name, v), o in zip(data.items(), observed)}
    found = log_likelihood(model, MultimodalData(data, model.modalities, observed=observed), n_draws=250)
    expected = exact(observed)
    assert (found.n, found.n_draws) == (n, 250)
    assert found.mean == pytest.approx(expected.mean().item(), abs=0.15)  # 20 seeds: -0.07 to 0.05
    assert found.standard_error == pytest.approx(expected.std().item() / math.sqrt(n), rel=0.15)  # up to 0.052


@pytest.mark.slow
@pytest.mark.parametrize("objective", named(
    ("poe", lambda: Aggregated("poe", prior_expert="always")), ("moe", lambda: Aggregated("moe")),
    ("independent", Independent), ("mmvaeplus", lambda: plus(M, private_dim=1))))
def test_log_likelihood_rises_to_the_exact_one_with_the_number_of_draws(objective):
    model, data, exact = linear_model(objective(), n=200)
    for encoder in model.encoders:
        encoder.logvar = encoder.logvar + 1.0  # posteriors that are too wide
    data = MultimodalData(data, model.modalities)
    exact = exact(data.observed).mean().item()
    few, some, many = (log_likelihood(model, data, n_draws=n).mean for n in (1, 6, 60))
    assert few + 0.3 < some < many - 0.05 and many < exact + 0.03
    assert log_likelihood(model, data, n_draws=6).mean == some != log_likelihood(model, data, n_draws=6, seed=1).mean


@pytest.mark.parametrize("objective", [MMVM(), MMVM(standard_normal_weight=0.5), MMVM(weights=Gated(D, "hard"))])
def test_mmvm_says_why_it_has_no_log_likelihood(objective):
    model, data, _ = linear_model(objective, n=3)
    with pytest.raises(UserError, match=r"no log-likelihood: its prior h\(z \| X\) is made of the data"):
        log_likelihood(model, MultimodalData(data, model.modalities))
