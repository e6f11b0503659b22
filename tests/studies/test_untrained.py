"""tools/untrained.py: the probe of encoders before their first update."""

from dataclasses import replace

import pytest

from mmvm import evaluation
from mmvm.study import results
from studies.polymnist.study import PolyMNIST
from tools import untrained

P = PolyMNIST(n_modalities=2, n_train=200, n_test=100, n_probe=100, latent_dim=4, network="conv:channels=4",
              device="cpu")


def test_the_floor_is_the_probe_of_the_model_that_a_run_begins_with(tmp_path):
    train, test = P.data("train"), P.data("test")
    rows = untrained.floor(P, train, test, "latent_dim=4")
    expected = evaluation.linear_probe(P.build_model(train), train, test, n=100, seed=P.data_seed)
    assert [row["target"] for row in rows] == ["m0", "m1", "mean", "m0", "m1"]
    assert [row["value"] for row in rows[:3]] == pytest.approx([*expected, expected.mean()])
    on_the_way = evaluation.linear_probe(P.build_model(train), train, test, n=None)
    assert [row["value"] for row in rows[3:]] == pytest.approx(on_the_way)
    assert {(row["metric"], row["source"]) for row in rows[3:]} == {("probe_curve", "0")}
    assert {(row["method"], row["updates"], row["note"]) for row in rows} == {("untrained", 0, "latent_dim=4")}
    other = untrained.floor(replace(P, seed=1), train, test, "latent_dim=4")
    table = results.append([*rows, *other], tmp_path / "rows.csv")
    assert len(table) == 10 and table["run"].nunique() == 2 and P.run_hash() not in set(table["run"])
    assert [row["value"] for row in rows] != [row["value"] for row in other], "other weights"
