"""Information of latents, against linear Gaussians, of which it is known."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from mmvm import Modality, MultimodalData, MultimodalVAE, Normal
from mmvm.errors import UserError, ValueWarning
from mmvm.evaluation import (
    by_label,
    factor_probes,
    information,
    kept,
    linear_probe,
    rate,
    shared_information,
    total_correlation,
)
from mmvm.networks import MLPDecoder
from mmvm.objectives import MMVAE, MMVM
from mmvm.objectives.laplace import DiagonalLaplace

N, D = 3_000, 2


class Channel(nn.Module):
    """q(z | x) = N(scale x + shift, var scale^2): as much information, wherever the latent lies."""

    def __init__(self, var, scale=1.0, shift=0.0):
        super().__init__()
        self.logvar, self.scale, self.shift = math.log(var * scale**2), scale, shift

    def forward(self, x):
        return self.scale * x + self.shift, torch.full_like(x, self.logvar)


def of(*modalities, var=1.0, observed=None, **place):
    """Data of these arrays (N, D), and a model whose posteriors are them with noise."""
    specs = tuple(Modality(f"m{i}", x.shape[1:], Normal()) for i, x in enumerate(modalities))
    data = MultimodalData({s.name: x.float() for s, x in zip(specs, modalities)}, specs, observed=observed)
    width = modalities[0].shape[1]
    encoders, decoders = [Channel(var, **place) for _ in specs], [MLPDecoder(s.shape, width, (2,)) for s in specs]
    return MultimodalVAE(specs, encoders, decoders, MMVM()), data


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# I(x; z)

@pytest.mark.parametrize("signal", [0.5, 1.0, 3.0])
def test_the_rate_of_a_gaussian_channel_lies_between_the_two_estimates(signal):
    """D / 2 log(1 + s^2 / v); averages over eight sets of 400, so that their bias is seen and not their spread."""
    exact, estimates = D / 2 * math.log(1 + signal**2), []
    for seed in range(8):
        found = rate(*of(signal * normal(400, D, seed=seed)), seed=seed)
        estimates.append((found.information[0], found.upper[0]))
        assert found.ceiling[0] == pytest.approx(math.log(400)) and found.information[0] < found.upper[0]
    low, high = np.mean(estimates, 0)
    assert low < exact + 0.03 and high > exact - 0.03
    assert high - low < 0.35 and low > exact - 0.25  # measured 0.02 to 0.2
    assert found.marginal[0] + found.information[0] == pytest.approx(
        float((normal(400, D, seed=7) * signal).square().sum(1).mean()) / 2, rel=1e-5)  # mean KL(q || N(0, I)), v = 1


def test_the_ceiling_is_log_n():
    found = rate(*of(normal(300, D), var=1e-6))
    assert found.information[0] == pytest.approx(math.log(300), abs=1e-6), "a channel of 13 nats"
    assert found.upper[0] > 13
    assert rate(*of(normal(300, D), var=1e-6), n=100).ceiling[0] == pytest.approx(math.log(100))


def test_equal_posteriors_hold_nothing():
    found = rate(*of(torch.ones(50, D), torch.zeros(50, D)))
    np.testing.assert_allclose([found.information, found.upper], 0, atol=1e-9)
    np.testing.assert_allclose(found.marginal, [D / 2, 0], atol=1e-6)


def test_the_rate_does_not_know_where_and_how_wide_the_latent_is(monkeypatch):
    x = normal(200, D)
    here, there = rate(*of(x)), rate(*of(x, scale=50.0, shift=1_000.0))
    np.testing.assert_allclose(here.information, there.information, rtol=1e-3)
    monkeypatch.setattr(information, "CELLS", 1_000)  # five samples at a time
    np.testing.assert_allclose(rate(*of(x)).information, here.information, rtol=1e-12)


def test_the_rate_is_that_of_the_formula():
    x = normal(30, D).double()
    model, data = of(x)
    z = x.float().double() + torch.randn(30, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_q = -0.5 * ((z[:, None] - x.float()[None]).square().sum(-1) + D * math.log(2 * math.pi))
    own = log_q.diagonal()
    found = rate(model, data)
    assert found.information[0] == pytest.approx(float((own - log_q.exp().mean(1).log()).mean()), rel=1e-6)
    others = (log_q.exp().sum(1) - own.exp()) / 29
    assert found.upper[0] == pytest.approx(float((own - others.log()).mean()), rel=1e-6)


def test_laplace_posteriors_are_measured_as_such(monkeypatch):
    """The densities of the formula, below the ceiling where it is near, a few samples at a time or all at once."""
    sharp, data = of(3 * normal(300, D), 3 * normal(300, D), var=1e-6)
    laplace = MultimodalVAE(data.specs, sharp.encoders, sharp.decoders, MMVAE(2))
    found = rate(laplace, data)
    assert (found.information <= found.ceiling + 1e-9).all() and (found.information > found.ceiling - 0.01).all()
    pairs = shared_information(laplace, data)
    assert np.nanmax(pairs.shared + pairs.private) <= math.log(300) + 1e-9
    x = normal(30, D)
    model, data = of(x)
    model = MultimodalVAE(data.specs, model.encoders, model.decoders, MMVAE(1))
    q = DiagonalLaplace.within_limits(x.double(), torch.zeros(30, D, dtype=torch.float64))
    z = q.sample(torch.Generator().manual_seed(0))
    log_q = q.log_prob(z.unsqueeze(1))
    expected = float((log_q.diagonal() - log_q.exp().mean(1).log()).mean())
    found = rate(model, data)
    assert found.information[0] == pytest.approx(expected, rel=1e-6)
    assert found.marginal[0] == pytest.approx(float(q.kl_standard_normal().mean()) - expected, rel=1e-6)
    monkeypatch.setattr(information, "CELLS", 250)
    np.testing.assert_allclose(rate(model, data).information, found.information, rtol=1e-12)


def test_what_is_absent_does_not_count():
    observed = torch.ones(2, 100, dtype=torch.bool)
    observed[1, 1:] = False
    x = normal(100, D)
    x[~observed[1]] = float("nan")
    found = rate(*of(normal(100, D), x, observed=observed))
    assert found.ceiling[0] == math.log(100) and np.isfinite(found.information[0])
    assert np.isnan([found.information[1], found.upper[1], found.ceiling[1], found.marginal[1]]).all()


# of two latents

def test_shared_and_private_nats_of_jointly_gaussian_latents():
    """x_m = u + e_m: I(z_1; z_2) = -D / 2 log(1 - rho^2), and the rest of I(x; z) is private."""
    u, shared, private = 1.5 * normal(N, D), 2.25, 1.0
    xs = [u + normal(N, D, seed=seed) for seed in (1, 2)]
    total = shared + private + 1.0
    common = -D / 2 * math.log(1 - (shared / total)**2)
    model, data = of(*xs)
    found, whole = shared_information(model, data), rate(model, data)
    for m, n in ((0, 1), (1, 0)):
        assert found.shared[m, n] == pytest.approx(common, abs=0.08)
        assert found.private[m, n] == pytest.approx(D / 2 * math.log(total) - common, abs=0.08)
        assert found.shared[m, n] + found.private[m, n] == pytest.approx(whole.information[m], abs=0.06)
        assert found.ceiling[m, n] == pytest.approx(math.log(N / 2))
    assert np.isnan(found.shared.diagonal()).all() and np.isnan(found.private.diagonal()).all()
    moved = shared_information(*of(*xs, scale=30.0, shift=-500.0))
    np.testing.assert_allclose(moved.shared, found.shared, atol=2e-3)


def test_what_is_shared_in_clusters_is_found_too():
    """Four far-apart clusters, each modality's own place in them independent: log 4 nats are shared."""
    corners = 20 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).repeat(N // 4, 1)
    found = shared_information(*of(*(corners + normal(N, D, seed=s) for s in (1, 2))))
    np.testing.assert_allclose(found.shared[[0, 1], [1, 0]], math.log(4), atol=0.05)


def test_independent_latents_share_nothing_and_equal_ones_up_to_the_ceiling():
    found = shared_information(*of(normal(N, D), normal(N, D, seed=1)))
    assert np.abs(found.shared[[0, 1], [1, 0]]).max() < 0.02
    same = normal(400, D)
    found = shared_information(*of(same, same, var=1e-8))
    assert math.log(200) - 0.01 < found.shared[0, 1] <= math.log(200) + 1e-9, "of 18.4 nats"


def test_windows_of_one_trial_are_in_one_half_where_they_are_said_to_be_one_group():
    """Twenty windows of a trial are nearly alike and trials are independent between modalities: nothing is shared, but
    fitted to half of each trial's windows the pairing of the trials looks like knowledge."""
    trials = torch.arange(15).repeat_interleave(20)
    xs = [3 * normal(15, D, seed=seed)[trials] + 0.1 * normal(300, D, seed=seed + 9) for seed in (1, 2)]
    model, data = of(*xs, var=1e-2)
    split, whole = shared_information(model, data), shared_information(model, data, groups=trials.numpy())
    assert split.shared[0, 1] > 0.05 > 0.01 > whole.shared[0, 1]
    assert whole.ceiling[0, 1] == pytest.approx((math.log(160) + math.log(140)) / 2)  # eight trials and seven
    uneven = (torch.arange(300) >= 297).long()
    with pytest.raises(UserError, match="halves of (3 and 297|297 and 3) samples"):
        shared_information(model, data, groups=uneven)
    with pytest.raises(UserError, match="give more groups"):
        shared_information(model, data, groups=torch.zeros(300))
    some = shared_information(model, data, n=200, seed=3, groups=trials)
    assert np.isfinite(some.shared[0, 1])


def test_latents_that_never_meet_and_one_modality():
    observed = torch.tensor([[True, False], [False, True], [True, True]]).repeat_interleave(100, 1)
    found = shared_information(*of(*(normal(200, D, seed=s) for s in range(3)), observed=observed))
    assert np.isnan(found.private[0, 1]) and np.isfinite(found.private[0, 2])
    model, data = of(normal(40, D))
    assert np.isnan(shared_information(model, data).shared).all() and rate(model, data).information.shape == (1,)
    with pytest.raises(UserError, match="7 samples have both m0 and m1, latents of 2 dimensions take 8 at least"):
        shared_information(*of(normal(7, D), normal(7, D)))


# of all latents

@pytest.mark.parametrize("m", [2, 3])
def test_total_correlation_of_gaussians(m):
    """x_m = u + e_m, noise 1: covariance c between modalities, c + 2 within: log-determinants of D equal dimensions."""
    u, c = 1.5 * normal(N, D), 2.25
    model, data = of(*(u + normal(N, D, seed=seed + 1) for seed in range(m)))
    covariance = c * np.ones((m, m)) + 2 * np.eye(m)
    exact = D / 2 * (m * math.log(c + 2) - np.linalg.slogdet(covariance)[1])
    assert total_correlation(model, data) == pytest.approx(exact, abs=0.06)
    if m == 2:
        assert exact == pytest.approx(-D / 2 * math.log(1 - (c / (c + 2))**2)), "of two it is their mutual information"


def test_total_correlation_of_independent_latents_is_zero_on_average_also_of_few_samples():
    found = [total_correlation(*of(normal(60, 8, seed=s), normal(60, 8, seed=100 + s)), seed=s) for s in range(20)]
    assert abs(np.mean(found)) < 5 * np.std(found) / math.sqrt(20) + 0.02  # without the correction 0.65
    assert np.std(found) < 0.3


def test_total_correlation_knows_ranks_alone():
    x, y = normal(500, D), normal(500, D) + normal(500, D, seed=1)
    here, there = of(x, y, var=1e-9), of(x.exp(), y**3, var=1e-9)
    assert total_correlation(*here) == pytest.approx(total_correlation(*there), abs=1e-2)
    assert total_correlation(*of(x)) == 0.0
    with pytest.raises(UserError, match="5 samples have all modalities, their 4 latent dimensions take 6 at least"):
        total_correlation(*of(x[:5], y[:5]))


# factors

def test_probes_read_what_the_latent_has():
    """z = (a, noise), v = 1 / 4: a linear factor, one that only a non-linear probe reads, and one that is not there."""
    a, noise = normal(N, 1), normal(N, 1, seed=1)
    model, data = of(torch.cat([a, noise], 1), torch.cat([noise, noise], 1))
    train, test = data.subset(slice(0, 2_000)), data.subset(slice(2_000, N))
    own = torch.stack([a[:, 0], noise[:, 0]]).numpy()
    values = {"a": a[:, 0].numpy(), "square": a[:, 0].square().numpy(), "own": own,
              "half": (a[:, 0] > 0).long().numpy(), "ring": (a[:, 0].abs() > 0.67).long().numpy()}
    found = factor_probes(model, train, test, {name: (x[..., :2_000], x[..., 2_000:]) for name, x in values.items()},
                          classes=("half", "ring"))
    assert set(found) == {f"{name}/{kind}" for name in values for kind in ("linear", "nonlinear")}
    assert found["a/linear"][0] > 0.999 and abs(found["a/linear"][1]) < 0.02, "means: the noise is not added"
    assert found["square/linear"][0] < 0.1 and found["square/nonlinear"][0] > 0.9
    assert (found["own/linear"] > 0.999).all(), "each modality has its own"
    assert found["half/linear"][0] > 0.97 and found["half/linear"][1] == pytest.approx(0.5, abs=0.08)
    assert found["ring/linear"][0] == pytest.approx(0.5, abs=0.08) and found["ring/nonlinear"][0] > 0.9


@pytest.mark.parametrize("factors, classes, message", [
    ({"a": (np.zeros(39), np.zeros(40))}, (), r"factor 'a' has values of shape \(39,\), the data have 40 samples of 2"),
    ({"a": (np.zeros((3, 40)), np.zeros(40))}, (), r"give \(40,\) or \(2, 40\)"),
    ({"a": (np.zeros(40), np.zeros(40))}, (), "factor 'a' has one value"),
    ({"a": (np.zeros(40), np.zeros(40))}, ("a",), "factor 'a' has one class in the training samples"),
    ({"a": (np.arange(40), np.arange(40))}, ("b",), "classes b are no factors: there are a")])
def test_mistakes_are_named(factors, classes, message):
    model, data = of(normal(40, D), normal(40, D))
    with pytest.raises(UserError, match=message):
        factor_probes(model, data, data, factors, classes)


def test_a_modality_that_few_samples_have_cannot_be_probed():
    observed = torch.ones(2, 40, dtype=torch.bool)
    observed[1, 9:] = False
    model, data = of(normal(40, D), normal(40, D), observed=observed)
    with pytest.raises(UserError, match="9 training and 9 test samples have m1, a probe takes 10 and 2"):
        factor_probes(model, data, data, {"a": (np.arange(40), np.arange(40))})


def named(n=240):
    """Data of which every sample has a name, and the name of its session."""
    model, data = of(normal(n, D), normal(n, D, seed=1))
    index = [f"t{i:03}" for i in range(n)]
    return model, replace(data, ids=index), pd.Series([f"s{i // 20}" for i in range(n)], index=index)


def test_groups_are_names_or_numbers_and_give_the_same_halves():
    model, data, sessions = named()
    numbers = pd.factorize(sessions, sort=True)[0]
    found = [shared_information(model, data, groups=groups).shared[0, 1] for groups in (
        sessions, sessions.to_numpy(), numbers, torch.from_numpy(numbers), list(sessions))]
    assert len(set(found)) == 1 and np.isfinite(found[0])
    some = data.subset(slice(0, 200))
    rows = {groups is None: kept(model, data, some, groups=groups)[0] for groups in (sessions[:200], None)}
    pairs = shared_information(model, some, groups=sessions[:200])
    assert rows[False]["information_shared"][0] == ("m1", "m0", pairs.shared[0, 1])
    assert rows[True]["information_shared"][0] != rows[False]["information_shared"][0], "they are asked for"


@pytest.mark.parametrize("groups, message", [
    (lambda s: s.sample(frac=1, random_state=0), r"index of `groups` is not that of .*give groups\.loc\[data\.ids"),
    (lambda s: pd.concat([s, s]), r"`groups` is of shape \(480,\): give one group for each of the 240 samples"),
    (lambda s: np.arange(5), r"`groups` is of shape \(5,\)"),
    (lambda s: s.where(s != "s3"), "20 samples have no group in `groups` .the first: sample 60.")])
def test_groups_of_other_samples_are_refused(groups, message):
    model, data, sessions = named()
    with pytest.raises(UserError, match=message):
        shared_information(model, data, groups=groups(sessions))


def test_factors_of_other_samples_or_with_unknown_values_are_refused():
    model, data, _ = named()
    speed = pd.Series(data.modalities["m0"][:, 0].numpy(), index=data.ids)
    train, test = data.subset(slice(0, 140)), data.subset(slice(140, 240))

    def probe(of_train):
        return factor_probes(model, train, test, {"speed": (of_train, speed[test.ids])})

    assert probe(speed[train.ids])["speed/linear"][0] > 0.99
    with pytest.raises(UserError, match=r"index of factor 'speed' is not that of .*factor\.loc\[data\.ids\]"):
        probe(speed[train.ids].sample(frac=1, random_state=0))
    with pytest.raises(UserError, match=r"factor 'speed' is NaN in 7 samples \(the first: 0\): leave these out"):
        probe(speed[train.ids].where(np.arange(140) % 20 != 0))
    seen = torch.ones(2, 140, dtype=torch.bool)
    seen[1, ::20] = False
    train = replace(train, observed=seen)
    both = np.stack([speed[train.ids], speed[train.ids].where(np.arange(140) % 20 != 0)])
    assert np.isfinite(probe(both)["speed/linear"]).all(), "nothing is known of a modality that is not there"


def test_probes_of_training_rows_are_warned_of():
    model, data, sessions = named()
    labels = torch.arange(240) % 2
    data = replace(data, labels=labels)
    probes = (lambda train, test: linear_probe(model, train, test),
              lambda train, test: by_label.encode(model, replace(train, labels=one_hot(train.labels)),
                                                  replace(test, labels=one_hot(test.labels))),
              lambda train, test: factor_probes(model, train, test, {"x": (np.arange(len(train)),
                                                                           np.arange(len(test)))}))
    for bare in (False, True):
        both = replace(data, ids=None) if bare else data
        for probe in probes:
            with pytest.warns(ValueWarning, match="100 of 140 test samples are also training samples") as said:
                probe(both.subset(slice(0, 200)), both.subset(slice(100, 240)))
            assert said[0].filename == __file__
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                probe(both.subset(slice(0, 200)), both.subset(slice(200, 240)))
