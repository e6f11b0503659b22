"""What is generated, judged where the right answer is known: C classes at C corners, one latent number a modality."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mmvm import Modality, MultimodalData, MultimodalVAE, Normal, fit_latent_density, fit_latent_diffusion
from mmvm.errors import UserError
from mmvm.evaluation import classifier_accuracy, coherence
from mmvm.objectives import MMVM
from studies.polymnist.generation import generation

N, SPREAD = 300, 0.05
PLACES = torch.tensor([-1.0, 0.0, 1.0])  # of the three classes


class Sure(nn.Module):
    """q(z | x) = N(x, 1e-4)."""

    def __init__(self):
        super().__init__()
        self.none = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.none, torch.full_like(x, math.log(1e-4))


class Itself(nn.Module):
    def __init__(self):
        super().__init__()
        self.none = nn.Parameter(torch.zeros(()))

    def forward(self, z):
        return z + self.none


class Nearest(nn.Module):
    """Names the class whose place is nearest."""

    def forward(self, x):
        return -(x - PLACES).abs()

    def features(self, x):
        return x


class Given:
    """A density that says what it is told to, jointly and given others."""

    def __init__(self, draws, made=None):
        self.draws = draws
        if made is not None:
            self.sample_given = lambda z, given: torch.where(given.unsqueeze(-1), z, made(z, given))

    def check(self, model):
        pass

    def sample(self, n):
        return self.draws[:, :n]


def samples(n=N, modalities=3, seed=0, spread=SPREAD):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    noise = spread * torch.randn(modalities, n, 1, generator=generator)
    return PLACES[labels].reshape(1, n, 1) + noise, labels


def whole(n=N, modalities=3, seed=0, observed=None):
    x, labels = samples(n, modalities, seed)
    specs = tuple(Modality(f"m{i}", (1,), Normal()) for i in range(modalities))
    return MultimodalData({spec.name: own for spec, own in zip(specs, x)}, specs, labels, observed=observed)


@pytest.fixture
def parts():
    train, test = whole(seed=1), whole(seed=2)
    model = MultimodalVAE(train.specs, [Sure() for _ in range(3)], [Itself() for _ in range(3)], MMVM())
    return model, train, test, [Nearest() for _ in range(3)]


def test_draws_of_the_data_are_coherent_varied_and_no_copies(parts):
    model, train, test, classifiers = parts
    found = generation(model, Given(samples(seed=3)[0]), train, test, classifiers, n=N)
    assert found["joint_coherence"] == 1 and found["joint_classes"] == pytest.approx(math.log(3))
    assert np.all(found["joint_distance"] < 1e-3)
    assert found["joint_diversity"] == pytest.approx(np.ones(3), rel=0.3)
    assert found["joint_nearest"] == pytest.approx(np.ones(3), rel=0.5)


def test_each_fault_shows_in_its_own_measure(parts):
    model, train, test, classifiers = parts
    x, _ = samples(seed=3)
    apart = torch.stack([x[0], x[1].roll(1, 0), x[2].roll(2, 0)])  # three classes in every draw
    assert generation(model, Given(apart), train, test, classifiers, n=N)["joint_coherence"] == 0
    one = x[:, ::3].repeat(1, 3, 1)  # one class alone
    found = generation(model, Given(one), train, test, classifiers, n=N)
    assert found["joint_classes"] == pytest.approx(0, abs=1e-9) and np.all(found["joint_distance"] > 0.5)
    dull = generation(model, Given(samples(seed=3, spread=SPREAD / 3)[0]), train, test, classifiers, n=N)
    assert dull["joint_diversity"] == pytest.approx(np.full(3, 1 / 9), rel=0.3)
    copies = torch.stack([train.modalities[name] for name in train.names])
    assert np.all(generation(model, Given(copies), train, test, classifiers, n=N)["joint_nearest"] < 1e-3)


def test_what_is_given_others_counts_by_their_number(parts):
    """Of one given the density knows nothing and says class 0; of two it says what the first of them shows."""
    model, train, test, classifiers = parts

    def made(z, given):
        first = torch.where(given[0].unsqueeze(-1), z[0], torch.where(given[1].unsqueeze(-1), z[1], z[2]))
        return torch.where((given.sum(0) == 2).unsqueeze(-1), first, torch.full_like(first, PLACES[0])).expand_as(z)

    found = generation(model, Given(samples(seed=3)[0], made), train, test, classifiers, n=N)
    assert found["conditional_coherence_1"] == pytest.approx(1 / 3) and found["conditional_coherence_2"] == 1
    assert "conditional_coherence_3" not in found


def test_both_densities_generate_and_the_same_seed_the_same(parts):
    model, train, test, classifiers = parts
    for density in (fit_latent_density(model, train, 3),
                    fit_latent_diffusion(model, train, updates=300, batch_size=64, width=32, blocks=1)):
        first, again = (generation(model, density, train, test, classifiers, n=90, seed=5) for _ in range(2))
        assert all(np.array_equal(first[name], again[name]) for name in first)
        # one z through all decoders, or one of each that a short training has learned to go together
        assert first["joint_coherence"] > 0.8
    assert first["conditional_coherence_2"] > 0.8


def test_weights_that_the_data_give_are_told(parts):
    """Two of three lie, and are not trusted: what is made of all that is given shows the class of the third."""
    _, train, test, classifiers = parts
    trust = torch.tensor([[1.0], [0.0], [0.0]]).expand(3, N)
    lying = {name: x if name == "m0" else -x for name, x in test.modalities.items()}
    given = MultimodalData(lying, test.specs, test.labels, trust=trust)
    model = MultimodalVAE(train.specs, [Sure() for _ in range(3)], [Itself() for _ in range(3)], MMVM(weights="given"))
    found = generation(model, Given(samples(seed=3)[0]), train, given, classifiers, n=N)
    share = ((test.labels == 1).double().mean() + 2) / 3  # pairs that m0 is in are right, and class 1 is where 0 is
    assert found["conditional_coherence_2"] == pytest.approx(float(share), abs=1e-6)


def test_units_of_what_is_stored_do_not_matter():
    """The same samples in other units, standardised: what is drawn and made is judged in the networks' own."""
    found = []
    for factor, shift in ((1.0, 0.0), (10.0, 100.0)):
        parts = []
        for seed in (1, 2):
            x, labels = samples(seed=seed)
            specs = parts[0].specs if parts else tuple(Modality(f"m{i}", (1,), Normal(), standardise=True)
                                                       for i in range(3))
            stored = {spec.name: factor * own + shift for spec, own in zip(specs, x)}
            parts.append(MultimodalData(stored, specs, labels))
        model = MultimodalVAE(parts[0].specs, [Sure() for _ in range(3)], [Itself() for _ in range(3)], MMVM())
        found.append(generation(model, Given(samples(seed=3)[0]), *parts, [Nearest() for _ in range(3)], n=N))
    assert found[0]["joint_coherence"] > 0.9 and np.all(found[0]["joint_distance"] < 0.2)
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=0.05, atol=1e-4, err_msg=name)


def test_classifiers_in_training_mode_judge_as_trained_ones_and_are_left_alone(parts):
    model, train, test, classifiers = parts
    nets = [nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(1, affine=False), own) for own in classifiers]
    for net, own in zip(nets, classifiers):
        net.features = own.features
    judged = [generation(model, Given(samples(seed=3)[0]), train, test, nets, n=90)["joint_coherence"],
              coherence(model, test, nets), classifier_accuracy(nets[0], *first_of(test))]
    assert all(net.training and net[1].num_batches_tracked == 0 for net in nets)
    for net in nets:
        net.eval()
    assert judged[0] == generation(model, Given(samples(seed=3)[0]), train, test, nets, n=90)["joint_coherence"]
    assert np.array_equal(judged[1], coherence(model, test, nets))
    assert judged[2] == classifier_accuracy(nets[0], *first_of(test)) > 0.9


def first_of(data):
    return data.modalities["m0"], data.labels, data.specs[0]


def test_only_whole_samples_count(parts):
    model, train, _, classifiers = parts
    observed = torch.ones(3, N, dtype=torch.bool)
    observed[0, ::2] = False
    half = whole(seed=2, observed=observed)
    found = generation(model, Given(samples(seed=3)[0]), half, half, classifiers, n=N)
    assert np.isfinite(found["joint_nearest"]).all()
    none = whole(seed=2, observed=torch.cat([torch.zeros(1, N, dtype=torch.bool), torch.ones(2, N, dtype=torch.bool)]))
    with pytest.raises(UserError, match="have every modality"):
        generation(model, Given(samples(seed=3)[0]), train, none, classifiers, n=N)
    with pytest.raises(UserError, match="n of 2 or more"):
        generation(model, Given(samples(seed=3)[0]), train, train, classifiers, n=1)
