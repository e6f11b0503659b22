"""Parameters: what is accepted, what is refused and how, and what becomes of them. Then whole runs, tiny ones."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mmvm import paths, study, training
from mmvm.errors import UserError
from mmvm.identity import fingerprint
from mmvm.likelihoods import Laplace
from mmvm.objectives import METHODS, Schedule
from mmvm.objectives.spec import build
from mmvm.paths import REPOSITORY
from mmvm.study import results
from mmvm.study.registry import STUDIES
from mmvm.study.study import Study, without_memory
from studies.pages.parameters import (
    Ablations,
    Beyond,
    Collapse,
    Cost,
    Diagnostics,
    Errata,
    Information,
    Intro,
    Method,
    Methods,
    Scoreboard,
    Status,
    Translated,
    Trust,
    YourData,
)
from studies.polymnist import data as polymnist
from studies.polymnist.study import PolyMNIST, observed_at_random

TEXTS = REPOSITORY / "book" / "text"
PROFILES = sorted((REPOSITORY / "book" / "params").glob("*.yaml"))
CLASSES = {**STUDIES, **{cls.name: cls for cls in (
    Ablations, Beyond, Collapse, Cost, Diagnostics, Errata, Information, Intro, Method, Methods, Scoreboard, Status,
    Translated, Trust, YourData)}}
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n:tags: \[parameters[^\n]*\n\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
TINY = dict(n_modalities=2, n_train=200, n_test=60, network="conv:channels=2", latent_dim=4, batch_size=32, epochs=1,
            n_probe=150, classifier_epochs=1, device="cpu")
# every option of a method away from its default: settings -> what the objective must then have
OPTIONS = [
    ("mmvm:bound=variational", dict(bound="variational")),
    ("mmvm:bound=monte_carlo", dict(bound="monte_carlo")),
    ("mmvm:alpha=0.25", dict(standard_normal_weight=0.25)),
    ("mmvm:alpha_updates=100", dict(standard_normal_weight=Schedule(1.0, 0.0, 100))),
    ("mmvm:n_experts=2", dict(n_experts=2)),
    ("mmvm:gate=soft", {"gate.mode": "soft", "gate.load_balance": 0.0}),
    ("mmvm:gate=hard,load_balance=0.5", {"gate.mode": "hard", "gate.load_balance": 0.5}),
    ("mmvm:gate=gumbel,temperature=2", {"gate.mode": "gumbel", "gate.temperature": 2.0}),
    ("mmvm:gate=gumbel,temperature_updates=9", {"gate.temperature": Schedule(1.0, 0.1, 9)}),
    ("mmvm:prior=geometric", dict(exponent=0.0, plain=False)),
    ("mmvm:exponent=0.25", dict(exponent=0.25)),
    ("mmvm:pool=matched", dict(exponent=1.0, matched=True, plain=False)),
    ("mmvm:prior=hellinger,bhattacharyya=per_dimension", dict(exponent=0.5, per_dimension=True)),
    ("mmvm:weights=5+3+2", {"weights.shape": (3,), "gate": None}),
    ("mmvm:weights=given", {"given": True, "weights": None, "needs": ("trust",)}),
    ("mmvm:gate=hard,reads=features", {"gate.mode": "hard", "gate.of_features": True, "needs": ("features",)}),
    ("mmvm:gradient=prior", dict(gradient="prior")),
    ("mmvm:self_component=false", dict(self_component=False)),
    ("independent:square_beta=true", dict(square_beta=True)),
    ("avg:average=deviation", dict(kind="avg", average="deviation")),
    ("avg:kl=drawn", dict(kind="avg", kl="drawn")),
    ("avg:kl_per_modality=true", dict(kl_per_modality=True)),
    ("poe:prior_expert=always", dict(kind="poe", prior_expert="always")),
    ("poe:unimodal_elbos=true", dict(kind="poe", unimodal_elbos=True)),
    ("poe:kl=mixture,kl_per_modality=true", dict(kl="mixture", kl_per_modality=True)),
    ("moe:sampling=stratified", dict(kind="moe", sampling="stratified")),
    ("moe:kl=drawn,kl_per_modality=true", dict(kl="drawn", kl_per_modality=True)),
    ("mopoe:prior_expert=full_set,sampling=contiguous", dict(prior_expert="full_set", sampling="contiguous")),
    ("mopoe:kl=mixture,kl_per_modality=true", dict(kind="mopoe", kl="mixture")),
    ("mmvaeplus:private_dim=3", dict(private_dim=3, kl="components", n_samples=1)),
    ("mmvaeplus:kl=mixture,n_importance=4,estimator=dreg", dict(kl="mixture", n_samples=4, estimator="dreg")),
    ("mmvaeplus:learn_private_mean=true", {"private_mean.requires_grad": True}),
    ("mmvaeplus:kl_per_modality=true", dict(kl_per_modality=True)),
    ("mvtcae:alpha=0.5", dict(alpha=0.5)),
    ("poe:subsets=2", dict(kind="poe", subsets=2)),
    ("mvae:subsets=3", dict(kind="poe", prior_expert="always", unimodal_elbos=True, subsets=3)),
    ("mmvaeplus:posterior=laplace", dict(posterior="laplace")),
    ("mmvae:n_importance=3,estimator=iwae,posterior=normal", dict(n_samples=3, estimator="iwae", posterior="normal")),
    ("jmvae:alpha=1,width=8", {"alpha": 1.0, "joint.0.out_features": 8}),
    ("hellinger:pool=exact,bhattacharyya=joint", dict(pool="exact", bhattacharyya="joint")),
]


@pytest.fixture(scope="module")
def train():
    return PolyMNIST(**TINY).data("train")


@pytest.fixture(scope="module")
def test():
    return PolyMNIST(**TINY).data("test")


# types and values

@pytest.mark.parametrize("values, message", [
    ({"beta": "1e-3"}, r"^beta must be a number, got '1e-3', text\. In YAML write 1\.0e-3: without the point, 1e-3 is "
                       r"text\. beta: weight of the regulariser"),
    ({"beta": True}, "^beta must be a number, got True, true or false"),
    ({"beta": None}, "^beta must be a number, got None, NoneType"),
    ({"epochs": 2.0}, r"^epochs must be an integer, got 2\.0, a number\. epochs: passes over"),
    ({"epochs": True}, "^epochs must be an integer, got True, true or false"),
    ({"epochs": "2"}, r"^epochs must be an integer, got '2', text\. epochs"),
    ({"translated": 1}, "^translated must be true or false, got 1, an integer"),
    ({"translated": "yes"}, "^translated must be true or false, got 'yes', text"),
    ({"profile": 2026}, "^profile must be text, got 2026, an integer"),
    ({"beta": math.nan}, "^beta must be a finite number, got nan"),
    ({"learning_rate": math.inf}, "^learning_rate must be a finite number, got inf"),
    ({"seed": -1}, r"^seed must be at least 0 and below 2\^32, got -1"),
    ({"data_seed": 2 ** 32}, r"^data_seed must be at least 0 and below 2\^32"),
    ({"objective": "vae"}, "^unknown objective 'vae': there are mmvm, independent, autoencoder, avg, "),
    ({"network": "mlp"}, "^unknown network 'mlp': there are conv, norm, resnet$"),
    ({"network": "conv:channels=0"}, "^network 'conv:channels=0': channels must be integer at least 1, got '0'"),
    ({"optimizer": "adam:decay=linear"}, r"decay must be none \| cosine, got 'linear'"),
    ({"optimizer": "sgd"}, "^unknown optimizer 'sgd': there are adam$"),
    ({"precision": "float16"}, "^precision must be one of 'float32', 'bfloat16', 'auto'"),
    *(({name: 0}, f"^{name} must be at least 1, got 0") for name in (
        "n_train", "n_test", "latent_dim", "batch_size", "epochs", "n_probe", "classifier_epochs")),
    *(({name: -1}, f"^{name} must be at least 0, got -1") for name in (
        "beta", "curve_every", "n_likelihood")),
    *(({name: 0.0}, f"^{name} must be positive, got 0.0") for name in (
        "learning_rate", "likelihood_scale")),
    ({"missing": 1.0}, "^missing must be at least 0 and below 1, got 1.0"),
    ({"missing": -0.1}, "^missing must be at least 0"),
    ({"objective": "mmvm:alpha=1.5"}, "^objective 'mmvm:alpha=1.5': alpha must be number at least 0 at most 1, got"),
    ({"objective": "mmvm:load_balance=1"}, "^load_balance, temperature and reads belong to a gate: add gate=soft"),
    ({"objective": "mmvm:temperature=0.5"}, "belong to a gate"),
    ({"objective": "mmvm:gate=hard,temperature=2"}, "^gate=hard has no temperature: leave .* out, or add gate=gumbel"),
    ({"objective": "mmvm:gate=soft,temperature_updates=9"}, "^gate=soft has no temperature"),
    ({"objective": "mmvm:temperature=0"}, "temperature must be number above 0, got '0'"),
    ({"objective": "mmvm:n_experts=-1"}, "n_experts must be integer at least 0, got '-1'"),
    ({"objective": "mmvm:alpha=nan"}, "alpha must be number"),
    ({"objective": "mmvm:bound"}, "write mmvm:<option>=<value>,<option>=<value>, got 'bound'"),
    ({"objective": "mmvm:"}, "write mmvm:<option>=<value>"),
    ({"objective": "mmvm:bound=pairwise,bound=variational"}, "says bound twice: leave one out"),
    ({"objective": "poe:gate=soft"}, "^objective 'poe' has no option 'gate': it has prior_expert, unimodal_elbos, "),
    ({"objective": "mmvaeplus:private_dim=32"}, r"^private_dim must be below latent_dim \(32\), got 32"),
    ({"objective": "mmvaeplus:kl=drawn"}, r"kl must be components \| mixture, got 'drawn'"),
    ({"objective": "mmvaeplus:estimator=iwae"}, "it needs kl='mixture', not 'components'"),
    ({"objective": "mvtcae:alpha=1.5"}, "alpha must be number at least 0 at most 1, got '1.5'"),
], ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "")
def test_wrong_values_are_named(values, message):
    with pytest.raises(UserError, match=message):
        PolyMNIST.from_dict(values)


def test_values_become_pythons_own_types():
    p = PolyMNIST(beta=2, seed=np.int64(3), learning_rate=np.float32(0.5), translated=np.bool_(True),
                  profile=np.str_("x"))
    values = p.beta, p.seed, p.learning_rate, p.translated, p.profile
    assert values == (2.0, 3, 0.5, True, "x") and [*map(type, values)] == [float, int, float, bool, str]
    with pytest.raises(UserError, match="epochs must be an integer, got 2.0"):
        PolyMNIST(epochs=np.float64(2))


def test_unknown_names_are_told_with_all_that_exist():
    with pytest.raises(UserError, match=r"^unknown parameter bta, epoch; PolyMNIST has: profile, objective, .*, out$"):
        PolyMNIST.from_dict({"epoch": 3, "bta": 1.0, "seed": 1})


def test_validation_draws_nothing_from_the_callers_random_numbers():
    state = torch.get_rng_state()
    PolyMNIST(objective="mmvm:gate=soft")
    assert torch.equal(torch.get_rng_state(), state)


# the notebook

def test_from_notebook_takes_what_the_cell_and_papermill_set():
    namespace = {"__name__": "__main__", "_": 1, "_i2": "beta = 3", "In": [""], "Out": {}, "get_ipython": print,
                 "exit": 1, "quit": 2, "open": open, "np": np, "math": math, "PolyMNIST": PolyMNIST, "beta": 0.5,
                 "objective": "poe"}
    assert PolyMNIST.from_notebook(namespace) == PolyMNIST(beta=0.5, objective="poe")


@pytest.mark.parametrize("name, value", [("bta", 0.5), ("helper", lambda: 1), ("data", [1, 2])])
def test_from_notebook_refuses_unknown_names(name, value):
    with pytest.raises(UserError, match=f"unknown parameter {name}; PolyMNIST has: profile, "):
        PolyMNIST.from_notebook({"beta": 0.5, name: value})


def test_from_notebook_can_be_called_again_after_the_chapter_has_run():
    p = PolyMNIST(beta=0.5)
    namespace = {"beta": 2.0, "p": p, "model": object(), "history": [1]}
    assert PolyMNIST.from_notebook(namespace) == PolyMNIST(beta=2.0)
    with pytest.raises(UserError, match="beta must be a number"):
        PolyMNIST.from_notebook({**namespace, "beta": "high"})


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_the_parameters_cell_of_the_chapter_is_the_class(cls):
    cells = CELL.findall((TEXTS / f"{cls.name}.md").read_text())
    assert cells == [cls.cell()]
    namespace = {}
    exec(cells[0], namespace)
    del namespace["__builtins__"], namespace["__annotations__"]
    assert list(namespace) == [f.name for f in cls.ordered()] and cls.from_notebook(namespace) == cls()


def test_every_study_is_known_by_its_chapter():
    ours = [cls for cls in Study.__subclasses__() if cls.__module__.startswith("studies.")]  # other tests define some
    assert {cls.name: cls for cls in ours} == STUDIES


def test_every_chapter_with_parameters_has_a_class():
    assert set(CLASSES) == {path.stem for path in TEXTS.glob("*.md") if CELL.search(path.read_text())}


# profiles and settings

@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_can_be_run(path):
    chapter, _, profile = path.stem.rpartition("-")
    p = CLASSES[chapter].from_profile(profile)
    assert p == CLASSES[chapter].from_profile(str(path)) and p.profile == profile
    assert all(getattr(p, name) == value for name, value in yaml.safe_load(path.read_text()).items())


def test_smoke_is_the_default():
    assert PolyMNIST.from_profile("smoke") == PolyMNIST()


@pytest.mark.parametrize("text, message", [
    ("beta: 1e-3", r"x\.yaml: beta must be a number, got '1e-3', text\. In YAML write 1\.0e-3"),
    ("bta: 1.0", r"x\.yaml: unknown parameter bta; PolyMNIST has"),
    ("profile: x\nbeta: [1\nseed: 2", r"x\.yaml, line 3, is not YAML \(.*\): write lines of `name: value`"),
    ("profile: x\n\tbeta: 1", r"x\.yaml, line 2, is not YAML"),
    ("profile: 2026-13-01", r"x\.yaml is not YAML \(month must be in 1..12"),
    ("- beta", r"x\.yaml must hold lines of `name: value`"),
    ("just text", r"x\.yaml must hold lines of `name: value`"),
    ("1: 2", r"x\.yaml: unknown parameter 1;"),
    ("objective: no", r"x\.yaml: objective must be text, got False"),
])
def test_a_wrong_profile_is_named(text, message, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        PolyMNIST.from_profile(str(tmp_path / "x.yaml"))


def test_a_profile_that_is_no_text_is_named(tmp_path):
    (tmp_path / "x.yml").write_bytes(b"\xff\xfe\x00beta")
    with pytest.raises(UserError, match=r"x\.yml.* is not YAML"):
        PolyMNIST.from_profile(str(tmp_path / "x.yml"))


def test_an_empty_profile_changes_nothing(tmp_path):
    (tmp_path / "x.yaml").write_text("# all defaults\n")
    assert PolyMNIST.from_profile(str(tmp_path / "x.yaml")) == PolyMNIST()


@pytest.mark.parametrize("profile", ["huge", "huge.yaml"])
def test_a_missing_profile_is_told_with_those_there_are(profile):
    names = ", ".join(path.stem.removeprefix("polymnist-") for path in PROFILES if path.stem.startswith("polymnist-"))
    with pytest.raises(UserError, match=rf"there is no profile .*huge\.yaml; profiles of polymnist: {names}, or name"):
        PolyMNIST.from_profile(profile)


def test_settings_are_read_as_their_own_type():
    p = PolyMNIST(epochs=3).with_settings(["beta=1e-3", "seed = 7", "translated=True", "objective=poe", "out=a=b"])
    assert p == PolyMNIST(epochs=3, beta=1e-3, seed=7, translated=True, objective="poe", out="a=b")
    assert PolyMNIST(translated=True).with_settings(["translated=false"]) == PolyMNIST()
    assert PolyMNIST().with_settings([]) == PolyMNIST()


@pytest.mark.parametrize("setting, message", [
    ("beta", "--set takes name=value, got 'beta'"),
    ("bta=1", "unknown parameter bta; PolyMNIST has"),
    ("beta=high", "beta must be a number, got 'high'"),
    ("beta=", "beta must be a number, got ''"),
    ("beta=nan", "beta must be a finite number"),
    ("epochs=1.5", "epochs must be an integer, got '1.5'"),
    ("translated=1", "translated must be true or false, got '1'"),
    ("epochs=0", "epochs must be at least 1, got 0"),
])
def test_wrong_settings_are_named(setting, message):
    with pytest.raises(UserError, match=message):
        PolyMNIST().with_settings([setting])


# methods

def test_every_option_is_tried_here():
    tried = {(text.partition(":")[0], word.partition("=")[0])
             for text, _ in OPTIONS for word in text.partition(":")[2].split(",")}
    assert tried == {(name, option.name) for name, found in METHODS.items() for option in found.options}


@pytest.mark.parametrize("objective", METHODS)
def test_every_method_builds_its_objective(objective):
    built = PolyMNIST(objective=objective).build_objective()
    assert type(built) is METHODS[objective].cls and getattr(built, "kind", objective) == {"mvae": "poe"}.get(
        objective, objective)


@pytest.mark.parametrize("objective, expected", OPTIONS, ids=[text for text, _ in OPTIONS])
def test_every_option_reaches_the_objective(objective, expected):
    built = PolyMNIST(objective=objective).build_objective()
    for name, value in expected.items():
        found = built
        for part in name.split("."):
            found = getattr(found, part)
        assert found == value, name


@pytest.mark.parametrize("given, text", [
    ("mmvm:bound=pairwise", "mmvm"), ("mmvm:load_balance=1.0,gate=soft", "mmvm:gate=soft,load_balance=1"),
    ("mmvm:alpha=1e-3", "mmvm:alpha=0.001"), ("independent:square_beta=TRUE", "independent:square_beta=true"),
    ("mopoe:kl=mixture,sampling=stratified", "mopoe:sampling=stratified,kl=mixture"),
    ("mmvaeplus:private_dim=04", "mmvaeplus:private_dim=4"), ("mvtcae:alpha=.50", "mvtcae:alpha=0.5"),
])
def test_equal_methods_are_one_text(given, text):
    p = PolyMNIST(objective=given)
    assert p == PolyMNIST(objective=text) and p.objective == p.method() == text
    assert p.run_hash() == PolyMNIST(objective=text).run_hash()
    assert re.fullmatch(r"[a-z0-9_.:=,+-]+", text), "safe in a shell without quotes"


def test_with_method_keeps_the_settings_and_drops_the_options():
    p = PolyMNIST(objective="mmvm:gate=gumbel,load_balance=1", beta=0.25, seed=3, missing=0.1)
    assert p.with_method("poe") == PolyMNIST(objective="poe", beta=0.25, seed=3, missing=0.1)


def test_mmvaeplus_halves_a_small_latent():
    for latent_dim, private_dim in ((2, 1), (20, 10), (32, 16), (512, 16)):
        assert PolyMNIST(objective="mmvaeplus", latent_dim=latent_dim).build_objective().private_dim == private_dim


@pytest.mark.parametrize("name", STUDIES)
def test_cells_are_short_and_read_by_papermill(name):
    lines = STUDIES[name].cell().splitlines()
    assert len(lines) <= 32 and max(map(len, lines)) <= 110
    assert not [line for line in lines if "=" in line.split("  # ", 1)[1]], "papermill's inspector stops at it"


@pytest.mark.parametrize("name", STUDIES)
def test_papermill_lists_every_parameter_and_warns_of_nothing(name):
    found = subprocess.run([sys.executable, "-m", "papermill", "--help-notebook", f"book/{name}.ipynb"], text=True,
                           cwd=REPOSITORY, capture_output=True, check=True, env={**os.environ, "COLUMNS": "300"})
    assert not found.stderr.strip() and "unknown" not in found.stdout.lower().replace("unknown type", "unknown")
    for f in STUDIES[name].ordered():
        assert re.search(rf"^  {f.name}: ", found.stdout, re.M), f.name


# names of runs

def test_run_hash_ignores_where_things_lie():
    p = PolyMNIST()
    moved = replace(p, out="x", root="y", profile="z", device="cpu", compare=False, curve_every=3)
    assert re.fullmatch("[0-9a-f]{10}", p.run_hash()) and moved.run_hash() == p.run_hash()
    assert PolyMNIST(beta=1).run_hash() == p.run_hash()


def test_run_hash_and_checkpoint_know_every_other_parameter():
    p = PolyMNIST()
    other = {"beta": 0.5, "objective": "poe", "precision": "auto", "optimizer": "adam:max_grad_norm=1",
             "network": "resnet"}
    measured = {"n_test", "n_probe", "classifier_epochs", "n_likelihood", "inception"}
    hashes = {p.run_hash()}
    for name in ("beta", "seed", "data_seed", "epochs", "n_train", "objective", "missing", "network", "latent_dim",
                 "scale", "translated", "batch_size", "learning_rate", "optimizer", "precision", "likelihood_scale",
                 "n_modalities", "backgrounds", "validation", "n_validation", *measured):
        value = getattr(p, name)
        changed = {bool: True, int: 7, float: 0.5, str: "x"}[type(value)]
        changed = replace(p, **{name: other.get(name, changed)})
        hashes.add(changed.run_hash())
        assert (changed.config() == p.config()) == (name in {"epochs", *measured}), name
    assert len(hashes) == 26


@pytest.mark.parametrize("optimizer, gate", [("adam:patience=2", 0.9), ("adam", 0.05)])
def test_gate_rows_are_of_the_epoch_whose_weights_are_measured(optimizer, gate):
    p = PolyMNIST(objective="mmvm:gate=soft", optimizer=optimizer, n_validation=4, n_train=2)
    epochs = [{"epoch": e, "step": e, "seconds": 1.0, "gate_entropy": g, "validation_loss": loss}
              for e, g, loss in ((1, 0.9, 1.0), (2, 0.1, 5.0), (3, 0.05, 6.0))]
    rows = p.rows(study.Metrics(), training.History(epochs, data="x"), torch.device("cpu"), p.data("train"))
    assert {row["metric"]: row["value"] for row in rows} == {
        "gate_entropy": gate, **({"best_epoch": 1} if "patience" in optimizer else {})}


def test_folder_starts_from_the_repository():
    assert PolyMNIST().folder() is None
    assert PolyMNIST(out="runs/x").folder() == REPOSITORY / "runs" / "x"
    assert str(PolyMNIST(out="/elsewhere/x").folder()) == "/elsewhere/x"


def test_a_tilde_is_the_home_wherever_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable, root in (("MMVM_DATA", paths.data_root), ("MMVM_RUNS", paths.runs_root)):
        monkeypatch.setenv(variable, "~/big disk")
        assert root() == tmp_path / "big disk"
    assert PolyMNIST(out="~/x").folder() == tmp_path / "x"
    for kind in STUDIES.values():
        with pytest.raises(UserError, match=re.escape(str(tmp_path / "not there"))):
            kind(root="~/not there").data("train")


# data and model

def test_data_is_what_the_parameters_say(train, test):
    assert (len(train), len(test), train.names) == (200, 60, ["m0", "m1"])
    expected = polymnist.load("train", n_modalities=2, translated=False, n=200)
    assert torch.equal(train.modalities["m1"], expected.modalities["m1"]) and train.ids == expected.ids
    assert train.observed.all() and test.observed.all()
    p = PolyMNIST(**{**TINY, "n_train": 20}, translated=True, likelihood_scale=0.1, data_seed=4)
    moved = p.data("train")
    assert moved.specs[0].likelihood == Laplace(0.1) and train.specs[0].likelihood == Laplace(0.75)
    expected = polymnist.load("train", n_modalities=2, translated=True, n=20, seed=4)
    assert torch.equal(moved.modalities["m0"], expected.modalities["m0"])


def test_missing_takes_its_share_and_leaves_one_a_tuple():
    p = PolyMNIST(**{**TINY, "n_train": 4_000, "n_modalities": 3}, missing=0.4)
    train = p.data("train")
    assert train.observed.any(0).all() and p.data("test").observed.all()
    expected = 0.6 + 0.4 ** 3 / 3  # the tuple that would lose all keeps one of three
    assert train.observed.float().mean().item() == pytest.approx(expected, abs=0.02)
    assert train.observed.float().mean(1).tolist() == pytest.approx([expected] * 3, abs=0.03)
    again = replace(p, seed=5, objective="poe").data("train")
    assert torch.equal(again.observed, train.observed), "all methods and seeds miss the same"
    other = observed_at_random((3, 4_000), 0.4, seed=1)
    assert not torch.equal(other, train.observed)


def test_what_is_kept_of_a_tuple_that_would_lose_all_is_any_of_them():
    observed = observed_at_random((3, 3_000), 0.99, seed=0)
    assert observed.any(0).all()
    assert observed.float().mean(1).tolist() == pytest.approx([1 / 3] * 3, abs=0.04)


@pytest.mark.parametrize("settings", [{"objective": text} for text in (
    *METHODS, "mmvm:gate=soft", "mmvaeplus:private_dim=1")], ids=str)
def test_all_methods_start_from_the_same_networks(settings, train):
    def networks(p):
        weights = p.build_model(train).state_dict()
        return {name: value for name, value in weights.items() if name.startswith(("encoders", "decoders"))}

    state = torch.get_rng_state()
    found, expected = networks(PolyMNIST(**TINY, **settings)), networks(PolyMNIST(**TINY))
    assert torch.equal(torch.get_rng_state(), state)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    other = networks(PolyMNIST(**TINY, **settings, seed=1))
    assert not torch.equal(other["encoders.0.mean.weight"], expected["encoders.0.mean.weight"])


def test_the_model_is_as_wide_as_asked(train):
    model = PolyMNIST(**TINY, beta=0.5).build_model(train)
    assert model.beta == 0.5 and model.encoders[1].mean.out_features == 4 and model.modalities == train.specs
    assert model.encoders[0].trunk[0].out_channels == 2
    resnet = PolyMNIST(**{**TINY, "network": "resnet:channels=2"}).build_model(train)
    assert type(resnet.encoders[0]).__name__ == "ResNetEncoder"


# whole runs

@pytest.fixture(scope="module")
def finished(runs, train, test):
    p = PolyMNIST(**TINY, out=str(runs / "x"), n_likelihood=2)
    return p, study.run(p, train, test)


def no_training(monkeypatch):
    def fail(*_):
        pytest.fail("this is trained already")
    fail.hooked = True  # or PyTorch wraps it, and leaves the wrapped one in AdamW, which inherits from Adam
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        monkeypatch.setattr(kind, "step", fail)


@pytest.mark.slow
def test_a_run_writes_its_rows(finished, train, runs):
    p, result = finished
    table = results.read(runs / "x" / "results.csv")
    assert len(table) == len(result.rows)
    assert set(table["metric"]) == {"probe", "reconstruction", "coherence", "imputation", "classifier_distance",
                                    "effective_beta", "classifier_accuracy", "latent_information"}
    for name, value in {"experiment": "polymnist", "method": "mmvm", "beta": 1.0, "seed": 0, "profile": "smoke",
                        "n_train": 200, "epochs": 1, "updates": 6, "device": "cpu", "run": p.run_hash(),
                        "data": fingerprint(train)[:10]}.items():
        assert (table[name] == value).all(), name
    value = table.set_index(["metric", "source", "target"])["value"]
    for metric in ("probe", "classifier_accuracy", "reconstruction"):
        entries = result.metrics[metric]
        assert [value[metric, "", f"m{m}"] for m in range(2)] == pytest.approx(entries, rel=1e-5)
        average = ("sum", entries.sum()) if metric == "reconstruction" else ("mean", entries.mean())
        assert value[metric, "", average[0]] == pytest.approx(average[1], rel=1e-5)
    for metric in ("coherence", "imputation", "classifier_distance"):
        matrix = result.metrics[metric]
        assert value[metric, "m0", "m1"] == pytest.approx(matrix[0, 1], rel=1e-5)
        assert value[metric, "m1", "m0"] == pytest.approx(matrix[1, 0], rel=1e-5)
        assert value[metric, "", "cross"] == pytest.approx((matrix[0, 1] + matrix[1, 0]) / 2, rel=1e-5)
    assert value["effective_beta", "", "mean"] == 1
    assert set(table[table["metric"] == "classifier_distance"]["note"]) == {"trunk=conv; n=60"}


def test_a_run_has_losses_that_are_possible(finished):
    result = finished[1]
    assert (result.metrics["reconstruction"] > 2352 * math.log(1.5)).all()
    assert ((result.metrics["probe"] >= 0) & (result.metrics["probe"] <= 1)).all()
    assert not result.model.training and len(result.history.epochs) == 1


def test_the_same_call_trains_nothing_and_gives_the_same_rows(finished, train, test, monkeypatch, runs):
    p, result = finished
    no_training(monkeypatch)
    again = study.run(p, train, test)
    assert again.rows == [{**row, "date": again.rows[0]["date"]} for row in result.rows]
    assert len(results.read(runs / "x" / "results.csv")) == len(result.rows)


def test_a_finished_run_is_not_taken_for_one_on_other_data(finished, train, test, runs, monkeypatch):
    p, result = finished
    no_training(monkeypatch)
    other = train.subset(torch.arange(len(train)).flip(0))
    there, here = result.history.data[:10], fingerprint(other)[:10]
    with pytest.raises(UserError, match=rf"belongs to another run: data \(there {there}..., here {here}...\)\. Choose"):
        study.run(p, other, test)
    study.run(replace(p, n_test=30, n_probe=50, device="cpu"), train, test)  # what weights do not depend on is free


@pytest.mark.parametrize("objective", ["mmvm", "mmvm:gate=soft"])
@pytest.mark.parametrize("latent_dim, message", [
    (10**9, r"the weights, their gradients and Adam's state take [\d,.]+ GB \(the largest is encoders\.\d\.[\w.]+ "
            r"\(10{9}, \d+\)\), [\d,.]+ GB are free on cpu: choose a smaller latent_dim"),
    (10**18, "more weights than can be counted: choose a smaller latent_dim"),
    (10**24, "more weights than can be counted: choose a smaller latent_dim")])
def test_a_model_that_cannot_fit_says_so_before_it_is_built(latent_dim, message, objective, train):
    with pytest.raises(UserError, match=message):
        PolyMNIST(**{**TINY, "latent_dim": latent_dim}, objective=objective).build_model(train)


@pytest.mark.slow
def test_a_model_without_memory_is_not_filled():
    objective = without_memory(lambda: build("mmvm:gate=soft", 4, 3))
    assert objective is not None and all(parameter.is_meta for parameter in objective.parameters())
    code = ("import sys; from studies.polymnist.study import PolyMNIST; PolyMNIST(objective='mmvm:gate=soft'); "
            "sys.exit('torch._dynamo' in sys.modules)")  # it would be imported for the draws alone
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_networks_that_need_numbers_to_be_built_are_built():
    built = []

    def build():
        built.append(float(torch.ones(1)))
        return torch.nn.Linear(1, 1)

    assert without_memory(build) is None and built == []
    assert without_memory(lambda: torch.nn.Linear(3, 2)).weight.shape == (2, 3)


def test_load_gives_the_model_back(finished, monkeypatch):
    p, result = finished
    no_training(monkeypatch)
    found, model = study.load(p.out)
    assert found.config() == p.config() and found.epochs == 1
    assert not model.training
    expected = result.model.state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_load_names_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match=f"there is no checkpoint {tmp_path}/checkpoint.safetensors: correct the path"):
        study.load(tmp_path)


def test_more_epochs_go_on_and_fewer_are_refused(runs, train, test):
    p = PolyMNIST(**TINY, out=str(runs / "longer"), curve_every=2)
    p.fit(p.build_model(train), train)
    result = study.run(replace(p, epochs=2), train, test)
    whole = replace(p, epochs=2, out="")
    model = whole.build_model(train)
    whole.fit(model, train)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), result.model.parameters()))
    with pytest.raises(UserError, match=r"history.jsonl ends at epoch 2, the run asks for 1: raise epochs.*--fresh"):
        p.fit(p.build_model(train), train)


def test_another_runs_folder_is_refused(finished, train, test):
    p, _ = finished
    with pytest.raises(UserError, match=r"belongs to another run: beta \(there 1.0, here 0.5\)"):
        study.run(replace(p, beta=0.5), train, test)


def test_gate_and_curve_have_rows_of_their_own(runs, train, test):
    p = PolyMNIST(**{**TINY, "epochs": 3}, objective="mmvm:gate=soft", curve_every=2)
    result = study.run(p, train, test)
    rows = {(row["metric"], row["source"], row["target"]): row["value"] for row in result.rows}
    last = result.history.epochs[-1]
    assert rows["gate_weight", "", "m0"] == last["gate_weight/0"]
    assert rows["gate_first", "", "m1"] == last["gate_first/1"]
    assert rows["gate_entropy", "", "mean"] == last["gate_entropy"] <= math.log(2) + 1e-6
    assert rows["gate_weight", "", "m0"] + rows["gate_weight", "", "m1"] == pytest.approx(1)
    steps = {key[1:]: value for key, value in rows.items() if key[0].endswith("_curve")}
    assert set(steps) == {(step, target) for step in ("12", "18") for target in ("m0", "m1", "sum")}, "epochs 2 and 3"
    error = result.metrics["reconstruction"].sum()
    assert rows["reconstruction_curve", "18", "sum"] == pytest.approx(error, rel=1e-6)


def test_a_joint_model_has_a_log_likelihood_with_its_note(runs, train, test):
    result = study.run(PolyMNIST(**TINY, objective="moe", n_likelihood=2), train, test)
    row, = [row for row in result.rows if row["metric"] == "log_likelihood"]
    assert row["target"] == "mean" and row["value"] < 0 and row["note"].startswith("draws=2; n=60; standard_error=")
    assert row["method"] == "moe"


def test_missing_images_train_every_method(runs):
    p = PolyMNIST(**{**TINY, "n_train": 64}, missing=0.4)
    train = p.data("train")
    for objective in METHODS:
        p = PolyMNIST(**{**TINY, "n_train": 64}, missing=0.4, objective=objective)
        model = p.build_model(train)
        assert np.isfinite(p.fit(model, train)["loss"]).all()
        assert all(w.isfinite().all() for w in model.parameters())


def test_classifiers_are_kept_and_a_spoilt_one_is_trained_again(finished, runs, train, test, monkeypatch):
    p, result = finished
    kept = sorted((runs / "classifiers").glob("*.safetensors"))
    assert [path.name.split("-")[0] for path in kept] == ["m0", "m1"]
    before = {name: value.clone() for name, value in load_file(kept[0]).items()}  # the file is mapped
    kept[0].write_bytes(kept[0].read_bytes()[:1000])
    _, accuracy = p.classifiers(train, test)
    assert all(torch.equal(value, before[name]) for name, value in load_file(kept[0]).items())
    assert (accuracy == result.metrics["classifier_accuracy"]).all()
    no_training(monkeypatch)
    replace(p, seed=1, beta=0.5, objective="independent").classifiers(train, test)
    assert sorted((runs / "classifiers").glob("*.safetensors")) == kept
    with pytest.raises(pytest.fail.Exception):
        replace(p, classifier_epochs=2).classifiers(train, test)


def test_one_modality_has_no_cross_average(train):
    p = PolyMNIST(**{**TINY, "n_modalities": 1})
    metrics = study.Metrics({"coherence": np.array([[0.5]])})
    history = training.History([{"epoch": 1, "step": 6, "seconds": 0.1}])
    rows = p.rows(metrics, history, torch.device("cpu"), train.subset(slice(0, 3)))
    assert [(row["source"], row["target"], row["value"]) for row in rows] == [("m0", "m0", 0.5), ("", "mean", 0.5),
                                                                              ("", "self", 0.5)]


def test_nothing_is_kept_without_a_folder(runs, train, test, monkeypatch):
    written = []
    monkeypatch.setattr(results, "append", lambda *arguments: written.append(arguments))
    monkeypatch.setattr(PolyMNIST, "classifiers", lambda self, *_: ([torch.nn.Identity()] * 2, np.ones(2)))
    monkeypatch.setattr(PolyMNIST, "evaluate", lambda self, *_: study.Metrics({"probe": np.ones(2)}))
    before = set(runs.rglob("*"))
    assert study.run(PolyMNIST(**TINY), train, test).rows
    assert not written and set(runs.rglob("*")) == before


@pytest.mark.slow
def test_one_set_of_parameters_measures_the_models_of_others(runs, train, test):
    """The chapter compares a method with MMVM, which has no log-likelihood, and MMVM with a method that has one."""
    for trained, measured_with in (("mmvm", "poe"), ("poe", "mmvm")):
        model = PolyMNIST(**TINY, objective=trained).build_model(train)
        p = PolyMNIST(**TINY, objective=measured_with, n_likelihood=2)
        metrics = p.evaluate(model, train, test, p.classifiers(train, test)[0])
        assert ("log_likelihood" in metrics) == (trained == "poe")
