"""tools/probe_bounds.py: the probe of encoders before their first update, and trained on the labels."""

from dataclasses import replace

import pytest

from mmvm import evaluation
from mmvm.study import results
from studies.polymnist.study import PolyMNIST
from tools import probe_bounds

P = PolyMNIST(n_modalities=2, n_train=200, n_test=100, n_probe=100, latent_dim=4, network="conv:channels=4",
              device="cpu")


def test_the_floor_is_the_probe_of_the_model_that_a_run_begins_with(tmp_path):
    train, test = P.data("train"), P.data("test")
    rows = probe_bounds.floor(P, train, test, "latent_dim=4")
    expected = evaluation.linear_probe(P.build_model(train), train, test, n=100, seed=P.data_seed)
    assert [row["target"] for row in rows] == ["m0", "m1", "mean", "m0", "m1"]
    assert [row["value"] for row in rows[:3]] == pytest.approx([*expected, expected.mean()])
    on_the_way = evaluation.linear_probe(P.build_model(train), train, test, n=None)
    assert [row["value"] for row in rows[3:]] == pytest.approx(on_the_way)
    assert {(row["metric"], row["source"]) for row in rows[3:]} == {("probe_curve", "0")}
    assert {(row["method"], row["updates"], row["note"]) for row in rows} == {("untrained", 0, "latent_dim=4")}
    other = probe_bounds.floor(replace(P, seed=1), train, test, "latent_dim=4")
    table = results.append([*rows, *other], tmp_path / "rows.csv")
    assert len(table) == 10 and table["run"].nunique() == 2 and P.run_hash() not in set(table["run"])
    assert [row["value"] for row in rows] != [row["value"] for row in other], "other weights"


def test_the_ceiling_is_the_probe_of_encoders_trained_on_the_labels(tmp_path):
    p = replace(P, epochs=4, batch_size=20, learning_rate=3e-3, n_train=600)
    train, test = p.data("train"), p.data("test")
    rows = probe_bounds.ceiling(p, train, test, "latent_dim=4")
    found = {(row["metric"], row["target"]): row["value"] for row in rows}
    targets = ("m0", "m1", "mean")
    assert set(found) == {(metric, name) for metric in ("probe", "classifier_accuracy") for name in targets}
    floor = probe_bounds.floor(p, train, test, "latent_dim=4")[2]
    assert floor["target"] == "mean" and found["probe", "mean"] > floor["value"] + 0.1
    assert found["classifier_accuracy", "mean"] == pytest.approx(
        (found["classifier_accuracy", "m0"] + found["classifier_accuracy", "m1"]) / 2)
    assert {(row["method"], row["updates"], row["epochs"]) for row in rows} == {("supervised", 120, 4)}
    assert results.append(rows, tmp_path / "rows.csv")["run"].nunique() == 1
