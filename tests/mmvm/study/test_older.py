"""Parameters by their earlier names: profiles, checkpoints and committed rows say the same as before."""

import csv
import hashlib
import json
from pathlib import Path

import pytest

from mmvm.paths import REPOSITORY, results_root
from mmvm.study import older
from mmvm.study.registry import STUDIES

BEFORE = json.loads((Path(__file__).parent / "rows_of_2522493.json").read_text())


@pytest.mark.parametrize("name", BEFORE)
def test_no_value_seed_date_or_count_of_the_committed_rows_changed(name):
    """Of all rows made before methods became texts, every column but `method` and `run` is what it was; there was no
    column `data` then. Those of the X-rays were replaced since, by rows of other phantoms."""
    with open(results_root() / name, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["commit"] in BEFORE[name]["commits"]]
    lines = sorted("\t".join(value for column, value in row.items() if column not in ("method", "run", "data"))
                   for row in rows)
    assert len(lines) == BEFORE[name]["rows"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == BEFORE[name]["sha256"]


@pytest.mark.parametrize("study, before, now", [
    ("polymnist", {"objective": "mmvm", "gate": "soft", "load_balance": 0.5},
     {"objective": "mmvm:gate=soft,load_balance=0.5"}),
    ("polymnist", {"bound": "monte_carlo", "standard_normal_weight": 0.1},
     {"objective": "mmvm:bound=monte_carlo,alpha=0.1"}),
    ("polymnist", {"objective": "mvtcae", "mvtcae_alpha": 0.5, "standard_normal_weight": 0.0, "bound": "pairwise"},
     {"objective": "mvtcae:alpha=0.5"}),
    ("polymnist", {"objective": "mvtcae", "mvtcae_alpha": -1.0}, {"objective": "mvtcae"}),
    ("polymnist", {"objective": "mmvaeplus", "private_dim": 16}, {"objective": "mmvaeplus"}),
    ("polymnist", {"objective": "mmvaeplus", "private_dim": 4}, {"objective": "mmvaeplus:private_dim=4"}),
    ("polymnist", {"network": "resnet", "channels": 64, "compile": True, "plan": "plain"},
     {"network": "resnet:channels=64", "plan": "compile"}),
    ("polymnist", {"compile": True, "plan": "channels_last"}, {"plan": "compile+channels_last"}),
    ("polymnist", {"compile": False, "plan": "plain", "beta": 0.5}, {"plan": "plain", "beta": 0.5}),
    ("polymnist", {"objective": "mmvm:gate=soft"}, {"objective": "mmvm:gate=soft"}),
    ("hippocampus", {"width": 0, "bottleneck": True, "start": 225, "max_grad_norm": 100.0},
     {"network": "dense:width=0,bottleneck=true", "windows": "bins:start=225", "optimizer": "adam:max_grad_norm=100"}),
    ("cub", {"image_channels": 64, "embedding_dim": 64}, {"network": "conv:image_channels=64"}),
    ("mimic-cxr", {"channels": 8, "dropout": 0.5, "trees": 5000}, {"network": "residual:dropout=0.5",
                                                                 "probes": "forest:trees=5000"}),
])
def test_earlier_names_mean_the_same(study, before, now):
    found = older.present(STUDIES[study], before)
    assert found == now and STUDIES[study].from_dict(found)


@pytest.mark.parametrize("study", STUDIES)
def test_no_parameter_has_two_names(study):
    names = {f.name for f in STUDIES[study].ordered()}
    assert not names & set(STUDIES[study].older)
    assert {parameter for parameter, _ in STUDIES[study].older.values()} <= names


def test_profiles_and_lists_are_written_with_todays_names():
    import yaml

    for path in sorted((REPOSITORY / "book" / "params").glob("*.yaml")):
        study = next((name for name in STUDIES if path.stem.startswith(f"{name}-")), None)
        if study:
            values = yaml.safe_load(path.read_text())
            assert older.present(STUDIES[study], values) == values, path.name
