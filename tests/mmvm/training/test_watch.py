"""What goes wrong while the loss falls is named: each diagnostic on a run made to fail in that way, and on one that is
not. Two modalities of 200 samples, both seen through the same two numbers."""

import warnings

import pytest
import torch
from torch import nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import ValueWarning
from mmvm.likelihoods import Bernoulli, Beta, Normal, Poisson
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM, Aggregated, Independent, Schedule
from mmvm.training import watch
from mmvm.training.loop import fit

N, EPOCHS = 200, 20


def run(objective=None, beta=0.1, weights=(1.0, 1.0), factors=(1.0, 1.0), offset=0.0, decoders=None, epochs=EPOCHS):
    """What a run says, as texts. `factors` multiply the values of the two modalities, `offset` is added to them."""
    generator = torch.Generator().manual_seed(1)
    common = torch.randn(N, 2, generator=generator)
    specs = tuple(Modality(name, (n,), Normal(0.5), weight=w) for name, n, w in zip("ab", (4, 6), weights))
    arrays = {s.name: factor * common @ torch.randn(2, s.shape[0], generator=generator) + offset
              for s, factor in zip(specs, factors)}
    torch.manual_seed(0)
    model = MultimodalVAE(specs, [MLPEncoder(s.shape, 2, (8,)) for s in specs],
                          decoders or [MLPDecoder(s.shape, 2, (8,)) for s in specs], objective or MMVM(), beta)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(model, MultimodalData(arrays, specs), epochs=epochs, batch_size=16, learning_rate=1e-2, device="cpu",
            precision="float32", check="off")
    return [str(warning.message) for warning in said]


@pytest.mark.slow
@pytest.mark.parametrize("objective", [MMVM(), Independent(), Aggregated("poe")], ids=["mmvm", "independent", "poe"])
def test_a_run_that_learns_says_nothing(objective):
    assert run(objective) == []


def test_collapsed_posteriors_are_named_once_each():
    said = run(Independent(), beta=100.0)
    assert len(said) == 2 and all("smaller beta" in sentence for sentence in said)
    assert "posterior of 'a' has collapsed" in said[0] and "posterior of 'b' has collapsed" in said[1]


def test_a_collapse_is_of_the_modality_that_has_one():
    said = run(Independent(), beta=1.0, factors=(1.0, 0.01))
    assert len(said) == 1 and "posterior of 'b' has collapsed" in said[0]


def linear(bias):
    torch.manual_seed(2)
    return [nn.Linear(2, n, bias=bias) for n in (4, 6)]


FAR = dict(beta=3.0, offset=10.0, factors=(0.3, 0.3))


def drift(*args, **about):
    return [sentence for sentence in run(*args, **about) if "latents drift" in sentence]


@pytest.mark.slow
def test_latents_that_drift_are_named_where_nothing_holds_them():
    """Decoders without an offset need latents far away for values far away."""
    said = drift(MMVM(), decoders=linear(False), **FAR)
    assert len(said) == 1 and "standardise=True" in said[0]
    assert not drift(MMVM(), decoders=linear(True), **{**FAR, "offset": 0.0})
    assert not drift(MMVM(standard_normal_weight=0.1), decoders=linear(False), **FAR)


def test_latents_drift_from_when_alpha_has_fallen():
    assert drift(MMVM(standard_normal_weight=Schedule(1.0, 0.0, 50)), decoders=linear(False), **FAR)


@pytest.mark.slow
@pytest.mark.parametrize("name, factors", [("a", (100.0, 1.0)), ("b", (1.0, 30.0))])
def test_a_log_likelihood_that_drowns_the_others_is_named(name, factors):
    said = [sentence for sentence in run(factors=factors) if "drowns" in sentence]
    assert len(said) == 1 and f"log-likelihood of {name!r}" in said[0] and "smaller weight" in said[0]


def test_a_weight_keeps_a_log_likelihood_from_drowning_the_others():
    assert not any("drowns" in sentence for sentence in run(factors=(100.0, 1.0), weights=(1e-4, 1.0)))


@pytest.mark.slow
def test_a_modality_without_weight_is_not_drowned():
    assert not any("drowns" in sentence for sentence in run(weights=(1.0, 0.0)))


@pytest.mark.parametrize("likelihood, factor", [(Poisson(), -0.9), (Bernoulli(), 1.2), (Beta(), 1.2)])
def test_a_look_ends_no_training_of_values_that_nobody_checked(likelihood, factor):
    data = MultimodalData({"a": factor * torch.rand(N, 4), "b": torch.randn(N, 3)},
                          (Modality("a", (4,), likelihood), Modality("b", (3,), Normal())))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ValueWarning)
        history = fit(MultimodalVAE.for_data(data, 2, say=None), data, epochs=2, batch_size=50, device="cpu",
                      precision="float32", check="off")
    assert len(history.epochs) == 2


def test_a_look_leaves_losses_and_random_state_alone(monkeypatch):
    def weights():
        torch.manual_seed(0)
        data = MultimodalData({"a": torch.randn(N, 4)}, (Modality("a", (4,), Normal()),))
        model = MultimodalVAE(data.specs, [MLPEncoder((4,), 2, (8,))], [MLPDecoder((4,), 2, (8,))], MMVM())
        history = fit(model, data, epochs=2, batch_size=16, device="cpu", precision="float32")
        return history["loss"], torch.cat([p.flatten() for p in model.parameters()])

    loss, watched = weights()
    monkeypatch.setattr(watch.Watch, "look", lambda *_: [])
    assert loss == weights()[0] and torch.equal(watched, weights()[1])
