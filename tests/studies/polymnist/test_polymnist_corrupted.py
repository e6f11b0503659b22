"""One picture of each tuple lies: which, how, and to whom it is told; and what is known of the pictures' making."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.paths import REPOSITORY
from mmvm.study import results
from studies.polymnist.corrupted import clean, corrupt, corrupted_modality
from studies.polymnist.data import factors, load
from studies.polymnist.mnist import SIDE, read_mnist
from studies.polymnist.pictures import THRESHOLD, read_photos, resize
from studies.polymnist.study import PolyMNIST, first_experts

SHIPPED = REPOSITORY / "data" / "polymnist"
TINY = dict(n_modalities=3, n_train=300, n_test=60, network="conv:channels=2", latent_dim=4, device="cpu")
KINDS = ("noise", "swap", "blank")


@pytest.fixture(scope="module")
def honest():
    return PolyMNIST(**TINY).data("train")


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_one_picture_of_each_tuple_lies(honest, kind):
    for p in (PolyMNIST(**TINY, corrupted=kind), PolyMNIST(**TINY, corrupted=kind, seed=7, objective="poe")):
        found = p.data("train")
        which = corrupted_modality(honest, p.data_seed)
        for m, name in enumerate(honest.names):
            changed = (found.modalities[name] != honest.modalities[name]).flatten(1).any(1).numpy()
            assert (changed == (which == m)).all()
            lies = found.modalities[name][which == m]
            if kind == "blank":
                assert (lies == 0).all()
            elif kind == "noise":
                assert lies.float().mean().item() == pytest.approx(127.5, abs=0.5)
                assert lies.float().std().item() == pytest.approx(np.sqrt((256**2 - 1) / 12), abs=0.5)
                assert len({bytes(x.numpy().tobytes()) for x in lies}) == len(lies)
            else:
                there = {x.numpy().tobytes() for x in honest.modalities[name]}
                assert all(x.numpy().tobytes() in there for x in lies)
        assert found.observed.all() and found.ids == honest.ids and torch.equal(found.labels, honest.labels)


def test_each_modality_lies_as_often_and_a_subset_has_the_same(honest):
    data = load("train", SHIPPED, n_modalities=3, translated=False, n=3_000)
    which = corrupted_modality(data, 0)
    assert np.bincount(which, minlength=3) == pytest.approx([1_000] * 3, abs=5 * np.sqrt(3_000 * 2 / 9))
    assert (which[:300] == corrupted_modality(honest, 0)).all(), "the first of 3,000 are the 300"
    assert (corrupted_modality(data, 1) != which).mean() == pytest.approx(2 / 3, abs=0.05)
    assert not np.array_equal(corrupted_modality(data, 0)[:60], corrupted_modality(PolyMNIST(**TINY).data("test"), 0))
    few, many = (corrupt(x, "noise", 0).modalities["m0"] for x in (honest, data))
    assert torch.equal(few, many[:300])


def test_what_lies_is_told_to_the_training_alone(honest):
    p = PolyMNIST(**TINY, corrupted="blank:known=true")
    which = torch.from_numpy(corrupted_modality(honest, 0))
    train, test = p.data("train"), p.data("test")
    assert torch.equal(train.observed, which != torch.arange(3)[:, None]) and test.observed.all()
    assert torch.equal(clean(train, 0).observed, train.observed) and (clean(test, 0).observed.sum(0) == 2).all()
    some = replace(p, missing=0.6).data("train")
    assert some.observed.any(0).all(), "a tuple of which only what lies is there keeps it"


def test_the_objective_is_told_what_lies_in_every_split(honest):
    p = PolyMNIST(**TINY, corrupted="swap:trust=true", objective="mmvm:weights=given")
    train, test = p.data("train"), p.data("test")
    which = torch.from_numpy(corrupted_modality(honest, 0))
    assert torch.equal(train.trust, (which != torch.arange(3)[:, None]).float()) and train.observed.all()
    assert (test.trust.sum(0) == 2).all() and honest.trust is None
    some = replace(p, missing=0.6).data("train")
    alone = (some.observed.sum(0) == 1) & (some.observed & (which == torch.arange(3)[:, None])).any(0)
    assert alone.any() and (some.trust.sum(0)[alone] == 1).all(), "alone, what lies is all there is"
    untold = replace(p, corrupted="swap")
    with pytest.raises(UserError, match="weights=given has to be told which picture lies: set corrupted to noise"):
        untold.fit(untold.build_model(honest), untold.data("train"))
    assert len({own.run_hash() for own in (p, untold, replace(p, corrupted="swap:known=true"))}) == 3


def test_an_honest_run_keeps_its_name_and_its_cell():
    p = PolyMNIST(**TINY)
    assert "corrupted" not in p.identity() and "corrupted" not in PolyMNIST.cell()
    assert p.run_hash() != replace(p, corrupted="swap").run_hash() != replace(p, corrupted="swap:known=true").run_hash()
    assert PolyMNIST.from_notebook({"corrupted": "noise"}).with_settings(["corrupted=blank"]).corrupted == "blank"
    assert replace(p, corrupted="swap").few().data("train").modalities["m0"].shape == (1, 3, SIDE, SIDE)


@pytest.mark.parametrize("values, message", [
    ({"corrupted": "blur"}, "unknown corrupted 'blur': there are none, noise, swap, blank"),
    ({"corrupted": "none:known=true"}, "corrupted 'none' has no option 'known'"),
    ({"corrupted": "noise", "n_modalities": 1}, "of one modality none is left to trust: set n_modalities to 2"),
    ({"corrupted": "noise:known=true,trust=true"}, "what is known to lie counts as missing and needs no trust"),
    ({"information": True, "n_test": 20}, "information takes 24 test tuples at latent_dim=4, n_test is 20: raise it"),
    ({"information": True, "corrupted": "noise"}, "information takes 72 test tuples at latent_dim=4, n_test is 60"),
    ({"corrupted": "swap", "n_train": 1}, "a swap needs another tuple")])
def test_mistakes_are_named(values, message):
    with pytest.raises(UserError, match=message):
        PolyMNIST(**{**TINY, **values}).data("train")


def test_a_run_measures_the_others_apart():
    p = PolyMNIST(**TINY, corrupted="noise", epochs=1, classifier_epochs=1)
    train, test = p.data("train"), p.data("test")
    classifiers, accuracy = p.classifiers(train, test)
    model = p.build_model(train)
    found = p.evaluate(model, train, test, classifiers)
    assert found["probe_clean"].shape == (3,) and found["coherence_clean"].shape == (3, 3)
    honest = replace(p, corrupted="none")
    assert (accuracy == honest.classifiers(honest.data("train"), honest.data("test"))[1]).all()
    there = honest.evaluate(model, clean(train, 0), clean(test, 0), classifiers)
    assert np.array_equal(found["probe_clean"], there["probe"])


@pytest.mark.parametrize("ahead, share", [(0, 1.0), (1, 0.0)])
def test_a_gate_is_asked_how_often_it_follows_the_liar(ahead, share, monkeypatch):
    p = PolyMNIST(**TINY, corrupted="noise", objective="mmvm:gate=soft")
    test = p.data("test")
    model, lies = p.build_model(p.data("train")), torch.from_numpy(corrupted_modality(test, 0))
    found = first_experts(model, test)
    assert found.shape == lies.shape and set(found.tolist()) <= {0, 1, 2}
    chosen = nn.functional.one_hot((lies + ahead) % 3, 3).T.float()
    monkeypatch.setattr(model.objective, "log_weights", lambda q, observed: chosen.log())
    assert float((first_experts(model, test) == lies).double().mean()) == share


def test_only_gates_that_met_liars_are_asked():
    for values, asked in (({"objective": "mmvm:gate=soft"}, False), ({"corrupted": "swap"}, False),
                          ({"objective": "mmvm:gate=soft", "corrupted": "swap"}, True)):
        p = PolyMNIST(**TINY, **values, epochs=1, classifier_epochs=1)
        train, test = p.data("train"), p.data("test")
        found = p.evaluate(p.build_model(train), train, test, p.classifiers(train, test)[0])
        assert ("gate_first_lies" in found) == asked
        assert not asked or 0 <= found["gate_first_lies"] <= 1


def test_the_command_line_trains_with_an_oracle_and_measures_what_is_kept(tmp_path, runs, capsys):
    p = PolyMNIST(**{**TINY, "n_test": 100}, corrupted="noise:trust=true", objective="mmvm:weights=given", epochs=1,
                  classifier_epochs=1, n_probe=200, information=True, out=str(tmp_path))
    words = [f"{name}={getattr(p, name)}" for name in (
        *TINY, "corrupted", "objective", "epochs", "classifier_epochs", "n_probe", "information")]
    words = [word for own in words for word in ("--set", own)]
    assert main(["train", "polymnist", *words, "--out", str(tmp_path)]) == 0
    table = results.read(tmp_path / "results.csv")
    assert set(table["run"]) == {p.run_hash()} and set(table["method"]) == {"mmvm:weights=given"}
    found = {metric: part.set_index(["source", "target"])["value"] for metric, part in table.groupby("metric")}
    factors = {"digit", "ink", "slant", "crop_y", "crop_x"}  # full-size digits have no place of their own
    assert {name for name in found if name.startswith("factor_")} == {
        f"factor_{name}_{probe}" for name in factors for probe in ("linear", "nonlinear")}
    assert {"information", "information_upper", "aggregate_kl", "information_shared",
            "information_private"} < set(found)
    assert "total_correlation" not in found, "of the honest pictures no tuple has all"
    assert list(found["information"].index) == [("", "m0"), ("", "m1"), ("", "m2"), ("", "mean")]
    assert len(found["information_shared"]) == 7 and ("", "cross") in found["information_shared"].index
    assert table.set_index("metric").loc["information", "note"].str.startswith("ceiling=").all()


# what the pictures were made of

@pytest.mark.parametrize("translated", [True, False])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_factors_reproduce_the_pictures(split, translated):
    options = dict(n_modalities=3, translated=translated, n=40, seed=2)
    data, found = load(split, SHIPPED, **options), factors(split, SHIPPED, **options)
    digits, labels = read_mnist(SHIPPED, "test" if split == "test" else "train", False)
    if split == "validation":
        digits, labels = digits[-5_000:], labels[-5_000:]
    assert found["digit"].tolist() == data.labels.tolist()
    for m, photo in enumerate(read_photos(SHIPPED / "backgrounds", 3)):
        own = {name: x[m] for name, x in found.items() if name != "digit"}
        assert labels[own["instance"]].tolist() == data.labels.tolist()
        for i, picture in enumerate(data.modalities[f"m{m}"].numpy()):
            y, x = own["crop_y"][i], own["crop_x"][i]
            expected = photo[y:y + SIDE, x:x + SIDE].transpose(2, 0, 1).copy()
            digit = digits[own["instance"][i]]
            small = resize(digit[None], 21)[0] if translated else digit > THRESHOLD
            y, x = (own["y"][i], own["x"][i]) if translated else (0, 0)
            expected[:, y:y + len(small), x:x + len(small)][:, small] ^= 255
            assert np.array_equal(picture, expected)
            rows, columns = np.nonzero(digit > THRESHOLD)
            assert own["ink"][i] == len(rows)
            assert own["slant"][i] == pytest.approx(-np.cov(rows, columns)[0, 1] / np.var(rows, ddof=1), abs=1e-9)


def test_a_study_knows_the_factors_of_its_data():
    p = PolyMNIST(**TINY, corrupted="swap", validation=True)
    found = p.factors("test")
    assert found["digit"].tolist() == p.data("test").labels.tolist() and found["ink"].shape == (3, 60)
    assert set(found) == {"digit", "instance", "crop_y", "crop_x", "ink", "slant"}, "full-size digits do not move"
    assert len(p.factors("train")["digit"]) == 300


def test_finished_pictures_do_not_say(tmp_path):
    (tmp_path / "train" / "m0").mkdir(parents=True)
    with pytest.raises(UserError, match="finished PolyMNIST pictures, which do not say what they were made of"):
        factors("train", tmp_path)
