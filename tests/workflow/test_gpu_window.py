"""The script for a short time on a GPU, rehearsed: what it leaves, also when it is killed, that a second call goes on
from that alone, and what it refuses."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mmvm.study import results
from tools import gpu_paper

ROOT = Path(__file__).parents[2]
NEEDED = ("mmvm", "studies", "workflow", "tools", "benchmarks", "pyproject.toml", "book/params")


def started(root: Path, *words: str, **environment: str) -> subprocess.Popen:
    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith(("PYTHONPATH", "MMVM_", "OUT"))}
    return subprocess.Popen(["bash", str(root / "tools" / "gpu_window.sh"), *words], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**inherited, "PYTHON": sys.executable, "REHEARSE": "1", **environment})


def call(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    process = started(root, *words, **environment)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def bare(root: Path) -> Path:
    """The project as it comes to a machine: nothing installed, nothing run, no tests and no git."""
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    (root / "data").symlink_to(ROOT / "data")
    return root


def kill_all_in(root: Path) -> None:
    """As a machine that is taken back: whatever works in this folder."""
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.resolve() == root:
                os.kill(int(place.parent.name), signal.SIGKILL)
        except OSError:  # ended meanwhile, or another user's
            pass


@pytest.mark.parametrize("words, said", [((), "how many minutes"), (("soon",), "whole number, got soon"),
                                         (("7", "grid", "papers"), "no part papers: tests, bench, grid, paper")])
def test_what_it_does_not_understand_is_refused_before_anything_runs(words, said, tmp_path):
    done = call(ROOT, *words, OUT=str(tmp_path / "out"))
    assert done.returncode and said in done.stderr
    assert not (tmp_path / "out").exists()


def test_rows_without_a_commit_are_refused_before_they_are_made(tmp_path):
    environment = {"REHEARSE": "", "GIT_DIR": str(tmp_path / "none"), "OUT": str(tmp_path / "out")}
    done = call(ROOT, "7", **environment)
    assert done.returncode == 2 and "rows would name no commit: set MMVM_COMMIT" in done.stderr
    assert not (tmp_path / "out").exists()
    done = call(ROOT, "0", **environment, MMVM_COMMIT="abcdef0123")
    assert done.returncode == 0 and done.stdout.count("no time is left") == 4


def test_what_may_be_left_behind_is_said(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}").touch()
    with open(tmp_path / "large", "wb") as file:
        file.truncate(17 * 2**20)
    done = call(ROOT, "0", OUT=str(tmp_path))  # no time for any part
    assert done.returncode == 0 and done.stdout.count("no time is left") == 4
    assert f"may be left behind: {tmp_path / 'large'}" in done.stdout and "more than eight files" in done.stdout


def test_what_the_project_registers_is_found_without_an_installation(tmp_path):
    (tmp_path / "tools").mkdir()
    for name in ("tools/gpu_window.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert call(tmp_path, "0").returncode == 0
    found, = distributions(path=[str(tmp_path / "runs" / "entry_points")])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (found.metadata["Name"], found.version) == (project["name"], project["version"])
    assert {(point.group, point.name, point.value) for point in found.entry_points} == {
        (group, name, value) for group, points in project["entry-points"].items() for name, value in points.items()}


@pytest.mark.parametrize("room, per_epoch, methods, epochs", [
    (330, 5, 3, 12),      # (330 / 3 - 40) / 5.5 = 12.7
    (285, 5, 3, 10), (284, 5, 3, 0),      # ten at least
    (330, 5, 1, 52),      # what one alone would get
    (100, 5, 3, 0), (-60, 5, 3, 0),       # less than the measures take
    (1e6, 5, 3, 500)])    # no more than the paper's
def test_all_methods_get_the_epochs_that_fit(room, per_epoch, methods, epochs):
    assert gpu_paper.epochs_that_fit(room, per_epoch, methods, most=500) == epochs


def test_epochs_of_rows_that_are_there_are_those_of_their_profile(tmp_path):
    rows = results.read("polymnist")
    one = rows[rows["run"] == rows["run"].iloc[0]]
    table = tmp_path / "table.csv"
    assert gpu_paper.epochs_there(table, "paper-short") == {}
    results.append(pd.concat([one, one.assign(profile="paper-short", epochs=17, method="poe")]), table)
    assert gpu_paper.epochs_there(table, "paper-short") == {"poe": 17}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds what works in a folder by Linux's /proc")
def test_a_second_time_goes_on_from_what_the_first_left_when_it_was_killed(tmp_path):
    first, out = bare(tmp_path / "first"), tmp_path / "out"
    rehearsal = first / "workflow" / "lists" / "rehearsal.yaml"
    runs = yaml.safe_load(rehearsal.read_text())
    runs["runs"][1]["settings"]["epochs"] = 100_000  # not over when the machine is taken back
    rehearsal.write_text(yaml.safe_dump(runs))
    process = started(first, "5", "grid", OUT=str(out))
    try:
        while not (out / "rehearsal.csv").exists():
            assert process.poll() is None, (out / "window.log").read_text()
            time.sleep(0.2)
    finally:
        kill_all_in(first)
        process.communicate()
    assert set(results.read(out / "rehearsal.csv")["method"]) == {"mmvm"}

    second = bare(tmp_path / "second")  # the same project, and of the first time nothing but this:
    (second / "runs").mkdir()
    shutil.copy(out / "rehearsal.csv", second / "runs")
    with tarfile.open(out / "classifiers.tar") as classifiers:
        classifiers.extractall(second / "runs")
    kept = {path: path.stat().st_mtime_ns for path in second.glob("runs/classifiers/*.safetensors")}
    done = call(second, "5", "tests", "grid", OUT=str(tmp_path / "later"))
    log = (tmp_path / "later" / "window.log").read_text()
    assert "tests ended with status 4" in done.stdout, "it has none"
    assert "grid ended with status 0" in done.stdout and "2 runs, 1 done" in log, log
    table = results.read(tmp_path / "later" / "rehearsal.csv")
    assert set(table["method"]) == {"mmvm", "poe"}
    pd.testing.assert_frame_equal(table[table["method"] == "mmvm"], results.read(out / "rehearsal.csv"))
    assert len(kept) == 3 and kept == {path: path.stat().st_mtime_ns
                                       for path in second.glob("runs/classifiers/*.safetensors")}


@pytest.mark.slow
def test_the_papers_networks_get_equally_many_epochs_and_one_that_fails_ends_no_other(tmp_path):
    root, out = bare(tmp_path / "bare"), tmp_path / "out"
    script = root / "tools" / "gpu_paper.py"
    script.write_text(script.read_text().replace("result = run(", 'result = (1 / (method != "mmvm")) and run('))
    done = call(root, "5", "paper", OUT=str(out), MMVM_COMMIT="abcdef0123")
    log = (out / "window.log").read_text()
    assert "paper ended with status 1" in done.stdout and "ZeroDivisionError" in log and "mmvm failed" in log, log
    table = results.read(out / "rehearsal.csv")
    assert set(table["method"]) == {"mvtcae", "poe"} and set(table["epochs"]) == {10}
    assert set(table["profile"]) == {"rehearsal"} and set(table["commit"]) == {"abcdef0123"}

    shutil.copy(ROOT / "tools" / "gpu_paper.py", script)
    done = call(root, "5", "paper", OUT=str(out))
    both = results.read(out / "rehearsal.csv")
    assert "paper ended with status 0" in done.stdout and set(both["method"]) == {"mmvm", "mvtcae", "poe"}
    assert set(both["epochs"]) == {10}

    files = list(out.iterdir())
    assert {file.name for file in files} == {"rehearsal.csv", "benchmarks.csv", "histories.tar.gz", "window.log",
                                             "classifiers.tar", "paper.png"}
    assert max(file.stat().st_size for file in files) < 16 * 2**20
