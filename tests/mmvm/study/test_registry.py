"""Studies are found: the project's own, a lab's that is a package beside it, and registrations that cannot be used."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.paths import REPOSITORY
from mmvm.study import registry, results
from mmvm.study.registry import STUDIES

STUDY = '''"""Noise: two modalities of a lab that share one number."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from mmvm import Modality, MultimodalData, Normal, evaluation
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.study import Metrics, Study, parameter


@dataclass(frozen=True)
class Noise(Study):
    """Parameters of a study that the book knows nothing of."""

    name: ClassVar[str] = "lab-noise"
    n_modalities: ClassVar[int] = 2

    n_train: int = parameter(64, "training samples", at_least=2)
    loudness: float = parameter(0.1, "standard deviation of the noise", positive=True)

    def data(self, split):
        generator = torch.Generator().manual_seed(self.data_seed + (split == "test"))
        shared = torch.randn(self.n_train, 1, generator=generator)
        x = {name: shared + self.loudness * torch.randn(self.n_train, 3, generator=generator) for name in "ab"}
        return MultimodalData(x, tuple(Modality(name, (3,), Normal(0.5)) for name in x), (shared[:, 0] > 0).long())

    def build_networks(self, data):
        return ([MLPEncoder((3,), self.latent_dim, (8,)) for _ in data.specs],
                [MLPDecoder((3,), self.latent_dim, (8,)) for _ in data.specs])

    def classifiers(self, train, test):
        return [], np.ones(2)

    def evaluate(self, model, train, test, classifiers):
        return Metrics({"probe": evaluation.linear_probe(model, train, test),
                        "reconstruction": evaluation.reconstruction_error(model, test)})
'''
PROJECT = '''[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "lab-noise"
version = "1"
[project.entry-points."mmvm.studies"]
lab-noise = "lab_noise.study:Noise"
[tool.setuptools.packages.find]
include = ["lab_noise*"]
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A package with one study, installed beside the project; returns a function that runs `python -m mmvm`."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "lab_noise").mkdir()
    (folder / "lab_noise" / "__init__.py").touch()
    (folder / "lab_noise" / "study.py").write_text(STUDY)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "loud.yaml").write_text("profile: loud\nloudness: 0.5\nlatent_dim: 4\nepochs: 2\nn_train: 96\n")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
                    "--no-index", "--disable-pip-version-check", "--target", folder / "site", folder], check=True)
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "MMVM_RUNS": str(folder / "runs")}

    def call(*words, status=0):
        found = subprocess.run([sys.executable, "-m", "mmvm", *map(str, words)], cwd=REPOSITORY, env=environment,
                               capture_output=True, text=True)
        assert found.returncode == status, found.stderr
        return found
    call.folder = folder
    return call


@pytest.mark.slow
def test_a_labs_study_works_like_our_own(lab, monkeypatch, capsys):
    before = subprocess.run(["git", "status", "--porcelain"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    monkeypatch.syspath_prepend(lab.folder / "site")
    assert main(["studies"]) == 0
    listed = capsys.readouterr().out
    assert "lab-noise      Noise: two modalities of a lab that share one number. [lab_noise.study]\n" in listed
    assert all(f"\n{name} " in f"\n{listed}" for name in STUDIES)
    run = lab.folder / "run"
    lab("train", "lab-noise", "--profile", lab.folder / "loud.yaml", "--set", "seed=3", "--set",
        "objective=mmvm:gate=soft", "--out", run)
    rows = results.read(run / "results.csv")
    assert set(rows["experiment"]) == {"lab-noise"} and set(rows["method"]) == {"mmvm:gate=soft"}
    assert set(rows["profile"]) == {"loud"} and set(rows["seed"]) == {3} and set(rows["n_train"]) == {96}
    assert {"probe", "reconstruction", "gate_weight"} <= set(rows["metric"])
    assert main(["results", str(run / "results.csv"), "--metric", "probe"]) == 0
    assert "loud" in capsys.readouterr().out
    after = subprocess.run(["git", "status", "--porcelain"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert after == before


@pytest.mark.slow
def test_a_labs_study_goes_through_the_queue_and_the_grid(lab):
    path = lab.folder / "list.yaml"
    path.write_text(f"study: lab-noise\nprofile: {lab.folder / 'loud.yaml'}\nresults: {lab.folder / 'rows.csv'}\n"
                    "runs: [{betas: [0.5, 1], seeds: [0]}]\n")
    assert "all 2 runs are done" in lab("queue", path, "--workers", 2).stdout
    assert results.read(lab.folder / "rows.csv").groupby("beta")["run"].nunique().to_dict() == {0.5: 1, 1.0: 1}
    plan = subprocess.run([sys.executable, "-m", "snakemake", "--cores", "1", "-n", "--config", f"list={path}"],
                          cwd=REPOSITORY, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(lab.folder / "site"),
                               "MMVM_RUNS": str(lab.folder / "runs")})
    assert plan.returncode == 0 and "collect" in plan.stdout + plan.stderr, plan.stderr


@pytest.mark.parametrize("words, told", [
    (["data"], "lab-noise says nothing of its files"), (["train", "--set", "loudness=0"], "loudness must be positive"),
    (["train", "--profile", "huge"], "there is no profile"), (["train", "--set", "x=1"], "Noise has: profile, "),
])
def test_mistakes_with_a_labs_study_are_one_line(words, told, lab, monkeypatch, capsys):
    monkeypatch.syspath_prepend(lab.folder / "site")
    assert main([words[0], "lab-noise", *words[1:]]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("mmvm: ") and told in err and err.count("\n") == 1


# registrations that cannot be used -----------------------------------------------------------------------------------

class Package:
    def __init__(self, name):
        self.name = name


def point(name, value, package="lab"):
    found = EntryPoint(name, value, registry.GROUP)
    return found._for(Package(package))


@pytest.fixture
def registered(monkeypatch):
    """Adds registrations to those of the installed packages."""
    real = registry.entry_points

    def add(*points):
        monkeypatch.setattr(registry, "entry_points", lambda group: [*real(group=group), *points])
    return add


@pytest.mark.parametrize("name, value, words", [
    ("x", "lab_that_is_not_there.study:X", "study 'x' of the package lab cannot be loaded from "
     "'lab_that_is_not_there.study:X' (ModuleNotFoundError: No module named 'lab_that_is_not_there'): repair"),
    ("x", "mmvm.study:Nothing", "cannot be loaded from 'mmvm.study:Nothing' (AttributeError: "),
    ("x", "mmvm.study:run", "study 'x' of the package lab: 'mmvm.study:run' is no subclass of mmvm.study.Study"),
    ("x", "studies.polymnist.study:PolyMNIST", "its class has the name 'polymnist': give both one name"),
    ("polymnist", "lab.study:Other", "study 'polymnist' is registered twice, by mmvm (studies.polymnist.study:"
     "PolyMNIST) and lab (lab.study:Other): uninstall one of them"),
])
def test_a_registration_that_cannot_be_used_is_one_line(name, value, words, registered, capsys):
    registered(point(name, value))
    with pytest.raises(UserError) as told:
        STUDIES[name]
    assert words in str(told.value) and "\n" not in str(told.value)
    kinds, problems = registry.usable()
    assert problems == [str(told.value)] and {"cub", "hippocampus", "mimic-cxr"} <= set(kinds)
    assert main(["studies"]) == 2
    out, err = capsys.readouterr()
    assert words in err and "hippocampus" in out
    assert main(["train", "cub", "--dry-run"]) == 0, "the others keep working"


def test_an_import_that_fails_in_its_own_way_is_one_line(registered, tmp_path, monkeypatch):
    (tmp_path / "lab_broken.py").write_text("raise RuntimeError('no licence\\nfound')\n")
    monkeypatch.syspath_prepend(tmp_path)
    registered(point("x", "lab_broken:X"))
    with pytest.raises(UserError, match=r"of the package lab cannot be loaded .*\(RuntimeError: no licence\): repair"):
        STUDIES["x"]


def test_one_package_seen_twice_counts_once(registered):
    registered(*registry.entry_points(group=registry.GROUP))
    assert STUDIES["polymnist"].name == "polymnist" and len(STUDIES) == 4 and "x" not in STUDIES


def test_an_unknown_study_is_told_with_those_there_are():
    with pytest.raises(UserError, match="^there is no study 'mnist'; there are: cub, hippocampus, mimic-cxr, poly"):
        STUDIES["mnist"]
