"""What PolyMNIST measures of densities fitted to the latents of a trained model."""

import pytest
import torch

from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.study import results
from studies.polymnist.study import PolyMNIST

TINY = dict(n_modalities=3, n_train=300, n_test=60, network="conv:channels=2", latent_dim=4, device="cpu", epochs=1,
            classifier_epochs=1, n_probe=200)


READ = [f"{what}_{name}" for what in ("readable", "joint_spread") for name in ("ink", "slant", "crop_y", "crop_x")]


def test_the_command_line_measures_both_densities(tmp_path, runs):
    p = PolyMNIST(**TINY, density="both:components=2,updates=3,width=8", out=str(tmp_path))
    words = [word for name in (*TINY, "density") for word in ("--set", f"{name}={getattr(p, name)}")]
    assert main(["train", "polymnist", *words, "--out", str(tmp_path)]) == 0
    table = results.read(tmp_path / "results.csv")
    assert set(table["run"]) == {p.run_hash()}
    for kind in ("mixture", "diffusion"):
        own = table[table["metric"].str.startswith(f"{kind}_")]
        assert set(own["metric"]) == {f"{kind}_{name}" for name in (
            "joint_coherence", "joint_classes", "joint_distance", "joint_diversity", "joint_nearest",
            "conditional_coherence_1", "conditional_coherence_2", *READ)}
        assert (own["note"] == f"density={p.density}; trunk=conv").all()
        shares = own[own["metric"].str.contains("coherence")]["value"]
        assert shares.between(0, 1).all()
        assert set(own[own["metric"] == f"{kind}_joint_nearest"]["target"]) == {"m0", "m1", "m2", "mean"}


def test_a_joint_model_is_sampled_from_its_own_prior():
    p = PolyMNIST(**TINY, objective="moe", density="prior", n_likelihood=0)
    train, test = p.data("train"), p.data("test")
    metrics = p.evaluate(p.build_model(train), train, test, p.classifiers(train, test)[0])
    assert 0 <= metrics["prior_joint_coherence"] <= 1 and metrics["prior_joint_nearest"].shape == (3,)
    with pytest.raises(UserError, match="no prior to sample from"):
        PolyMNIST(**TINY, objective="mmvm:bound=variational", density="prior")
    state = torch.random.get_rng_state()
    with pytest.raises(UserError, match="autoencoder has no prior to sample from: use density=mixture, diffusion"):
        PolyMNIST(**TINY, objective="autoencoder", density="prior")
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("objective, has", [("autoencoder", False), ("poe", True), ("mmvaeplus:private_dim=2", True)])
def test_a_log_likelihood_is_measured_where_the_method_has_one(objective, has):
    p = PolyMNIST(**TINY, objective=objective, n_likelihood=2)
    train, test = p.data("train"), p.data("test")
    metrics = p.evaluate(p.build_model(train), train, test, p.classifiers(train, test)[0])
    assert ("log_likelihood" in metrics) == has


@pytest.mark.parametrize("fixed", [{"shift": 0.0}, {"scale": 1.0}])
def test_what_does_not_differ_is_no_factor(fixed):
    p = PolyMNIST(**{**TINY, "n_test": 80}, **fixed, translated=True, density="mixture:components=2", information=True)
    train, test = p.data("train"), p.data("test")
    metrics = p.evaluate(p.build_model(train), train, test, p.classifiers(train, test)[0])
    named = {name for name in metrics if name.startswith(("factor_", "mixture_readable_", "mixture_joint_spread_"))}
    assert {"factor_crop_y_linear", "mixture_readable_ink"} <= named
    assert not {name for name in named if name.endswith(("_x", "_y", "_x_linear", "_y_linear")) and "crop" not in name}


def test_the_model_stays_as_it_is_and_the_fit_is_the_seeds():
    p = PolyMNIST(**TINY, density="diffusion:updates=3,width=8")
    train = p.data("train")
    model = p.build_model(train)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = (p.densities(model, train)["diffusion"] for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    draws = [density.sample(5, torch.Generator().manual_seed(0)) for density in (first, again)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("change", [{"corrupted": "noise"}, {"n_modalities": 1}])
def test_what_could_not_be_measured_is_refused_first(change):
    with pytest.raises(UserError, match="two honest pictures or more"):
        PolyMNIST(**{**TINY, **change}, density="mixture")


@pytest.mark.parametrize("change, words", [
    ({"n_modalities": 0}, "n_modalities must be at least 1, got 0"),
    ({"n_modalities": -1, "corrupted": "noise"}, "n_modalities must be at least 1, got -1"),
    ({"n_probe": 1}, "the probe of m0 would be fitted to 1 pictures of 1 digits"),
    ({"information": True, "n_validation": 23}, "takes 24 validation tuples at latent_dim=4, n_validation is 23"),
    ({"density": "mixture", "n_test": 10}, "n_test is 10: raise it to 11 or more"),
    ({"density": "mixture", "n_validation": 10}, "n_validation is 10: raise it to 11 or more"),
    ({"n_probe": 2, "data_seed": 5}, "the probe of m0 would be fitted to 2 pictures of 1 digits, it needs two digits:"),
    ({"information": True, "n_probe": 9}, "the probe of m0 would be fitted to 9 pictures of . digits, it needs .* 10"),
    ({"density": "mixture", "n_train": 40, "missing": 0.95}, "0 training tuples have every picture")])
def test_too_few_tuples_are_refused_before_the_training(change, words, monkeypatch):
    monkeypatch.setattr("mmvm.training.fit", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(UserError, match=words):
        p = PolyMNIST(**{**TINY, **change})
        train = p.data("train")
        p.fit(p.build_model(train), train)


def test_where_the_inception_network_lies_is_no_part_of_a_runs_name():
    plain, here, there = (PolyMNIST(**TINY, inception=path) for path in ("", "a/weights.pth", "b/weights.pth"))
    assert here.run_hash() == there.run_hash() != plain.run_hash()
