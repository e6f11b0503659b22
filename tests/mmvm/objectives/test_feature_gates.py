"""A gate that reads what the encoders' heads read: its weights, whom its gradient reaches, and when it pays."""

import pytest
import torch
from torch import nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.likelihoods import Normal
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.networks.features import WithFeatures
from mmvm.objectives import MMVM, Gated, Posteriors
from mmvm.training.loop import fit
from mmvm.training.plan import Plan

N, D, WIDTHS = 12, 2, (7, 5, 9)
SPECS = [Modality(name, (3,), Normal(1.0)) for name in "abc"]
OBSERVED = torch.rand(3, N, generator=torch.Generator().manual_seed(1)) < 0.7
OBSERVED[0] |= ~OBSERVED.any(0)


def samples(n=N):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, generator=generator) for _ in SPECS]


def gated(mode="soft", encoders=None, **options):
    """A model whose gate has weights far from equal."""
    torch.manual_seed(0)
    gate = Gated(D, mode, reads="features", **options)
    nn.init.normal_(gate.score[-1].weight, std=1.0)
    encoders = encoders or [MLPEncoder((3,), D, (width,)) for width in WIDTHS]
    return MultimodalVAE(SPECS, encoders, [MLPDecoder((3,), D, (4,)) for _ in SPECS], MMVM(weights=gate))


class Own(nn.Module):
    """An encoder of somebody's own, whose one last layer has both numbers."""

    def __init__(self, shows: bool, normalises: bool = False):
        super().__init__()
        self.shows = shows
        self.body = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6) if normalises else nn.Identity(), nn.Tanh())
        self.head = nn.Linear(6, 2 * D)

    def forward(self, x):
        h = self.body(x)
        return (*self.head(h).chunk(2, 1), h) if self.shows else self.head(h).chunk(2, 1)


def test_weights_equal_the_network_written_out():
    model, x = gated(), samples()
    gate = model.objective.gate
    q = model.encode(x, OBSERVED)
    weights = model.objective.log_weights(q, OBSERVED).exp()
    own = torch.stack([embed(encoder.trunk(x_m)) for embed, encoder, x_m in zip(gate.embed, model.encoders, x)])
    for b in range(N):
        there = OBSERVED[:, b]
        scores = gate.score(torch.cat([own[there, b], own[there, b].mean(0).expand(int(there.sum()), -1)], 1))[:, 0]
        torch.testing.assert_close(weights[there, b], scores.softmax(0))
        assert (weights[~there, b] == 0).all()
    assert [f.shape for f in q.features] == [(N, width) for width in WIDTHS] and weights[OBSERVED].std() > 0.1


@pytest.mark.parametrize("mode", Gated.MODES)
def test_the_gate_learns_and_the_encoders_do_not_through_it(mode):
    """Without a gradient through the features theirs is that of the same weights as given numbers; with one it is
    another."""
    for detach in (True, False):
        model, x = gated(mode, detach=detach, load_balance=1.0).eval(), samples()
        q = model.encode(x, OBSERVED)
        model.objective(q, OBSERVED).regulariser.sum().backward()
        assert all((p.grad != 0).any() for p in model.objective.gate.parameters())
        ours = torch.cat([p.grad.flatten() for p in model.encoders.parameters()])
        weights = model.objective.log_weights(q, OBSERVED).exp().detach()
        model.zero_grad()
        told = Posteriors.beside(model.encode(x, OBSERVED), weights)
        MMVM(weights="given")(told, OBSERVED).regulariser.sum().backward()
        fixed = torch.cat([p.grad.flatten() for p in model.encoders.parameters()])
        assert torch.allclose(ours, fixed, rtol=1e-4, atol=1e-6) == detach


@pytest.mark.parametrize("objective", ["mmvm:gate=soft,reads=features", "mmvm:gate=hard,reads=features,load_balance=1",
                                       "mmvm:gate=gumbel,reads=features,temperature_updates=9"])
def test_it_is_trained_kept_and_continued_by_its_text(objective, tmp_path):
    data = MultimodalData(dict(zip("abc", samples())), SPECS, observed=OBSERVED)
    torch.manual_seed(0)
    model = MultimodalVAE.for_data(data, D, objective, say=None)
    before = [p.detach().clone() for p in model.objective.gate.parameters()]
    settings = dict(batch_size=6, learning_rate=1e-2, device="cpu", out=tmp_path, validation=data.subset(slice(4)))
    fit(model, data, epochs=1, **settings)
    assert all((a != b).any() for a, b in zip(before, model.objective.gate.parameters()))
    torch.manual_seed(1)
    again = MultimodalVAE.for_data(data, D, objective, say=None)
    assert fit(again, data, epochs=2, **settings).epochs[-1]["epoch"] == 2
    again.save(tmp_path / "model.safetensors")
    kept = MultimodalVAE.load(tmp_path / "model.safetensors")
    batch = data.batch(torch.arange(N))
    for own in (again, kept):
        torch.manual_seed(2)
        own.eval().found = own(batch.x, batch.observed).loss.detach()
    assert torch.equal(kept.found, again.found)
    assert all(x.isfinite().all() for x in kept.impute(batch.x, batch.observed).values())


def test_a_plan_changes_nothing():
    model, losses = gated(encoders=[MLPEncoder((3,), D, (6,)) for _ in SPECS]), []
    for plan in ("plain", "grouped"):
        torch.manual_seed(1)
        with Plan.parse(plan).applied(model):
            losses.append(model(samples()).loss)
    torch.testing.assert_close(losses[0], losses[1])


def test_any_encoder_shows_its_features_or_is_named():
    x = samples()
    own = gated(encoders=[Own(shows=True), Own(shows=True, normalises=True), MLPEncoder((3,), D, ())])
    assert [f.shape[1] for f in own.encode(x).features] == [6, 6, 3]
    statistics = own.encoders[1].body[1]
    before = statistics.running_mean.clone()
    assert own(x, OBSERVED).loss.isfinite().all(), "absent rows are no part of the statistics, nor of the features"
    seen = own.encoders[1].body[0](x[1][OBSERVED[1]]).mean(0)
    torch.testing.assert_close(statistics.running_mean, 0.9 * before + 0.1 * seen)
    assert not own.encoders[2].mean._forward_pre_hooks
    plain = MultimodalVAE(SPECS, [Own(shows=True) for _ in SPECS], own.decoders, MMVM())
    assert plain(x).loss.isfinite().all(), "to an objective that needs none they are no third number"
    with pytest.raises(UserError, match="Own does not show its features: name the layer .* or let the gate read"):
        gated(encoders=[Own(shows=False) for _ in SPECS])
    random = torch.get_rng_state()
    assert WithFeatures(own.encoders[0]).training and torch.equal(random, torch.get_rng_state())


def test_mistakes_are_named():
    model = gated()
    with pytest.raises(UserError, match="gets them from the encoders of a MultimodalVAE"):
        model.objective(DiagonalGaussian(torch.zeros(3, N, D), torch.zeros(3, N, D)), OBSERVED)
    with pytest.raises(UserError, match="made for encoders of other features: give each model a gate of its own"):
        MultimodalVAE(SPECS, [MLPEncoder((3,), D, (4,)) for _ in SPECS], model.decoders, model.objective)
    with pytest.raises(UserError, match="unknown input of the gate 'pixels'"):
        Gated(D, reads="pixels")


class Hiding(nn.Module):
    """Features are all of x, the posterior's mean is its first number and its variance one: of the last number, which
    says whether the first is noise, the posterior has nothing."""

    def __init__(self):
        super().__init__()
        self.mean, self.logvar = nn.Linear(3, 1, bias=False), nn.Linear(3, 1)
        for head, first in ((self.mean, 1.0), (self.logvar, 0.0)):
            head.weight.data = torch.tensor([[first, 0.0, 0.0]])
        self.logvar.bias.data.zero_()

    def forward(self, x):
        return self.mean(x), self.logvar(x)


def toy(n):
    """Three views of one number, of which one is another number; the third entry of each says which (4) or not (0)."""
    generator = torch.Generator().manual_seed(n)
    z = torch.randn(n, generator=generator)
    lies = torch.randint(3, (n,), generator=generator)
    x = []
    for m in range(3):
        first = torch.where(lies == m, torch.randn(n, generator=generator), z)
        x.append(torch.stack([first, torch.randn(n, generator=generator), 4.0 * (lies == m)], 1))
    return x, lies


@pytest.mark.parametrize("mode", Gated.MODES)
def test_it_learns_from_features_what_the_posteriors_do_not_show(mode):
    weight = {}
    for reads in Gated.READS:
        torch.manual_seed(0)
        gate = Gated(1, mode, reads=reads)
        networks = [[kind() for _ in SPECS] for kind in (Hiding, lambda: MLPDecoder((3,), 1))]
        model = MultimodalVAE(SPECS, *networks, MMVM(weights=gate))
        optimizer, (x, _) = torch.optim.Adam(gate.parameters(), 1e-2), toy(256)
        for _ in range(60):
            optimizer.zero_grad()
            model.objective(model.encode(x), torch.ones(3, 256, dtype=torch.bool)).regulariser.mean().backward()
            optimizer.step()
        x, lies = toy(300)
        w = gate.eval().log_probabilities(model.encode(x), torch.ones(3, 300, dtype=torch.bool)).exp()
        weight[reads] = w.gather(0, lies[None]).mean().item()  # of the one that lies
    assert weight["features"] < 0.05 and weight["posteriors"] > weight["features"] + 0.1, weight
