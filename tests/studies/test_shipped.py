"""Models that ship: each loads, its rows are of these very weights, its parameters are those of the command."""

import functools
import hashlib
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from mmvm import evaluation, paths, pretrained
from mmvm.pretrained import names, place
from mmvm.study import results
from mmvm.study.figures import METHOD_NAMES
from mmvm.study.registry import STUDIES
from studies.hippocampus import alignment
from studies.pages import learning_rates, translated
from tools import ship

SHIPPED = names()
ALL_TOGETHER = 30e6  # bytes
PROFILES = {"hippocampus": "long", "rats-four": "long", "translated": "grid"}  # the others: laptop
FOLDERS = {"polymnist", "translated", "cub", "hippocampus", "rats-four", "mimic-cxr"}
DIGITS, RATS = ("polymnist/", "translated/"), "rats-four/"  # no samples lie beside these: their data are at hand


def test_three_models_ship_for_every_study_with_weights():
    by_folder = {folder: {name.partition("/")[2] for name in SHIPPED if name.startswith(f"{folder}/")}
                 for folder in FOLDERS}
    assert sum(map(len, by_folder.values())) == len(SHIPPED)
    assert all(len(methods) == 3 and {"mmvm", "independent"} < methods for methods in by_folder.values())
    assert sum(path.stat().st_size for path in paths.models_root().rglob("*")) < ALL_TOGETHER


def command_of(name: str):
    """The options of the command in the first line of the model's yaml file."""
    first = place(name, ".yaml").read_text().splitlines()[0]
    options = ship.arguments().parse_args(shlex.split(first.removeprefix("# made by: python tools/ship.py ")))
    assert options.name == name
    return options


def study_of(name: str):
    return STUDIES[command_of(name).study or name.partition("/")[0]]


def asked_for(name: str):
    """The parameters that its command asks for."""
    return study_of(name).from_profile(command_of(name).profile).with_settings(command_of(name).set)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_is_what_its_yaml_and_its_command_say(name):
    model, p = pretrained(name), asked_for(name)
    assert study_of(name).from_profile(str(place(name, ".yaml"))) == p
    folder, _, method = name.partition("/")
    assert p.method() == method and model.beta == p.beta and p.profile == PROFILES.get(folder, "laptop")
    board = best(folder)
    assert p.beta == board.loc[method, "beta"]
    assert "rate" not in board or p.learning_rate == board.loc[method, "rate"]
    rivals = board.drop(index=["mmvm", "independent", "supervised"], errors="ignore")["by"]
    assert method in ("mmvm", "independent", rivals.idxmax()), f"the best rival is {rivals.idxmax()}"


@functools.cache
def best(folder: str):
    """Every method at the beta that validation rows choose; `by`: what chooses, measured on test rows, of translated
    digits on the validation rows as well."""
    if folder == "translated":
        rows = results.read("polymnist_grid")
        board = translated.board(rows[rows["method"].isin(METHOD_NAMES)]).reset_index()
        return board.drop_duplicates("method").set_index("method").assign(by=lambda board: board["probe"])
    if folder == "rats-four":
        board = learning_rates.rats_at_best(4, learning_rates.BOTH)
        return board.assign(by=board[list(learning_rates.BOTH)].sum(axis=1))
    if folder == "hippocampus":  # as its chapter does: the learning rate, too
        rows = learning_rates.rats()
        chosen = learning_rates.chosen(rows[rows["method"].isin(METHOD_NAMES)], "probe_shared")
        folds = learning_rates.at_chosen(rows, chosen, "probe_shared")
        return chosen.set_index("method").assign(by=folds.mean(axis=1))
    by = {"cub": "coherence"}.get(folder, "probe")  # as its chapter does
    rows = results.read(folder)
    rows = rows[(rows["profile"] == "laptop") & rows["method"].isin(METHOD_NAMES) & ~rows["method"].str.contains(":")]
    board = results.at_best_beta(rows, [by], by, results.validated(folder)).set_index("method")
    return board.assign(by=board[by])


@pytest.mark.parametrize("name", SHIPPED)
def test_its_rows_are_of_these_weights(name):
    rows, p = results.read(place(name, ".csv")), asked_for(name)
    digest = hashlib.sha256(Path(place(name)).read_bytes()).hexdigest()[:16]
    assert rows["note"].str.contains(f"weights kept in bfloat16, sha256 {digest}").all()
    assert set(rows["beta"]) == {p.beta} and set(rows["seed"]) == {p.seed} and set(rows["method"]) == {p.method()}
    assert {"probe", "reconstruction"} <= set(rows["metric"])


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith((*DIGITS, RATS))])
def test_errors_of_the_samples_beside_a_model_are_measured_again(name):
    rows = results.read(place(name, ".csv"))
    wanted = rows[rows["metric"].isin(ship.SAMPLES)].set_index(["metric", "target"])["value"]
    found = ship.of_samples(pretrained(name), place(name.partition("/")[0] + "/mmvm", ".npz"))
    assert len(found) >= 3 and set(found) == set(wanted.index)
    assert found == pytest.approx(dict(wanted), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith(DIGITS)])
def test_errors_of_the_digits_are_measured_again(name):
    rows = results.read(place(name, ".csv"))
    wanted = rows[rows["metric"] == "reconstruction"].set_index("target")["value"]
    found = evaluation.reconstruction_error(pretrained(name), asked_for(name).data("test"))
    assert wanted["sum"] == pytest.approx(found.sum(), rel=1e-3)
    assert [wanted[f"m{m}"] for m in range(3)] == pytest.approx(found.tolist(), rel=1e-3)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith(RATS)])
def test_errors_and_probes_of_rats_with_four_numbers_are_measured_again(name):
    model, p = pretrained(name), asked_for(name)
    train, test = p.data("train"), p.data("test")
    wanted = results.read(place(name, ".csv")).set_index(["metric", "target"])["value"]
    probes = alignment.probes(model, train, test)
    assert wanted["reconstruction", "sum"] == pytest.approx(
        evaluation.reconstruction_error(model, test).sum(), rel=1e-3)
    assert wanted["probe", "mean"] == pytest.approx(probes.transfer.diagonal().mean(), abs=2e-3)
    assert wanted["probe_shared", "mean"] == pytest.approx(probes.shared.mean(), abs=2e-3)


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
