"""`MultimodalVAE` against a slow reference that spells the loss out sample by sample, and what it promises."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributions as dist, nn

from mmvm.data import Batch, Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.likelihoods import Bernoulli, Categorical, Laplace, Normal, Poisson
from mmvm.model import MultimodalVAE, fit_latent_density
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM, Independent, Objective, Schedule, Shared

D, B, C = 2, 5, 4
SPECS = (Modality("image", (2, 3, 3), Laplace(), scale=1 / 255), Modality("vector", (4,), Normal(0.5), weight=3.0),
         Modality("counts", (3,), Poisson(), weight=0.5), Modality("text", (6,), Categorical(ignore=0)))
OBJECTIVES = {"independent": Independent(),
              **{f"{bound}-{alpha}": MMVM(bound, weights, standard_normal_weight=alpha)
                 for (bound, (weights, alpha)) in itertools.product(
                     MMVM.BOUNDS, (("uniform", 0.0), ([1.0, 2.0, 4.0, 3.0], 0.25)))}}
SOME = torch.tensor([[1, 0, 1, 0, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 0, 0, 1, 1]], dtype=torch.bool)


class TokenEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(C, 3)
        self.head = MLPEncoder((18,), D, (5,))

    def forward(self, x):
        return self.head(self.embedding(x).flatten(1))


def make(objective=None, beta=0.7, specs=SPECS):
    encoders = [MLPEncoder(m.shape, D, (7,)) for m in SPECS[:3]] + [TokenEncoder()]
    decoders = [MLPDecoder(m.shape, D, (7,)) for m in SPECS[:3]] + [MLPDecoder((C, 6), D, (7,))]
    return MultimodalVAE(specs, encoders, decoders, objective or MMVM(), beta)


def data(b=B):
    return [torch.randint(256, (b, 2, 3, 3), dtype=torch.uint8), torch.randn(b, 4), torch.randint(5, (b, 3)).float(),
            torch.randint(C, (b, 6))]


def spoil(x, observed):
    """Rubbish where nothing is observed: NaN, infinity, a class that does not exist."""
    rubbish = [torch.full_like(x[0], 255), torch.full_like(x[1], math.nan), torch.full_like(x[2], math.inf),
               torch.full_like(x[3], 10 ** 9)]
    return [torch.where(o.view(-1, *[1] * (v.ndim - 1)), v, r) for v, r, o in zip(x, rubbish, observed)]


@pytest.fixture
def fixed_noise(monkeypatch):
    def use(noise):
        monkeypatch.setattr(DiagonalGaussian, "sample",
                            lambda self, generator=None: self.mean + self.std * noise.to(self.mean.dtype))
    return use


def reference(model, x, observed, noise, step=0):
    """The loss in float64, one sample at a time, one modality at a time: (B,) each of loss, sum w_m ll_m, R."""
    model = copy.deepcopy(model).double()
    prepared = [x[0].double() / 255, x[1].double(), x[2].double(), x[3]]
    objective = model.objective
    loss, log_likelihood, regulariser = [], torch.zeros(len(x), len(x[0]), dtype=torch.float64), []
    for b in range(len(x[0])):
        present = [m for m in range(len(x)) if observed[m, b]]
        q, z = {}, {}
        for m in present:
            mean, logvar = model.encoders[m](prepared[m][b:b + 1])
            q[m] = dist.Normal(mean[0], (0.5 * logvar[0]).exp())
            z[m] = mean[0] + (0.5 * logvar[0]).exp() * noise[m, b].double()
        reconstruction = 0
        for m in present:
            out, target = model.decoders[m](z[m][None])[0], prepared[m][b]
            if m == 0:
                ll = dist.Laplace(out, 0.75).log_prob(target).sum()
            elif m == 1:
                ll = dist.Normal(out, 0.5).log_prob(target).sum()
            elif m == 2:
                ll = dist.Poisson(out.exp()).log_prob(target).sum()
            else:
                ll = sum(out[:, t].log_softmax(0)[c] for t, c in enumerate(target.tolist()) if c != 0)
            log_likelihood[m, b] = ll
            reconstruction = reconstruction + SPECS[m].weight * ll

        standard = dist.Normal(torch.zeros(D, dtype=torch.float64), 1.0)
        independent = sum(dist.kl_divergence(q[m], standard).sum() for m in present)
        if isinstance(objective, Independent):
            r = independent
        else:
            w = {m: 1.0 if objective.weights is None else objective.weights[m].item() for m in present}
            w = {m: w[m] / sum(w.values()) for m in present}
            r = 0
            for m in present:
                kl = {n: dist.kl_divergence(q[m], q[n]).sum() for n in present}
                if objective.bound == "pairwise":
                    r = r + sum(w[n] * kl[n] for n in present)
                elif objective.bound == "variational":
                    r = r - sum(w[n] * (-kl[n]).exp() for n in present).log()
                else:
                    h = sum(w[n] * q[n].log_prob(z[m]).sum().exp() for n in present)
                    r = r + q[m].log_prob(z[m]).sum() - h.log()
            alpha = objective.standard_normal_weight
            alpha = alpha(step) if isinstance(alpha, Schedule) else alpha
            r = (1 - alpha) * r + alpha * independent
        regulariser.append(r)
        loss.append(-reconstruction + model.beta * r)
    return torch.stack(loss), log_likelihood.detach(), torch.stack(regulariser).detach(), model


# the loss

@pytest.mark.parametrize("observed", [None, SOME], ids=["complete", "missing"])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_loss_and_gradients_equal_the_slow_reference(objective, observed, fixed_noise):
    model, x, noise = make(objective), data(), torch.randn(4, B, D)
    present = torch.ones(4, B, dtype=torch.bool) if observed is None else observed
    fixed_noise(noise)
    terms = model(x if observed is None else spoil(x, observed), observed)
    loss, log_likelihood, regulariser, slow = reference(model, x, present, noise)
    torch.testing.assert_close(terms.loss.double(), loss, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(terms.log_likelihood.double(), log_likelihood, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(terms.regulariser.double(), regulariser, rtol=1e-4, atol=1e-4)
    assert (terms.log_likelihood[~present] == 0).all()

    terms.loss.mean().backward()
    loss.mean().backward()
    for (name, ours), theirs in zip(model.named_parameters(), slow.parameters()):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-4,
                                   msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_terms_add_up(objective):
    terms = make(objective, beta=0.3)(data(), SOME)
    weights = torch.tensor([m.weight for m in SPECS])[:, None]
    torch.testing.assert_close(terms.loss, -(weights * terms.log_likelihood).sum(0) + 0.3 * terms.regulariser)
    assert terms.loss.shape == terms.regulariser.shape == (B,) and terms.log_likelihood.shape == (4, B)
    assert terms.parts and all(part.shape == (B,) for part in terms.parts.values())


def test_beta_zero_leaves_the_regulariser_out():
    terms = make(beta=0.0)(data())
    weights = torch.tensor([m.weight for m in SPECS])[:, None]
    torch.testing.assert_close(terms.loss, -(weights * terms.log_likelihood).sum(0))


def test_step_reaches_the_schedule(fixed_noise):
    model, x, noise = make(MMVM(standard_normal_weight=Schedule(1.0, 0.0, 10, "linear"))), data(), torch.randn(4, B, D)
    fixed_noise(noise)
    for step in (0, 4, 10):
        loss = reference(model, x, torch.ones(4, B), noise, step)[0]
        torch.testing.assert_close(model(x, step=step).loss.double(), loss, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("objective", [Independent(), *(MMVM(b, standard_normal_weight=1.0) for b in MMVM.BOUNDS)],
                         ids=["independent", *MMVM.BOUNDS])
def test_one_modality_is_a_plain_vae(objective, fixed_noise):
    """Equal loss and gradients to a VAE written down as in any tutorial."""
    beta, x, noise = 0.7, torch.rand(8, 5), torch.randn(1, 8, D)
    encoder, decoder = MLPEncoder((5,), D, (6,)), MLPDecoder((5,), D, (6,))
    fixed_noise(noise)
    model = MultimodalVAE([Modality("x", (5,), Bernoulli())], [encoder], [decoder], objective, beta)
    loss = model([x]).loss.mean()
    ours = torch.autograd.grad(loss, model.parameters())

    mean, logvar = encoder(x)
    logits = decoder(mean + torch.exp(logvar / 2) * noise[0])
    bce = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    plain = (bce + beta * kl) / len(x)
    theirs = torch.autograd.grad(plain, model.parameters())
    torch.testing.assert_close(loss, plain)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bound", MMVM.BOUNDS)
def test_one_modality_without_alpha_is_an_autoencoder(bound):
    model = MultimodalVAE(SPECS[1:2], [MLPEncoder((4,), D)], [MLPDecoder((4,), D)], MMVM(bound), beta=5.0)
    terms = model([torch.randn(6, 4)])
    torch.testing.assert_close(terms.regulariser, torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(terms.loss, -3.0 * terms.log_likelihood[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("objective", [Independent(), *map(MMVM, MMVM.BOUNDS)], ids=["independent", *MMVM.BOUNDS])
def test_the_order_of_the_modalities_does_not_matter(objective, fixed_noise):
    order = [2, 0, 3, 1]
    model, x, noise = make(objective), data(), torch.randn(4, B, D)
    permuted = MultimodalVAE([SPECS[m] for m in order], [model.encoders[m] for m in order],
                             [model.decoders[m] for m in order], objective, model.beta)
    fixed_noise(noise)
    terms = model(x, SOME)
    fixed_noise(noise[order])
    again = permuted([x[m] for m in order], SOME[order])
    torch.testing.assert_close(again.loss, terms.loss)
    torch.testing.assert_close(again.log_likelihood, terms.log_likelihood[order])


class EverySource(Objective):
    """Every decoder hears every source: the shape that MMVAE-like methods will use."""

    def forward(self, q, observed, step=0):
        z = q.where(observed).sample()
        return Shared(z.unsqueeze(1).expand(-1, len(z), -1, -1), torch.zeros(z.shape[1]), {})


def test_several_sources_are_averaged(fixed_noise):
    model, x, noise = make(EverySource()), data(), torch.randn(4, B, D)
    fixed_noise(noise)
    terms = model(x)
    z = model.encode(x).sample()
    for m, modality in enumerate(SPECS):
        prepared = modality.prepare(x[m])
        each = [modality.likelihood.log_prob(model.decoders[m](z[s]), prepared, len(modality.shape)) for s in range(4)]
        torch.testing.assert_close(terms.log_likelihood[m], torch.stack(each).mean(0))


# missing modalities

@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_what_is_absent_is_never_read(objective, fixed_noise):
    """Bit for bit: whatever stands in an absent entry, losses, posteriors, imputations and gradients are the same."""
    fixed_noise(torch.randn(4, B, D))
    model, x = make(objective), data()
    results = []
    for values in (x, spoil(x, SOME)):
        model.zero_grad()
        terms = model(values, SOME)
        terms.loss.sum().backward()
        torch.manual_seed(1)
        results.append([terms.loss, terms.log_likelihood, terms.regulariser, *terms.parts.values(),
                        *(p.grad for p in model.parameters()), model.encode(values, SOME).mean,
                        model.encode(values, SOME).logvar, *model.impute(values, SOME).values()])
    for clean, spoilt in zip(*results):
        assert clean.isfinite().all() and torch.equal(clean, spoilt)


def test_a_modality_that_is_never_observed_trains_nothing():
    model, x = make(MMVM(standard_normal_weight=0.5)), data()
    observed = torch.ones(4, B, dtype=torch.bool)
    observed[1] = False
    model(spoil(x, observed), observed).loss.sum().backward()
    for m in range(4):
        for network in (model.encoders[m], model.decoders[m]):
            learns = any((p.grad != 0).any() for p in network.parameters() if p.grad is not None)
            assert learns == (m != 1)


def test_posteriors_of_absent_modalities_are_standard_normal():
    q = make().encode(spoil(data(), SOME), SOME)
    assert (q.mean[~SOME] == 0).all() and (q.logvar[~SOME] == 0).all() and (q.mean[SOME] != 0).all()


# encode, decode, impute, generate

def test_encode_gives_each_encoders_output_of_the_scaled_input():
    model, x = make(), data()
    q = model.encode(x)
    assert q.shape == (4, B, D)
    for m, value in enumerate((x[0].float() / 255, x[1], x[2], x[3])):
        mean, logvar = model.encoders[m](value)
        torch.testing.assert_close(q.mean[m], mean)
        torch.testing.assert_close(q.logvar[m], logvar)


def test_decode_gives_each_decoder_its_own_latent():
    model, z = make(), torch.randn(4, B, D)
    out = model.decode(z)
    assert [tuple(o.shape) for o in out] == [(B, 2, 3, 3), (B, 4), (B, 3), (B, C, 6)]
    for m in range(4):
        torch.testing.assert_close(out[m], model.decoders[m](z[m]))


def test_impute_takes_its_information_from_the_observed_sources(fixed_noise):
    """The decoder of an absent modality hears exactly one observed source's draw, the others hear their own."""
    model, x, noise = make(), data(), torch.randn(4, B, D)
    fixed_noise(noise)
    heard = {}
    for m, decoder in enumerate(model.decoders):
        decoder.register_forward_hook(lambda module, args, output, m=m: heard.update({m: args[0]}))
    means = model.impute(spoil(x, SOME), SOME)
    draws = model.encode(x).sample()
    chosen = set()
    for m, b in itertools.product(range(4), range(B)):
        same = [s for s in range(4) if SOME[s, b] and torch.allclose(heard[m][b], draws[s, b])]
        assert same == [m] if SOME[m, b] else len(same) == 1
        chosen.update((m, s) for s in same if s != m)
    assert len({s for _, s in chosen}) > 1
    for m, modality in enumerate(SPECS):
        torch.testing.assert_close(means[modality.name], modality.likelihood.mean(model.decoders[m](heard[m])))


def test_impute_gives_means_in_the_units_of_x():
    means = make().impute(data(), SOME)
    assert {name: tuple(v.shape) for name, v in means.items()} == {
        "image": (B, 2, 3, 3), "vector": (B, 4), "counts": (B, 3), "text": (B, C, 6)}
    assert (means["counts"] > 0).all()
    torch.testing.assert_close(means["text"].sum(1), torch.ones(B, 6))


def test_impute_gives_the_asked_targets_only():
    assert set(make().impute(data(), SOME, ["text", "image"])) == {"text", "image"}


@pytest.mark.parametrize("covariance", ["known", "fitted"])
def test_generate_decodes_one_latent_with_every_decoder(covariance):
    class Density:
        def sample(self, n):
            return torch.arange(2.0 * n).view(n, 2).double().numpy(), None

    model = make()
    if covariance == "known":
        torch.manual_seed(0)
        z = torch.arange(14.0).view(7, 2)[torch.randperm(7)]
        torch.manual_seed(0)
        out = model.generate(7, Density())
        for m, modality in enumerate(SPECS):
            torch.testing.assert_close(out[modality.name], modality.likelihood.mean(model.decoders[m](z)))
    else:
        n = 40
        whole = MultimodalData(dict(zip((m.name for m in SPECS), data(n))), SPECS)
        out = model.generate(7, fit_latent_density(model, whole, n_components=2))
    assert {name: tuple(v.shape) for name, v in out.items()} == {
        "image": (7, 2, 3, 3), "vector": (7, 4), "counts": (7, 3), "text": (7, C, 6)}
    assert set(model.generate(2, Density(), ["counts"])) == {"counts"}


def test_generate_draws_from_the_methods_own_prior_where_it_has_one():
    from mmvm.objectives import build

    joint, apart, plus = (build(text, 4, 3) for text in ("poe", "independent", "mmvaeplus:private_dim=1"))
    z = joint.prior_latents(2_000, 3, 4)
    assert z.shape == (3, 2_000, 4) and torch.equal(z[0], z[2]) and abs(float(z[0].std()) - 1) < 0.05
    z = apart.prior_latents(2_000, 3, 4)
    assert abs(float((z[0] * z[1]).mean())) < 0.05
    z = plus.prior_latents(2_000, 3, 4)
    assert torch.equal(z[0, :, :3], z[1, :, :3]) and abs(float((z[0, :, 3] * z[1, :, 3]).mean())) < 0.1
    z = build("mmvae", 4, 3).prior_latents(20_000, 3, 4)  # Laplace, variance 1
    assert torch.equal(z[0], z[1]) and abs(float(z[0].var()) - 1) < 0.05
    assert float((z[0].abs() > 4).double().mean()) > 1e-3

    model = make(build("moe", D, len(SPECS)))
    torch.manual_seed(0)
    z = torch.randn(5, D)
    torch.manual_seed(0)
    out = model.train().generate(5)
    assert model.training, "the mode is left as it was"
    for m, modality in enumerate(SPECS):
        torch.testing.assert_close(out[modality.name], modality.likelihood.mean(model.decoders[m](z)))
    with pytest.raises(UserError, match="no p.z. to sample from.*fit_latent_density"):
        make().generate(5)


def test_a_mixture_gives_other_draws_with_every_call_and_the_same_with_the_same_seed():
    model, n = make(), 40
    whole = MultimodalData(dict(zip((m.name for m in SPECS), data(n))), SPECS)
    density = fit_latent_density(model, whole, n_components=2)
    torch.manual_seed(3)
    one, two = (model.generate(5, density, "vector")["vector"] for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(model.generate(5, density, "vector")["vector"], one) and not torch.equal(one, two)
    assert density.random_state == 0, "the density is left as it was"


def test_a_latent_density_leaves_the_model_alone_and_knows_no_scale():
    """Draws that are a hundred times smaller give the same density, a hundred times smaller."""
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.99], [0.0, 0.05]])
    spec = Modality("a", (2,), Laplace())
    whole, found = MultimodalData({"a": x}, (spec,)), []
    for scale in (1.0, 0.01):
        encoder = MLPEncoder((2,), 2)
        encoder.forward = lambda v, scale=scale: (scale * v, torch.full_like(v, -12.0 + 2 * math.log(scale)))
        norm = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
        model = MultimodalVAE((spec,), [encoder], [norm], Independent()).train()
        density = fit_latent_density(model, whole, n_components=1)
        assert model.training and norm[0].num_batches_tracked == 0
        found.append(density.covariances_[0] / scale**2)
    np.testing.assert_allclose(*found, rtol=1e-3)
    other = replace(spec, standardise=True, centre=(5.0, 5.0), spread=(2.0, 2.0))
    with pytest.raises(UserError):
        fit_latent_density(model, MultimodalData({"a": x}, (other,)))


def test_latent_density_is_the_one_of_the_observed_posteriors():
    """With one component it has the moments of the pooled draws; absent modalities do not enter; the seed decides."""
    model, n = make(), 3_000
    x = data(n)
    observed = torch.rand(4, n) < 0.5
    observed[0] = True
    whole = MultimodalData(dict(zip((m.name for m in SPECS), spoil(x, observed))), SPECS, observed=observed)
    state = torch.get_rng_state()
    density = fit_latent_density(model, whole, n_components=1)
    again = fit_latent_density(model, whole, n_components=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert (density.means_ == again.means_).all()
    q = model.encode(x)
    mean, var = q.mean[observed].detach(), q.var[observed].detach()
    total = var.mean(0) + mean.var(0)
    assert torch.as_tensor(density.means_[0]).sub(mean.mean(0)).abs().max() < 5 * (total.max() / len(mean)).sqrt()
    torch.testing.assert_close(torch.as_tensor(density.covariances_[0]).diagonal().float(), total, rtol=0.1, atol=0)


# precision

def test_autocast_keeps_the_terms_in_float32_and_near():
    model, x = make(), data()
    torch.manual_seed(1)
    exact = model(x)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x)
    assert rounded.loss.dtype == rounded.log_likelihood.dtype == torch.float32
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.03, atol=0.3)
    assert not torch.equal(rounded.loss, exact.loss)


def test_non_trainable_settings_stay_out_of_the_checkpoint():
    assert set(make(MMVM(weights=[1.0, 2.0, 3.0, 4.0])).state_dict()) == set(make().state_dict())


# mistakes

def test_constructor_names_mistakes():
    encoders, decoders = [MLPEncoder((4,), D)], [MLPDecoder((4,), D)]
    with pytest.raises(UserError, match="2 modalities, 1 encoders and 1 decoders: give one encoder and one decoder"):
        MultimodalVAE(SPECS[:2], encoders, decoders, MMVM())
    with pytest.raises(UserError, match="0 modalities"):
        MultimodalVAE([], [], [], MMVM())
    for beta in (-0.1, math.nan):
        with pytest.raises(UserError, match=f"beta must be at least 0, got {beta}"):
            MultimodalVAE(SPECS[1:2], encoders, decoders, MMVM(), beta)
    with pytest.raises(UserError, match=r"'vector'.*a name occurs twice"):
        MultimodalVAE([SPECS[1]] * 2, encoders * 2, decoders * 2, MMVM())


@pytest.mark.parametrize("call, message", [
    (lambda m, x: m(x[:3]), r"3 tensors for 4 modalities: give one each.*\['image', 'vector', 'counts', 'text'\]"),
    (lambda m, x: m(Batch(x, torch.ones(4, B, dtype=torch.bool))), r"model\(batch.x, batch.observed\)"),
    (lambda m, x: m.encode(MultimodalData(dict(zip((s.name for s in SPECS), x)), SPECS)), "batch.observed"),
    (lambda m, x: m(x, SOME.t()), r"bool tensor of shape \(M, B\) = \(4, 5\).*\(5, 4\)"),
    (lambda m, x: m(x, SOME.float()), r"bool tensor.*torch.float32"),
    (lambda m, x: m([x[0].movedim(1, -1), *x[1:]]), r"'image' must be of shape \(5, 2, 3, 3\), it is \(5, 3, 3, 2\)"),
    (lambda m, x: m([x[0], x[1][:4], *x[2:]]), r"'vector' must be of shape \(5, 4\), it is \(4, 4\): give the same B"),
    (lambda m, x: m.impute(x, SOME, ["sound"]), r"\['sound'\] asked for: name some of \['image'"),
    (lambda m, x: m.impute(x, SOME, "sound"), r"\['sound'\] asked for: name some of \['image'"),
    (lambda m, x: m.impute(x, SOME, []), "name some of"),
    (lambda m, x: m.impute(x, SOME & (torch.arange(B) < 3)), r"sample 3 of the batch.*\(2 such.*at least one"),
])
def test_calls_name_mistakes(call, message):
    with pytest.raises(UserError, match=message):
        call(make(), data())


def test_generate_names_an_unknown_target():
    class Density:
        def sample(self, n):
            return torch.zeros(n, D).numpy(), None

    with pytest.raises(UserError, match=r"\['sound'\] asked for: name some of"):
        make().generate(3, Density(), ["sound"])


def test_autoencoders_are_encoded_to_points_read_no_width_and_cost_nothing_but_their_error():
    from mmvm.objectives import build

    model, x = make(build("autoencoder", D, len(SPECS)), beta=3.0), data(7)
    q = model.encode(x)
    assert float(q.std.max()) < 1e-4 and torch.equal(model.encode(x).mean, q.mean)
    terms = model(x)
    assert torch.equal(terms.regulariser, torch.zeros(7))
    weights = torch.tensor([spec.weight for spec in SPECS])
    torch.testing.assert_close(terms.loss, -(weights[:, None] * terms.log_likelihood).sum(0))
    at_the_means = model.log_likelihood(x, None, q.mean.unsqueeze(0))[0]
    torch.testing.assert_close(terms.log_likelihood, at_the_means, rtol=1e-3, atol=1e-2)
    terms.loss.mean().backward()
    assert all(w.grad is not None and bool(w.grad.isfinite().all()) for w in model.parameters())  # as DDP wants
    with pytest.raises(UserError, match="autoencoders have no prior to sample from: give a density"):
        model.generate(2)
