"""The learning rate that falls, the beta that rises, and the validation tuples on which both are chosen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmvm import training
from mmvm.errors import UserError
from mmvm.objectives import Schedule
from studies.polymnist import data as polymnist
from studies.polymnist.networks import NormDecoder, NormEncoder
from studies.polymnist.study import PolyMNIST

TINY = PolyMNIST(n_train=64, n_test=32, n_modalities=2, latent_dim=4, network="norm:channels=2", batch_size=16,
                 epochs=3, optimizer="adam:decay=cosine,beta_updates=6")


def trained(p, train, **options):
    model = p.build_model(train)
    options = {"epochs": p.epochs, **options}
    history = training.fit(model, train, batch_size=p.batch_size, device="cpu", precision="float32",
                           learning_rate=Schedule(1e-2, 0.0, p.epochs * 4, "cosine"), **options)
    return model, history


def test_rate_and_beta_follow_their_schedules(monkeypatch):
    rates, betas = [], []
    train = TINY.data("train")
    model = TINY.build_model(train)
    assert model.beta == Schedule(0.0, 1.0, 6, "linear") and model.settled_at == 6
    step, loss = torch.optim.Adam.step, model.objective.loss
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *rest: (rates.append(self.param_groups[0]["lr"]),
                                                                       step(self, *rest))[1])
    monkeypatch.setattr(model.objective, "loss", lambda ll, shared, beta: (betas.append(beta),
                                                                           loss(ll, shared, beta))[1])
    TINY.fit(model, train)
    assert rates == pytest.approx([2e-3 * 0.5 * (1 + np.cos(np.pi * t / 12)) for t in range(12)])
    assert betas == pytest.approx([min(t / 6, 1.0) for t in range(12)])


def test_a_stopped_run_goes_on_along_its_schedule(tmp_path):
    train = TINY.data("train")
    whole, _ = trained(TINY, train)

    def stop(model, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return {}
    with pytest.raises(KeyboardInterrupt):
        trained(TINY, train, out=tmp_path, on_epoch=stop)
    resumed, history = trained(TINY, train, out=tmp_path)
    assert len(history.epochs) == 3
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_another_schedule_is_another_run(tmp_path):
    train = TINY.data("train")
    trained(TINY, train, out=tmp_path, epochs=1)
    longer = replace(TINY, epochs=5)
    with pytest.raises(UserError, match="learning_rate_schedule"):
        trained(longer, train, out=tmp_path)


def test_parameters_that_were_added_leave_earlier_hashes_alone():
    assert "validation" not in PolyMNIST().config() and "optimizer" in PolyMNIST().config()
    assert PolyMNIST(validation=True).run_hash() != PolyMNIST().run_hash()


def test_networks_mirror_each_other():
    mean, logvar = NormEncoder(5, 3)(torch.randn(2, 3, 28, 28))
    assert mean.shape == logvar.shape == (2, 5)
    assert NormDecoder(5, 3)(mean).shape == (2, 3, 28, 28)


@pytest.mark.slow
def test_validation_tuples_are_made_of_digits_that_training_lacks():
    p = replace(TINY, validation=True, n_train=55_000, n_test=5_000, n_modalities=1)
    train, held_out = p.data("train"), p.data("test")
    assert len(train) == 55_000 and len(held_out) == 5_000 and held_out.ids[0].startswith("validation/")
    everything = np.bincount(polymnist.load("train", n_modalities=1).labels)
    assert (np.bincount(train.labels) + np.bincount(held_out.labels) == everything).all()
    with pytest.raises(UserError, match="55000|55,000"):
        replace(p, n_train=55_001).data("train")
