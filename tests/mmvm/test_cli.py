"""`python -m mmvm`: what it prints, how it ends, and that a user's mistake is a sentence and never a traceback."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import fields

import nbformat
import pytest
import torch

from mmvm import options, training
from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.paths import REPOSITORY
from mmvm.study import results
from studies.polymnist import data as polymnist
from studies.polymnist.study import PolyMNIST

TINY = {"profile": "tiny", "n_modalities": 2, "n_train": 200, "n_test": 60, "network": "conv:channels=2",
        "latent_dim": 4, "batch_size": 32, "epochs": 1, "n_probe": 150, "classifier_epochs": 1, "device": "cpu"}
SHIPPED = REPOSITORY / "data" / "polymnist"


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in TINY.items()))
    return str(path)


@pytest.fixture
def call(capsys, runs):
    """Runs `python -m mmvm <words>` in this process: (status, stdout, stderr)."""
    def run(*words):
        capsys.readouterr()
        try:
            status = main([*map(str, words)])
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err
    return run


def assert_mistake(said, *words):
    status, _, err = said
    assert status == 2
    assert err.startswith("mmvm: ") and err.endswith("\n") and "Traceback" not in err
    for word in words:
        assert str(word) in err, err


def checkpoint_step(folder):
    return json.loads(training.read_checkpoint(folder / training.CHECKPOINT)[1]["progress"])["step"]


# help

def test_help_names_the_commands(call):
    status, out, _ = call("--help")
    assert status == 0
    assert all(f" {name} " in f"{out} " for name in ("train", "data", "results", "studies", "new-study", "methods",
                                                     "show", "queue"))
    assert all(line in out for line in ("train and evaluate one run", "verify it", "print the committed results",
                                      "train a list of runs"))


def test_help_of_train_lists_every_parameter(call):
    status, out, _ = call("train", "--help")
    assert status == 0
    for line in PolyMNIST.cell().splitlines():
        assert f"  {line}\n" in out


@pytest.mark.parametrize("command", ["data", "results", "show", "queue"])
def test_help_of_the_other_commands(command, call):
    status, out, _ = call(command, "--help")
    assert status == 0 and out.startswith(f"usage: python -m mmvm {command}")


@pytest.mark.parametrize("words", [[], ["train"], ["fly"], ["train", "cifar"], ["data"],
                                   ["train", "polymnist", "--bta=1"], ["train", "polymnist", "--set"]], ids=" ".join)
def test_a_wrong_call_shows_the_usage(words, call):
    status, _, err = call(*words)
    assert status == 2 and err.startswith("usage: python -m mmvm") and "error: " in err


# train

def test_dry_run_prints_the_parameters_and_does_nothing(call, runs, profile, monkeypatch):
    monkeypatch.setattr(polymnist, "load", lambda *_, **__: pytest.fail("no data is needed"))
    before = set(runs.rglob("*"))
    status, out, err = call("train", "polymnist", "--profile", profile, "--set", "beta=0.25", "--set", "objective=poe",
                            "--dry-run")
    assert (status, err) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in out.splitlines() if len(line.split()) > 1)
    p = PolyMNIST(**TINY, beta=0.25, objective="poe")
    assert shown["beta"] == "0.25" and shown["objective"] == "poe" and shown["n_train"] == "200"
    assert shown["out"] == str(runs / f"polymnist-{p.run_hash()}")
    assert [line.split()[0] for line in out.splitlines()] == [field.name for field in fields(p)]
    assert set(runs.rglob("*")) == before


def test_the_default_profile_is_smoke(call):
    assert call("train", "polymnist", "--dry-run")[1] == call("train", "polymnist", "--profile", "smoke",
                                                              "--dry-run")[1]


@pytest.mark.slow
def test_train_ends_with_the_rows_and_a_second_call_keeps_them(call, profile, tmp_path):
    out = tmp_path / "run"
    words = ["train", "polymnist", "--profile", profile, "--out", out]
    status, said, err = call(*words)
    assert (status, err) == (0, "")
    table = results.read(out / "results.csv")
    assert said.endswith(f"\n{len(table)} rows in {out / 'results.csv'}\n") and set(table["profile"]) == {"tiny"}
    probe = table[(table["metric"] == "probe") & (table["target"] == "mean")]["value"].item()
    line, = [line for line in said.splitlines() if line.startswith("probe ") and " mean " in line]
    assert float(line.split()[-1]) == pytest.approx(probe, rel=1e-3)
    assert "\ncoherence              cross " in said and "\ncoherence              m0 " not in said

    before = (out / training.CHECKPOINT).read_bytes()
    again = call(*words)
    assert again == (0, said, "") and (out / training.CHECKPOINT).read_bytes() == before

    # another run does not get the folder unless it is told to start over
    other = [*words, "--set", "beta=0.5"]
    assert_mistake(call(*other), out / training.CHECKPOINT, "belongs to another run: beta (there 1.0, here 0.5)")
    assert (out / training.CHECKPOINT).read_bytes() == before
    assert call(*other, "--fresh")[0] == 0
    assert json.loads(training.read_checkpoint(out / training.CHECKPOINT)[1]["config"])["beta"] == 0.5
    assert set(results.read(out / "results.csv")["beta"]) == {0.5, 1.0}

    # and a spoilt checkpoint is told
    (out / training.CHECKPOINT).write_bytes(before[:-100])
    assert_mistake(call(*words), out / training.CHECKPOINT, "cannot be read", "delete it to start over")


@pytest.mark.slow
@pytest.mark.parametrize("words, said", [
    (["--set", "bta=1"], ["unknown parameter bta; PolyMNIST has: profile, objective"]),
    (["--set", "epochs=many"], ["epochs must be an integer, got 'many'"]),
    (["--set", "beta"], ["--set takes name=value, got 'beta'"]),
    (["--set", "objective=poe:gate=soft"], ["objective 'poe' has no option 'gate': it has prior_expert"]),
    (["--set", "root=nowhere"], ["train-images-idx3-ubyte.gz is not in", "/nowhere/mnist"]),
    (["--set", "backgrounds=nowhere"], ["/nowhere' is not a folder"]),
    (["--set", "n_train=70000"], ["n=70000 tuples asked for, the train split has 60000"]),
    (["--set", "n_modalities=6"], ["holds 5 photos, 6 modalities need one each"]),
    (["--set", "device=gpu"], ["unknown device 'gpu'"]),
    (["--profile", "huge"], ["there is no profile", "polymnist-huge.yaml", "laptop, paper, search, smoke"]),
], ids=lambda value: value[-1] if value[0].startswith("--") else "")
def test_mistakes_in_the_parameters_are_one_sentence(words, said, call, profile, tmp_path):
    assert_mistake(call("train", "polymnist", "--profile", profile, "--out", tmp_path / "run", *words), *said)


@pytest.mark.parametrize("text, said", [
    ("beta: [1\nseed: 1", "line 2, is not YAML"), ("beta: 1e-3", "In YAML write 1.0e-3"), ("7", "must hold lines of"),
], ids=["broken", "text", "no-names"])
def test_a_wrong_profile_is_named(text, said, call, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    assert_mistake(call("train", "polymnist", "--profile", tmp_path / "x.yaml", "--dry-run"), tmp_path / "x.yaml", said)


def test_a_folder_in_place_of_a_profile_is_named(call, tmp_path):
    (tmp_path / "x.yaml").mkdir()
    assert_mistake(call("train", "polymnist", "--profile", tmp_path / "x.yaml"), tmp_path / "x.yaml", "Is a directory")


def test_a_cut_data_file_is_named(call, profile, tmp_path):
    shutil.copytree(SHIPPED / "mnist", tmp_path / "mnist")
    path = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert_mistake(call("train", "polymnist", "--profile", profile, "--out", tmp_path / "run", "--set",
                        f"root={tmp_path}"), path, "is cut or damaged", "copy or download it again")
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_the_folder_is_named(call, profile, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert_mistake(call("train", "polymnist", "--profile", profile, "--out", out), out,
                       "check the path and its rights, or choose another folder")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_named(call, profile, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert_mistake(call("train", "polymnist", "--profile", profile, "--out", tmp_path / "locked" / "run"),
                   tmp_path / "locked" / "run", "Permission denied")


def test_a_full_disk_is_named(call, profile, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    said = call("train", "polymnist", "--profile", profile, "--out", tmp_path / "run")
    assert_mistake(said, tmp_path / "run" / training.CHECKPOINT, "No space left on device")


def test_divergence_is_told_with_advice(call, profile, tmp_path):
    said = call("train", "polymnist", "--profile", profile, "--out", tmp_path / "run", "--set", "learning_rate=1e8")
    assert_mistake(said, "training stopped at update", "Try a smaller learning_rate")


# stopped and continued

SLOWLY = """
import runpy, time, torch
step = torch.optim.Adam.step
def slow(*arguments):
    time.sleep(0.1)
    return step(*arguments)
torch.optim.Adam.step = slow
runpy.run_module("mmvm", run_name="__main__", alter_sys=True)
"""


def start(runs, *words):
    # as many threads in both libraries as in this process (conftest): another number rounds differently
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1",
                   "MMVM_RUNS": str(runs)}
    return subprocess.Popen([sys.executable, *map(str, words)], env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_the_same_command_continues(call, runs, profile, tmp_path):
    out = tmp_path / "run"
    words = ["train", "polymnist", "--profile", profile, "--out", out, "--set", "epochs=4"]
    process = start(runs, "-c", SLOWLY, *words)
    while not (out / training.CHECKPOINT).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    step = checkpoint_step(out)
    assert process.returncode == 130 and 6 <= step < 24
    assert err == (f"mmvm: stopped after update {step}; run the same again to continue from "
                   f"{out / training.CHECKPOINT}\n")

    status, said, err = call(*words)
    assert (status, err) == (0, "") and checkpoint_step(out) == 24
    p = PolyMNIST(**{**TINY, "epochs": 4})
    train = p.data("train")
    model = p.build_model(train)
    p.fit(model, train)
    tensors = training.read_checkpoint(out / training.CHECKPOINT)[0]
    assert all(torch.equal(tensors[f"model.{name}"], value) for name, value in model.state_dict().items())


def test_an_interrupt_within_an_exec_of_text_ends_with_130(tmp_path):
    """Where a dataclass is made, as while modules are imported: Python then wants to end with the signal."""
    (tmp_path / "stopped.py").write_text(
        "from mmvm import __main__ as cli\n"
        "def stopped(options): exec('raise KeyboardInterrupt')\n"
        "cli.COMMANDS['methods'] = (cli.COMMANDS['methods'][0], stopped)\n"
        "raise SystemExit(cli.main(['methods']))\n")
    done = subprocess.run([sys.executable, "-m", "stopped"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert (done.returncode, done.stderr) == (130, "mmvm: stopped\n")


@pytest.mark.slow
def test_sigterm_before_the_training_ends_with_130_too(runs, profile, tmp_path):
    process = start(runs, "-m", "mmvm", "train", "polymnist", "--profile", profile, "--out", tmp_path / "run", "--set",
                    "n_train=60000", "--set", "translated=true")  # takes its time to load
    assert process.stdout.readline().split() == ["profile", "tiny"]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "mmvm: stopped\n")


# data

def test_data_describes_the_set(call):
    status, out, _ = call("data", "polymnist")
    assert status == 0 and "five pictures of the same digit" in out and "--check" in out


def test_the_data_that_ships_is_whole(call):
    status, out, err = call("data", "polymnist", "--check")
    assert (status, err) == (0, "")
    assert "MNIST train: 60,000 digits" in out and "photo of m4" in out and "SHA-256 as recorded" in out


def test_a_damaged_copy_is_named_file_by_file(call, tmp_path):
    root = tmp_path / "polymnist"
    shutil.copytree(SHIPPED, root)
    labels, photo = root / "mnist" / "t10k-labels-idx1-ubyte.gz", next((root / "backgrounds").glob("m3*"))
    content = bytearray(labels.read_bytes())
    content[len(content) // 2] ^= 1
    labels.write_bytes(content)
    photo.unlink()
    said = call("data", "polymnist", "--root", root, "--check")
    assert_mistake(said, f"{root} is not as it should be", f"{labels} (", "SHA256SUMS says", f"{photo} is missing",
                   "restore it")
    assert said[1] == ""


def check(root=None, *, size: int = 3, names: list[str] | str | None = None, starts: Mapping[str, int] | int = 0,
          share: float | None = None, deep: bool = False, odd: str = ""):
    """What stands behind --check in the tests of --set."""


@pytest.mark.parametrize("setting, value", [
    ("size=64", 64), ("names=Ada", "Ada"), ("names=[Ada, Bo]", ["Ada", "Bo"]), ("names=12", "12"), ("names=null", None),
    ("starts=7", 7), ("starts={Ada: 7, J\u00f6rg 2: 8}", {"Ada": 7, "J\u00f6rg 2": 8}), ("share=1", 1.0),
    ("share=0.5", 0.5), ("deep=true", True), ("odd=a=b", "a=b"), ("odd=1e3", "1e3"), ("odd=[", "["), ("odd=no", "no"),
    ("odd=7", "7"), ("odd=[1, 2]", "[1, 2]"), ("odd=", "")])
def test_an_option_of_a_loader_is_read_as_its_type(setting, value):
    found = options.arguments({"check": check}, [setting])["check"][setting.split("=")[0]]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("setting, words", [
    ("size=big", "size must be an integer, got 'big'"), ("size=true", "size must be an integer"),
    ("size", "name=value"),
    ("deep=1", "deep must be true or false"), ("starts=x", "starts must be a mapping {a: b} or an integer"),
    ("root=x", "--check takes size, names"), ("sise=1", "there is no option 'sise' here: --check takes size, names")])
def test_a_wrong_option_of_a_loader_says_what_there_is(setting, words):
    with pytest.raises(UserError, match=re.escape(words)):
        options.arguments({"check": check}, [setting])


def test_the_command_lists_and_passes_on_the_loaders_options(call, tmp_path):
    status, out, _ = call("data", "hippocampus")
    assert status == 0 and "--set with --check: animals, starts, window, " in out
    assert_mistake(call("data", "hippocampus", "--set", "starts=3"), "add --check, --prepare or --simulate")
    said = call("data", "hippocampus", "--check", "--root", tmp_path, "--set", "size=3")
    assert_mistake(said, "--check takes animals")


def test_a_missing_root_is_named(call, tmp_path):
    assert_mistake(call("data", "polymnist", "--root", tmp_path / "none", "--check"), tmp_path / "none" / "mnist")


# results

def test_results_prints_all_committed_files(call):
    status, out, err = call("results")
    assert (status, err) == (0, "")
    for name in results.available():
        assert f"{name}: {len(results.read(name))} rows\n" in out
    header = out.splitlines()[1].split()
    assert header[:6] == ["profile", "method", "beta", "updates", "seeds", "probe"] and "coherence" in header


def test_results_of_one_metric(call):
    status, out, _ = call("results", "polymnist", "--metric", "reconstruction")
    assert status == 0 and "reconstruction" in out and "probe" not in out


def test_results_of_a_runs_own_file(call, tmp_path):
    row = {"experiment": "polymnist", "method": "mmvm", "beta": 1.0, "seed": 0, "profile": "x", "metric": "probe",
           "source": "", "target": "mean", "value": 0.25, "n_train": 1, "epochs": 1, "updates": 1, "device": "cpu",
           "seconds": 1.0, "torch": "2", "commit": "0", "date": "2026-01-01", "run": "0"}
    results.append([row, {**row, "seed": 1, "run": "1", "value": 0.75}], tmp_path / "own.csv")
    status, out, _ = call("results", tmp_path / "own.csv", "--metric", "probe")
    assert status == 0 and out.splitlines()[-1].split() == ["x", "mmvm", "1", "1", "2", "0.500", "0.354"]
    assert_mistake(call("results", tmp_path / "own.csv"), "has no metric coherence; it has: probe")
    results.append([{**row, "metric": "auroc_label", "source": "a", "target": "u"}], tmp_path / "own.csv")
    assert_mistake(call("results", tmp_path / "own.csv", "--metric", "probe", "--metric", "auroc_label"),
                   "has no average of auroc_label to show: read its rows with mmvm.study.results.read")


def test_results_of_other_settings_are_no_seeds(call, tmp_path):
    row = {"experiment": "polymnist", "method": "mmvm", "beta": 1e-5, "seed": 0, "profile": "x", "metric": "probe",
           "source": "", "target": "mean", "value": 0.25, "n_train": 1, "epochs": 1, "updates": 1, "device": "cpu",
           "seconds": 1.0, "torch": "2", "commit": "0", "date": "2026-01-01", "run": "0", "note": "the profile"}
    results.append([row, {**row, "run": "1", "value": 0.75, "note": "latent_dim=8"}], tmp_path / "own.csv")
    status, out, _ = call("results", tmp_path / "own.csv", "--metric", "probe")
    assert status == 0 and [line.split() for line in out.splitlines()[-2:]] == [
        ["x", "mmvm", "1e-05", "1", "1", "0.250"], ["x", "mmvm", "[latent_dim=8]", "1e-05", "1", "1", "0.750"]]


def test_who_has_read_enough_ends_it_quietly():
    command = f"{shlex.quote(sys.executable)} -m mmvm results polymnist | head -1"
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.startswith("polymnist: ") and not done.stderr


@pytest.mark.parametrize("words, said", [
    (["nothing"], ["there are no results", "nothing.csv: the committed ones are"]),
    (["polymnist", "--metric", "accuracy"], ["polymnist has no metric accuracy; it has: ", "probe"]),
    (["polymnist", "--metric", "probe_curve"], ["has no average of probe_curve to show"]),
])
def test_unknown_results_are_named(words, said, call):
    assert_mistake(call("results", *words), *said)


def test_a_malformed_results_file_is_named(call, tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1\n")
    assert_mistake(call("results", tmp_path / "x.csv"), tmp_path / "x.csv", "line 2")


# papermill

@pytest.mark.slow
def test_papermill_ends_at_an_unknown_parameter(runs, tmp_path):
    import papermill

    cells = [nbformat.v4.new_code_cell(PolyMNIST.cell(), metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("from studies.polymnist.study import PolyMNIST\n"
                                       "p = PolyMNIST.from_notebook(globals())")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "chapter.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter bta; PolyMNIST has: profile, "):
        papermill.execute_notebook(str(tmp_path / "chapter.ipynb"), str(tmp_path / "x.ipynb"),
                                   parameters={"beta": 0.25, "bta": 0.5}, progress_bar=False)


def test_a_name_of_ten_thousand_characters_is_one_line(call, tmp_path):
    said = call("show", tmp_path / ("a/" * 5_000))
    assert_mistake(said, "mmvm: ")
    assert len(said[2]) < 4_000 and said[2].count("\n") == 1


def test_a_pipe_in_place_of_a_profile_is_not_waited_for(call, tmp_path):
    os.mkfifo(tmp_path / "x.yaml")
    assert_mistake(call("train", "polymnist", "--profile", tmp_path / "x.yaml"), "x.yaml is no file")
