"""Latent diffusion: exact where the optimal network is known, else learned on two modalities of one dimension."""

import copy
import math

import pytest
import torch
from conftest import SEED
from torch import nn

from mmvm import (
    LatentDiffusion,
    Modality,
    MultimodalData,
    MultimodalVAE,
    Normal,
    UserError,
    files,
    fit_latent_density,
    fit_latent_diffusion,
)
from mmvm.diffusion.denoiser import Denoiser, without
from mmvm.diffusion.density import fingerprint
from mmvm.diffusion.learn import chosen, follow, loss
from mmvm.objectives import Independent

M, D = 3, 2


def seeded(seed=0):
    return torch.Generator().manual_seed(SEED + seed)


def side_by_side(z):
    return z.transpose(0, 1).flatten(1)


# exact: Gaussian latents, of which the optimal v is known ------------------------------------------------------------

class Optimal:
    """E[v | z_t] of N(mean, covariance) over the M D latents side by side, for any times of its modalities."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = mean, covariance

    def __call__(self, z, time):
        m, b, d = z.shape
        angle = (time.t() * math.pi / 2).repeat_interleave(d, 1).to(z.dtype)
        cos, sin = angle.cos(), angle.sin()
        of_z = cos[:, :, None] * self.covariance * cos[:, None] + torch.diag_embed(sin ** 2)
        of_v = torch.diag_embed(cos * sin) - sin[:, :, None] * self.covariance * cos[:, None]  # Cov(v, z)
        moved = side_by_side(z) - cos * self.mean
        v = -sin * self.mean + (of_v @ torch.linalg.solve(of_z, moved.unsqueeze(-1))).squeeze(-1)
        return v.unflatten(1, (m, d)).transpose(0, 1)


@pytest.fixture
def gaussian():
    root = torch.randn(M * D, M * D, generator=seeded(1), dtype=torch.float64) / 2
    covariance = root @ root.t() + 0.1 * torch.eye(M * D)
    return torch.randn(M * D, generator=seeded(2), dtype=torch.float64), covariance


def density_of(mean, covariance, steps):
    standard = torch.zeros(M, D, dtype=torch.float64)
    return LatentDiffusion(["a", "b", "c"], Optimal(mean, covariance), standard, standard + 1, steps=steps)


def moments_of_the_map(sample):
    """Mean and covariance of what a sampler makes that is affine in its noise: from a basis, no Monte Carlo."""
    n = M * D
    noise = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
    out = sample(noise.unflatten(1, (M, D)).transpose(0, 1))
    matrix = out[1:] - out[0]
    return out[0], matrix.t() @ matrix


def with_noise(monkeypatch, sample):
    def run(noise):
        monkeypatch.setattr(torch, "randn", lambda *shape, **_: noise)
        try:
            return side_by_side(sample(noise.shape[1]))
        finally:
            monkeypatch.undo()
    return run


def test_the_sampler_reaches_the_mean_and_covariance_and_faster_than_in_proportion_to_its_steps(gaussian, monkeypatch):
    errors = []
    for steps in (20, 40, 80):
        density = density_of(*gaussian, steps)
        mean, covariance = moments_of_the_map(with_noise(monkeypatch, density.sample))
        errors.append(float((mean - gaussian[0]).abs().max() + (covariance - gaussian[1]).abs().max()))
    assert errors[1] < 0.02
    assert all(3 < before / after < 5.5 for before, after in zip(errors, errors[1:])), errors  # of second order: 4


@pytest.mark.parametrize("subset", [[0], [2], [0, 1], [1, 2]])
def test_conditional_samples_have_the_conditional_mean_and_covariance(gaussian, subset, monkeypatch):
    mean, covariance = gaussian
    given = torch.zeros(M, dtype=torch.bool)
    given[subset] = True
    known = torch.randn(M, D, generator=seeded(3), dtype=torch.float64)
    density = density_of(mean, covariance, 80)
    found, spread = moments_of_the_map(with_noise(monkeypatch, lambda n: density.sample_given(
        known[:, None].expand(-1, n, -1), given[:, None].expand(-1, n))))
    g = given.repeat_interleave(D)
    gain = covariance[~g][:, g] @ covariance[g][:, g].inverse()
    expected = mean[~g] + gain @ (known.flatten()[g] - mean[g])
    torch.testing.assert_close(found[~g], expected, atol=0.01, rtol=0)
    rest = covariance[~g][:, ~g] - gain @ covariance[g][:, ~g]
    torch.testing.assert_close(spread[~g][:, ~g], rest, atol=0.01, rtol=0)
    assert torch.equal(found[g], known.flatten()[g]) and not spread[g].any()


def test_no_network_has_a_smaller_loss_than_the_optimal_one(gaussian):
    """What is learned is E[v | z_t], of the least loss: a step away from it adds its square."""
    mean, covariance = gaussian
    z = torch.distributions.MultivariateNormal(mean, covariance).sample((4_000,)).unflatten(1, (M, D)).transpose(0, 1)
    observed, best = torch.ones(M, 4_000, dtype=torch.bool), Optimal(mean, covariance)
    of_best, of_biased, of_scaled = (float(loss(network, z, observed, 0.0, seeded(4))) for network in (
        best, lambda z, t: best(z, t) + 0.1, lambda z, t: 0.9 * best(z, t)))
    assert of_biased - of_best == pytest.approx(0.01, abs=0.003)
    assert of_scaled > of_best


def test_each_sample_may_have_its_own_subset(gaussian):
    density = density_of(*gaussian, 5)
    z = torch.randn(M, 4, D, dtype=torch.float64)
    given = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]], dtype=torch.bool)
    together = density.sample_given(z, given, seeded())
    for i in range(4):
        alone = density.sample_given(z, given[:, i:i + 1].expand(-1, 4), seeded())
        torch.testing.assert_close(together[:, i], alone[:, i])
    assert torch.equal(together[:, 3], z[:, 3])
    torch.testing.assert_close(together[:, 2], density.sample(4, seeded())[:, 2])


def test_guidance_0_ignores_what_is_given_and_1_is_the_conditional(gaussian):
    density = density_of(*gaussian, 5)
    given = torch.tensor([[True], [False], [False]]).expand(-1, 6)
    z = torch.randn(M, 6, D, dtype=torch.float64)
    plain = density.sample_given(z, given, seeded())
    density.guidance = 1.0 + 1e-9  # goes the way of two passes
    torch.testing.assert_close(density.sample_given(z, given, seeded()), plain)
    density.guidance = 0.0
    free, other = (density.sample_given(x, given, seeded()) for x in (z, z + 5))
    assert torch.equal(free[1:], other[1:]) and not torch.allclose(free[1:], plain[1:])
    density.steps = 1  # in one step a guidance of 2 goes as far beyond the conditional as that is from the marginal
    found = []
    for density.guidance in (0.0, 1.0, 2.0):
        found.append(density.sample_given(z, given, seeded()))
    torch.testing.assert_close(found[2] - found[1], found[1] - found[0])


# the loss ------------------------------------------------------------------------------------------------------------

def test_subsets_are_all_of_what_is_observed_in_half_of_the_samples_else_proper_ones():
    observed = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.bool).repeat_interleave(4_000, 1)
    noised = chosen(observed, seeded())
    assert not (noised & ~observed).any() and noised.any(0).all()
    whole = (noised == observed).all(0).view(3, -1).float().mean(1)
    assert whole[2] == 1 and all(0.46 < share < 0.54 for share in whole[:2].tolist())
    seen = {tuple(x.tolist()) for x in noised[:, :4_000].t()}
    assert len(seen) == 7  # every subset of three but the empty one
    sizes = noised[:, :4_000].sum(0).bincount(minlength=4) / 4_000
    torch.testing.assert_close(sizes, torch.tensor([0, 0.25, 0.25, 0.5]), atol=0.04, rtol=0)


def test_absent_modalities_add_nothing_to_the_loss():
    torch.manual_seed(0)
    network = Denoiser(M, D, 16, 1)
    nn.init.normal_(network.out.weight)
    z = torch.randn(M, 40, D)
    observed = torch.rand(M, 40) < 0.6
    observed[0] = True
    values = []
    for rubbish in (0.0, 7.0, math.nan, math.inf):
        network.zero_grad()
        value = loss(network, z.masked_fill(~observed.unsqueeze(-1), rubbish), observed, 0.1, seeded())
        value.backward()
        values.append([value.detach(), *(p.grad.clone() for p in network.parameters())])
    for other in values[1:]:
        assert all(map(torch.equal, other, values[0]))
    alone = observed.clone()
    alone[1:] = False
    network.zero_grad()
    loss(network, z, alone, 0.0, seeded()).backward()
    of_rows = network.out.weight.grad  # of what is in no loss there is no gradient
    assert of_rows[:D].any() and not of_rows[D:].any()


def test_a_hidden_condition_says_nothing():
    """In all samples: the network sees zeros at time 1 in place of what is not noised."""
    seen = []

    def network(z, time):
        seen.append((z, time))
        return torch.zeros_like(z)

    z, observed = torch.randn(M, 300, D), torch.ones(M, 300, dtype=torch.bool)
    loss(network, z, observed, 0.0, seeded())
    loss(network, z, observed, 1.0, seeded())
    (shown, times), (hidden, at) = seen
    clean = times == 0
    assert clean.any() and torch.equal(shown[clean], z[clean])
    assert (at[clean] == 1).all() and not hidden[clean].any()
    assert torch.equal(hidden[~clean], shown[~clean]) and torch.equal(at[~clean], times[~clean])


def test_the_average_of_the_weights_is_exponential():
    network, averaged = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = averaged.weight.detach().clone()
    for _ in range(3):
        nn.init.normal_(network.weight)
        expected = 0.75 * expected + 0.25 * network.weight.detach()
        follow(averaged, network, 0.75)
    torch.testing.assert_close(averaged.weight.detach(), expected)


def test_without_puts_at_time_1():
    z, times = without(torch.ones(2, 1, 3), torch.full((2, 1), 0.3), torch.tensor([[True], [False]]))
    assert times.flatten().tolist() == pytest.approx([1.0, 0.3]) and z[:, 0, 0].tolist() == [0, 1]


# learned -------------------------------------------------------------------------------------------------------------

class Emits(nn.Module):
    """x as the mean, with a small variance."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.one, torch.full_like(x, -6.0)


class Gives(Emits):
    def forward(self, z):
        return z * self.one


def make(names=("a", "b"), d=1):
    specs = [Modality(name, (d,), Normal()) for name in names]
    return MultimodalVAE(specs, [Emits() for _ in names], [Gives() for _ in names], Independent())


def pairs(n=2_000, model=None):
    """Two modes, at (-2, 3 - 1) and (2, 3 + 1) about, so a tells which of b's."""
    side = torch.randint(2, (n, 1), generator=seeded(5)) * 2.0 - 1
    noise = 0.3 * torch.randn(2, n, 1, generator=seeded(6))
    observed = torch.rand(2, n, generator=seeded(7)) < 0.9
    observed[0] |= ~observed[1]
    return MultimodalData({"a": 2 * side + noise[0], "b": 3 + side + noise[1]}, (model or make()).modalities,
                          observed=observed)


TINY = {"updates": 400, "width": 32, "blocks": 2, "batch_size": 128, "learning_rate": 3e-3, "average": 0.98,
        "seed": SEED}


@pytest.fixture(scope="module")
def model():
    return make().eval()


@pytest.fixture(scope="module")
def density(model):
    return fit_latent_diffusion(model, pairs(), **TINY)


@pytest.mark.slow
def test_joint_samples_belong_together_and_independent_draws_do_not(model, density):
    a, b = density.sample(2_000, seeded())[..., 0]
    expected = torch.corrcoef(torch.stack([pairs().modalities[name][:, 0] for name in "ab"]))[0, 1]
    found = torch.corrcoef(torch.stack([a, b]))[0, 1]
    independent = torch.corrcoef(torch.stack([a, b[torch.randperm(2_000, generator=seeded())]]))[0, 1]
    assert abs(found - expected) < 0.06 and abs(independent) < 0.1
    assert ((a > 0) == (b > 3)).float().mean() > 0.95
    assert abs(a.mean()) < 0.25 and abs(b.mean() - 3) < 0.15
    assert a.std() == pytest.approx(2.02, abs=0.15) and b.std() == pytest.approx(1.04, abs=0.1)


def test_conditional_samples_move_with_the_condition(model, density):
    x = {"a": torch.tensor([[-2.0], [2.0]]).repeat_interleave(300, 0)}
    torch.manual_seed(0)
    low, high = model.impute(x, targets="b", density=density)["b"].detach().view(2, 300)
    assert low.mean() == pytest.approx(2, abs=0.15) and high.mean() == pytest.approx(4, abs=0.15)
    assert max(low.std(), high.std()) < 0.5
    own = model.impute(x, targets="a", density=density)["a"].detach()  # a draw of its own posterior
    assert (own - x["a"]).abs().max() < 0.3


def test_generate_decodes_each_modality_from_its_own_latent(model, density):
    torch.manual_seed(3)
    out = model.generate(50, density)
    torch.manual_seed(3)
    z = density.sample(50)
    assert torch.equal(out["a"], z[0]) and torch.equal(out["b"], z[1]) and not torch.equal(out["a"], out["b"])
    assert set(model.generate(2, density, "b")) == {"b"}


def test_equal_seeds_give_equal_fits_and_samples_and_disturb_nothing(model):
    small = {**TINY, "updates": 5}
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.train()
    one, two, three = (fit_latent_diffusion(model, pairs(200), **{**small, "seed": seed}) for seed in (1, 1, 2))
    assert model.training and model.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    first, again, other = (x.sample(20, seeded()) for x in (one, two, three))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(one.losses, two.losses) and len(one.losses) == 5
    assert not torch.equal(one.sample(20, seeded(1)), first)


def test_absent_values_do_not_reach_the_fit(model):
    data = pairs(200)
    small = {**TINY, "updates": 5}
    spoiled = {name: x.masked_fill(~present[:, None], math.nan) for (name, x), present in
               zip(data.modalities.items(), data.observed)}
    other = fit_latent_diffusion(model, MultimodalData(spoiled, data.specs, observed=data.observed), **small)
    assert torch.equal(other.sample(9, seeded()), fit_latent_diffusion(model, data, **small).sample(9, seeded()))


# files ---------------------------------------------------------------------------------------------------------------

def test_a_kept_diffusion_is_the_same_bit_for_bit(model, density, tmp_path):
    density.save(tmp_path / "d.safetensors")
    loaded = LatentDiffusion.load(tmp_path / "d.safetensors", model)
    assert torch.equal(loaded.sample(30, seeded()), density.sample(30, seeded()))
    assert (loaded.names, loaded.model, loaded.steps, loaded.guidance) == (["a", "b"], density.model, 40, 1.0)
    assert torch.equal(loaded.losses, density.losses)
    weights = density.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.network.state_dict().items())


def test_settings_of_the_sampler_are_kept(density, tmp_path):
    other = LatentDiffusion(density.names, density.network, density.centre, density.scale, density.model, 7, 1.5)
    other.save(tmp_path / "d.safetensors")
    loaded = LatentDiffusion.load(tmp_path / "d.safetensors")
    assert (loaded.steps, loaded.guidance) == (7, 1.5)


def test_another_models_diffusion_is_refused(model, density, tmp_path):
    density.save(tmp_path / "d.safetensors")
    other = make().eval()
    with torch.no_grad():
        other.encoders[0].one.add_(1e-6)
    for use in (lambda: LatentDiffusion.load(tmp_path / "d.safetensors", other), lambda: other.generate(2, density),
                lambda: other.impute({"a": torch.zeros(2, 1)}, density=density)):
        with pytest.raises(UserError, match="other weights: use that model, or fit another"):
            use()
    with pytest.raises(UserError, match=r"latents of \['a', 'b'\], the model has \['a', 'c'\]"):
        density.check(make(("a", "c")))
    assert fingerprint(other) != fingerprint(model) == density.model


@pytest.mark.parametrize("spoil, said", [
    (lambda t, a: t.update(centre=torch.zeros(2, 3)), "cannot be rebuilt"),
    (lambda t, a: t.pop("network.into.bias"), "cannot be rebuilt"),
    (lambda t, a: t.update({"network.into.weight": torch.zeros(9, 9)}), "cannot be rebuilt"),
    (lambda t, a: a.update(names="[1"), "cannot be rebuilt"),
    (lambda t, a: a.update(steps="many"), "cannot be rebuilt"),
    (lambda t, a: a.update(format="mmvm-model-1"), "is no kept diffusion of this program")])
def test_files_of_another_making_are_refused_in_one_line(density, tmp_path, spoil, said):
    path = tmp_path / "d.safetensors"
    density.save(path)
    tensors, about = files.read_safetensors(path, "mmvm-diffusion-1", "", "")
    spoil(tensors, about)
    files.write_safetensors(path, tensors, about)
    with pytest.raises(UserError, match=said):
        LatentDiffusion.load(path)


def test_a_changed_file_is_refused(density, tmp_path):
    path = tmp_path / "d.safetensors"
    density.save(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="was changed after it was written"):
        LatentDiffusion.load(path)
    with pytest.raises(UserError, match="there is no kept diffusion"):
        LatentDiffusion.load(tmp_path / "none.safetensors")


# errors --------------------------------------------------------------------------------------------------------------

def test_data_that_say_nothing_of_the_relation_are_refused(model):
    x = {"a": torch.zeros(4, 1), "b": torch.zeros(4, 1)}
    one = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    with pytest.raises(UserError, match="no sample has two observed modalities"):
        fit_latent_diffusion(model, MultimodalData(x, model.modalities, observed=one))
    never = torch.tensor([[1] * 4, [0] * 4], dtype=torch.bool)
    with pytest.raises(UserError, match="'b' is observed in no sample"):
        fit_latent_diffusion(model, MultimodalData(x, model.modalities, observed=never))
    other = make(("a", "c"))
    with pytest.raises(UserError, match=r"\{'a': \(1,\), 'b': \(1,\)\}, the model's \{'a': \(1,\), 'c': \(1,\)\}"):
        fit_latent_diffusion(other, pairs(20))


@pytest.mark.parametrize("wrong", [{"updates": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"width": 0},
                                   {"blocks": 0}, {"drop": 1.0}, {"average": 1.0}])
def test_numbers_that_make_no_sense_are_refused(model, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        fit_latent_diffusion(model, pairs(20), **wrong)


def test_what_cannot_be_sampled_is_refused_in_one_line(model, density):
    with pytest.raises(UserError, match=r"M = 2 and D = 1"):
        density.sample_given(torch.zeros(2, 4, 3), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(UserError, match="a bool tensor"):
        density.sample_given(torch.zeros(2, 4, 1), torch.ones(2, 4))
    with pytest.raises(UserError, match="at least 1"):
        density.sample(0)
    none = LatentDiffusion(density.names, density.network, density.centre, density.scale, steps=0)
    with pytest.raises(UserError, match="steps"):
        none.sample(2)
    mixture = fit_latent_density(model, pairs(100), n_components=1)
    with pytest.raises(UserError, match="GaussianMixture says nothing of one modality given another"):
        model.impute({"a": torch.zeros(2, 1)}, density=mixture)
    with pytest.raises(UserError, match="cannot be kept"):
        LatentDiffusion(["a"], lambda z, t: z, torch.zeros(1, 1), torch.ones(1, 1)).save("nowhere.safetensors")


def test_a_fit_that_diverges_says_so(model):
    with pytest.raises(UserError, match="loss of the latent diffusion was"):
        fit_latent_diffusion(model, pairs(100), **{**TINY, "updates": 20, "learning_rate": 1e30})
