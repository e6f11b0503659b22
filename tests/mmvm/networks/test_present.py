"""`run_on_present`: absent rows are no part of statistics over a batch, and nothing else changes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from mmvm.data import Modality, MultimodalData
from mmvm.likelihoods import Normal
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder, run_on_present
from mmvm.objectives import MMVM
from mmvm.training import fit
from mmvm.training.update import Update

X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) + 2
PRESENT = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0], dtype=torch.bool)


class Encoder(nn.Module):
    """A tuple comes out, as of an encoder."""

    def __init__(self, shape=(3,)):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(*shape), MLPEncoder(shape, 2, (4,))

    def forward(self, x):
        return self.head(self.norm(x))


def test_the_present_rows_are_as_they_are_alone():
    network = Encoder()
    alone = copy.deepcopy(network)
    out, expected = run_on_present(network, torch.where(PRESENT[:, None], X, 0), PRESENT), alone(X[PRESENT])
    for part, rows in zip(out, expected):
        assert torch.equal(part[PRESENT], rows) and (part[~PRESENT] == 0).all()
    assert torch.equal(network.norm.running_mean, alone.norm.running_mean)
    assert torch.equal(network.norm.running_var, alone.norm.running_var)


@pytest.mark.parametrize("n_present", [0, 1])
def test_too_few_rows_for_statistics_leave_them_alone(n_present):
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = copy.deepcopy(network.state_dict())
    out = run_on_present(network, X, torch.arange(8) < n_present)
    assert torch.equal(out, copy.deepcopy(network).eval()(X)) and network[0].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("make, train", [(lambda: nn.Linear(3, 2), True),
                                         (lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), False)])
def test_networks_without_statistics_and_in_evaluation_get_every_row(make, train):
    network = make().train(train)
    assert torch.equal(run_on_present(network, X, PRESENT), network(X))


def test_everything_present_is_one_plain_call():
    network = Encoder()
    for present in (None, torch.ones(8, dtype=torch.bool)):
        assert all(map(torch.equal, run_on_present(network, X, present), network(X)))


def absent(n=200):
    """Two modalities; 90 % of the second, whose spread is 3, is absent."""
    generator = torch.Generator().manual_seed(1)
    x = {"a": torch.randn(n, 3, generator=generator), "b": 3 * torch.randn(n, 3, generator=generator)}
    observed = torch.ones(2, n, dtype=torch.bool)
    observed[1, n // 10:] = False
    return MultimodalData(x, [Modality(name, (3,), Normal()) for name in x], observed=observed)


def test_training_with_absent_rows_learns_the_statistics_of_those_that_are_there():
    torch.manual_seed(0)
    data = absent()
    decoders = [nn.Sequential(nn.BatchNorm1d(2), MLPDecoder((3,), 2, (4,))) for _ in data.specs]
    model = MultimodalVAE(data.specs, [Encoder(), Encoder()], decoders, MMVM())
    fit(model, data, epochs=20, batch_size=100, device="cpu", precision="float32")
    there = data.modalities["b"][:20]
    assert model.encoders[1].norm.running_var.numpy() == pytest.approx(there.var(0).numpy(), rel=0.2)
    batch = data.batch(torch.arange(0, 200, 5))
    model.train()
    seen = []
    for network in (model.encoders[1], model.decoders[1]):
        network.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    model(batch.x, batch.observed).loss.mean().backward()
    assert seen == [4, 4], "the networks got the four rows that are there"
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("hide, missing, normalise, recorded", [
    (True, None, True, False), (False, "nan", True, False), (False, None, True, True), (True, "nan", False, True)])
def test_updates_whose_shapes_change_are_not_recorded(hide, missing, normalise, recorded):
    data = absent()
    data.specs = tuple(replace(spec, missing=missing) for spec in data.specs)
    if not hide:
        data.observed[:] = True
    encoders = [Encoder() if normalise else MLPEncoder((3,), 2) for _ in data.specs]
    model = MultimodalVAE(data.specs, encoders, [MLPDecoder((3,), 2) for _ in data.specs], MMVM())
    update = Update(model, torch.optim.Adam(model.parameters()), data, "float32", torch.device("cuda"), None, False,
                    True, 1e-3)
    assert update.graph == recorded
