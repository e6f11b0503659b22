"""Probes across modalities, silhouettes, chance by permutation, recovery, and deviance: on latents that are known."""

import numpy as np
import pytest
import torch
from conftest import SEED
from sklearn.metrics import mean_poisson_deviance
from torch import nn

from mmvm import Independent, Modality, MultimodalData, MultimodalVAE, Normal, Poisson, UserError
from studies.hippocampus.alignment import chance, linear_reading, linear_recovery, probes, silhouettes
from studies.hippocampus.deviance import deviance, deviance_explained, explained_by_label

CENTRES = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0]])


class Reads(nn.Module):
    """An encoder whose mean is its input."""

    def forward(self, x):
        return x, torch.full_like(x, -20.0)


class Says(nn.Module):
    """A decoder with one number per unit: z itself, repeated over the bins."""

    def __init__(self, bins=1):
        super().__init__()
        self.bins = bins
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, z):
        return z.unsqueeze(-1).expand(-1, -1, self.bins)


def placed(*views, n=120, seed=0, observed=None):
    """Three classes around `CENTRES`, seen by each modality through its own view."""
    generator = torch.Generator().manual_seed(SEED + seed)
    labels = torch.arange(n) % 3
    x = {f"m{i}": view(CENTRES[labels] + 0.3 * torch.randn(n, 2, generator=generator)) for i, view in enumerate(views)}
    return MultimodalData(x, tuple(Modality(name, (2,), Normal()) for name in x), labels, observed, n_classes=3)


def reader(data):
    return MultimodalVAE(data.specs, [Reads() for _ in data.specs], [Says() for _ in data.specs], Independent())


def same(x):
    return x


def turned(x):
    return -x


def moved(x):
    return x + 40


def test_aligned_modalities_share_a_probe():
    train, test = placed(same, same), placed(same, same, seed=1)
    found = probes(reader(train), train, test)
    assert (found.transfer == 1).all() and (found.shared == 1).all()
    assert found.own_hits.sum() == found.shared_hits.sum() == 2 * len(test)
    assert (found.shared_hits[range(len(test)), test.labels] == 2).all()


def test_a_turned_modality_is_known_to_its_own_probe_alone():
    train, test = placed(same, turned), placed(same, turned, seed=1)
    found = probes(reader(train), train, test)
    assert (np.diag(found.transfer) == 1).all() and found.transfer[0, 1] < 0.4 and found.shared.mean() < 0.7


def test_a_moved_modality_is_not_moved_back():
    train, test = placed(same, moved), placed(same, moved, seed=1)
    found = probes(reader(train), train, test)
    assert (np.diag(found.transfer) == 1).all() and found.transfer[0, 1] == pytest.approx(1 / 3)


def test_absent_modalities_do_not_count():
    observed = torch.ones(2, 120, dtype=torch.bool)
    observed[1, ::2] = False
    train, test = placed(same, same, observed=observed), placed(same, same, seed=1, observed=observed)
    test.modalities["m1"][::2] = float("nan")
    found = probes(reader(train), train, test)
    assert found.shared_hits.sum() == 180 and found.shared.mean() == 1
    observed = observed.clone()
    observed[1] = False
    with pytest.raises(UserError, match="probe of m1 has training samples of 0 classes"):
        probes(reader(train), placed(same, same, observed=observed), test)


def test_silhouettes_tell_classes_from_modalities():
    together, apart = (silhouettes(reader(data), data) for data in (placed(same, same), placed(same, moved)))
    assert together["label"] > 0.7 and together["modality"] < 0.05
    assert apart["modality"] > 0.7 and apart["label"] < 0.3
    alone = placed(same)
    assert silhouettes(reader(alone), alone)["modality"] == 0


def test_chance_permutes_whole_trials():
    labels, groups = np.repeat(np.arange(4), 40), np.repeat(np.arange(20), 8)      # 5 trials of 8 windows per class
    hits = np.eye(4)[labels]
    by_trial, by_window = chance(hits, labels, groups), chance(hits, labels, np.arange(160))
    assert by_trial.mean == pytest.approx(0.25, abs=0.02) and by_trial.p == pytest.approx(1 / 1001)
    assert by_trial.upper > by_window.upper + 0.05                          # 20 trials say less than 160 windows
    nothing = chance(np.eye(4)[np.zeros(160, dtype=int)], labels, groups)
    assert nothing.mean == nothing.upper == 0.25 and nothing.p == 1
    with pytest.raises(UserError, match="several classes"):
        chance(hits, labels, np.zeros(160, dtype=int))


def test_recovery_with_one_map_needs_alignment():
    random = np.random.default_rng(SEED)
    truth, truth_test = random.standard_normal((2, 2, 200, 2))
    turn = np.array([[0.0, 2.0], [-2.0, 0.0]])
    z, z_test = (np.stack([x[0] @ turn, -x[1] @ turn]) for x in (truth, truth_test))
    own, shared = linear_recovery(z, truth, z_test, truth_test)
    # the best map for both turns is none; what one gains by chance, the other loses (measured -.32 and .24)
    assert np.allclose(own, 1) and shared.mean() < 0.1
    own, shared = linear_recovery(truth, truth, truth_test, truth_test)
    assert np.allclose(shared, 1)
    assert np.allclose(linear_reading(z, truth, z_test), truth_test)


# deviance ------------------------------------------------------------------------------------------------------------

def firing(n=4000, seed=0, scale=1.0, likelihood=None):
    """Two animals, three units, four bins: log rates are z, of two classes; x counts."""
    torch.manual_seed(SEED + seed)
    labels = torch.arange(n) % 2
    log_rate = torch.tensor([[0.5, -1.0, 0.0], [-0.5, 1.0, 0.0]])
    x = {name: torch.poisson(log_rate[labels].exp().unsqueeze(-1).expand(-1, -1, 4)) for name in ("a", "b")}
    specs = tuple(Modality(name, (3, 4), likelihood or Poisson(), scale=scale) for name in x)
    return MultimodalData(x, specs, labels, n_classes=2), log_rate


class Knows(nn.Module):
    """Encodes the class as what it reads off the second unit's count: a large one is of class 1."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, x):
        mean = self.table[(x[:, 1].sum(-1) > 4).long()]
        return mean, torch.full_like(mean, -20.0)


def test_deviance_is_scikit_learns():
    x, rate = torch.poisson(torch.full((50,), 0.4)).double(), torch.rand(50).double() + 0.1
    assert float(deviance(x, rate)) / 50 == pytest.approx(mean_poisson_deviance(x, rate))


def test_what_knows_the_class_explains_as_much_as_the_histogram():
    (train, log_rate), (test, _) = firing(), firing(seed=1)
    model = MultimodalVAE(train.specs, [Knows(log_rate) for _ in range(2)], [Says(4) for _ in range(2)], Independent())
    found, times = deviance_explained(model, train, test), torch.zeros(len(test), dtype=torch.long)
    best = explained_by_label(train, test, (times, times))
    assert best[0] == pytest.approx(0.26, abs=0.03)
    assert found.shape == (2, 2) and np.allclose(found, best[None], atol=0.05) and (found < best + 1e-3).all()


def test_a_decoder_that_says_the_mean_explains_nothing():
    (train, _), (test, _) = firing(), firing(seed=1)
    mean = torch.stack([train.modalities[name].mean((0, 2)).log() for name in ("a", "b")])
    model = MultimodalVAE(train.specs, [Knows(mean[:1].expand(2, -1)) for _ in range(2)],
                          [Says(4) for _ in range(2)], Independent())
    assert np.abs(deviance_explained(model, train, test)).max() < 0.01


def test_scale_and_negative_predictions_of_squared_error():
    (train, log_rate), (test, _) = (firing(seed=seed, scale=0.1, likelihood=Normal()) for seed in (0, 1))

    class Tenth(Knows):
        def forward(self, x):
            mean, logvar = super().forward(10 * x)
            return mean.exp() / 10, logvar
    encoders = [Tenth(log_rate) for _ in range(2)]
    model = MultimodalVAE(train.specs, encoders, [Says(4) for _ in range(2)], Independent())
    assert deviance_explained(model, train, test).min() > 0.2
    encoders[0].table = torch.full((2, 3), float("-inf"))                           # predicts 0, then raised to 5 %
    found = deviance_explained(model, train, test)
    assert np.isfinite(found).all() and found[0].max() < -0.5 and found[1].min() > 0.2
