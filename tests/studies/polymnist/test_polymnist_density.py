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
