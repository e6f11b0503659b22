"""Models that ship: each loads, its rows are of these very weights, its parameters are those of the command."""

import hashlib
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from mmvm import MultimodalData, evaluation, paths, pretrained
from mmvm.pretrained import names, place
from mmvm.study import results
from mmvm.study.registry import STUDIES
from tools import ship

SHIPPED = names()
ALL_TOGETHER = 8e6  # bytes


def test_one_model_ships_for_every_study_with_weights():
    assert {name.partition("/")[0] for name in SHIPPED} == {"polymnist", "cub", "hippocampus", "mimic-cxr"}
    assert sum(path.stat().st_size for path in paths.models_root().rglob("*")) < ALL_TOGETHER


def asked_for(name: str):
    """The parameters that the command in the first line of the model's yaml file asks for."""
    first = place(name, ".yaml").read_text().splitlines()[0]
    options = ship.arguments().parse_args(shlex.split(first.removeprefix("# made by: python tools/ship.py ")))
    assert options.name == name
    return STUDIES[name.partition("/")[0]].from_profile(options.profile).with_settings(options.set)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_is_what_its_yaml_and_its_command_say(name):
    model, p = pretrained(name), asked_for(name)
    assert STUDIES[name.partition("/")[0]].from_profile(str(place(name, ".yaml"))) == p
    assert p.method() == "mmvm" and model.beta == p.beta and type(model.objective).__name__ == "MMVM"
    laptop = results.read(name.partition("/")[0])
    best = results.at_best_beta(laptop[laptop["profile"] == "laptop"], ["probe"]).set_index("method")
    assert p.profile == "laptop" and p.beta == best.loc["mmvm", "beta"]


@pytest.mark.parametrize("name", SHIPPED)
def test_its_rows_are_of_these_weights(name):
    rows, p = results.read(place(name, ".csv")), asked_for(name)
    digest = hashlib.sha256(Path(place(name)).read_bytes()).hexdigest()[:16]
    assert rows["note"].str.contains(f"weights kept in bfloat16, sha256 {digest}").all()
    assert set(rows["beta"]) == {p.beta} and set(rows["seed"]) == {p.seed} and set(rows["method"]) == {"mmvm"}
    assert {"probe", "reconstruction"} <= set(rows["metric"])


def test_a_number_of_the_rows_is_measured_again():
    """On all test windows of the simulated rats, which lie beside their model."""
    name = "hippocampus/mmvm"
    model, rows = pretrained(name), results.read(place(name, ".csv"))
    with np.load(place(name, ".npz")) as file:
        data = MultimodalData({spec.name: torch.from_numpy(file[spec.name]) for spec in model.modalities},
                              model.modalities)
    wanted = rows[(rows["metric"] == "reconstruction") & (rows["target"] == "sum")]["value"].item()
    assert evaluation.reconstruction_error(model, data).sum() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in SHIPPED if place(name).with_suffix(".npz").exists()])
def test_samples_beside_a_model_fit_it(name):
    model = pretrained(name)
    with np.load(place(name, ".npz")) as file:
        x = {spec.name: torch.from_numpy(file[spec.name][:4]) for spec in model.modalities}
        words = file["words"].tolist() if "words" in file else []
    assert all(bool(torch.isfinite(y).all()) for y in model.decode(model.encode(x).mean))
    for spec in model.modalities:
        if spec.likelihood.discrete:
            assert int(x[spec.name].max()) < len(words) == model.decoders[model.modalities.index(spec)](
                torch.zeros(1, model.encode(x).mean.shape[-1])).shape[1]
