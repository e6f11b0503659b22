"""The script for a short time on a GPU, rehearsed: what it leaves, that a second call goes on, what it refuses."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("mmvm", "studies", "workflow", "tools", "benchmarks", "pyproject.toml", "README.md",
          "book/params")


def call(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith(("PYTHONPATH", "MMVM_", "OUT"))}
    return subprocess.run(["bash", str(root / "tools" / "gpu_window.sh"), *words], capture_output=True, text=True,
                          env={**inherited, "PYTHON": sys.executable, "REHEARSE": "1", **environment})


@pytest.mark.parametrize("words, said", [((), "how many minutes"), (("soon",), "whole number, got soon"),
                                         (("7", "grid", "papers"), "no part papers: tests, bench, grid, paper")])
def test_what_it_does_not_understand_is_refused_before_anything_runs(words, said, tmp_path):
    done = call(ROOT, *words, OUT=str(tmp_path / "out"))
    assert done.returncode and said in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_may_be_left_behind_is_said(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}").touch()
    with open(tmp_path / "large", "wb") as file:
        file.truncate(17 * 2**20)
    done = call(ROOT, "0", OUT=str(tmp_path))  # no time for any part
    assert done.returncode == 0 and done.stdout.count("no time is left") == 4
    assert f"may be left behind: {tmp_path / 'large'}" in done.stdout and "more than eight files" in done.stdout


@pytest.mark.slow
def test_two_windows_leave_what_one_would(tmp_path):
    root, out = tmp_path / "bare", tmp_path / "out"
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, root / name)
    (root / "data").symlink_to(ROOT / "data")

    first = call(root, "5", "grid", OUT=str(out))
    assert first.returncode == 0 and "grid ended with status 0" in first.stdout, first.stdout + first.stderr
    table = pd.read_csv(out / "rehearsal.csv")
    assert set(table["method"]) == {"mmvm", "poe"} and set(table["profile"]) == {"smoke"}

    second = call(root, "5", "grid", "paper", OUT=str(out), MMVM_COMMIT="abcdef0123")
    assert second.stdout.count("ended with status 0") == 2, (out / "window.log").read_text()
    both = pd.read_csv(out / "rehearsal.csv")
    paper = both[both["profile"] == "rehearsal"]
    assert set(paper["method"]) == {"mmvm", "mvtcae", "poe"} and set(paper["commit"].astype(str)) == {"abcdef0123"}
    # the first window's runs were not made again
    kept = both[both["profile"] == "smoke"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, table, check_dtype=False)

    files = list(out.iterdir())
    assert len(files) <= 8 and max(file.stat().st_size for file in files) < 16 * 2**20
    assert {"rehearsal.csv", "histories.tar.gz", "window.log", "mmvm.png", "mvtcae.png", "poe.png"} <= {
        file.name for file in files}
    with tarfile.open(out / "histories.tar.gz") as histories:
        assert sum(name.endswith("history.jsonl") for name in histories.getnames()) >= 2
