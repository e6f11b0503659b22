"""What README.md tells people to type: the quick commands are run, the long ones are run up to where they get long."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmvm.__main__ import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCE.findall((ROOT / "README.md").read_text())
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [text for language, text in BLOCKS if language == "bash"]
COMMANDS = [command for text in SHELL for line in text.splitlines() if line and not line.startswith("#")
            for command in line.split(" && ")]


def call(arguments: list[str], cwd: Path = ROOT) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_blocks_are_of_known_kinds():
    assert PYTHON and SHELL
    assert {language for language, _ in BLOCKS} <= {"python", "bash", "text", "bibtex"}


@pytest.mark.parametrize("text", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(text, tmp_path):
    (tmp_path / "snippet.py").write_text(text)
    call([sys.executable, "snippet.py"], cwd=tmp_path)


@pytest.mark.parametrize("text", SHELL, ids=range(len(SHELL)))
def test_shell_parses(text):
    call(["bash", "-n", "-c", text])


def mmvm(*words: str) -> None:
    """`python -m mmvm` without another process, whose imports take seconds; tests/mmvm/test_cli.py starts some."""
    assert main(list(words)) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, tmp_path):
    words = shlex.split(command, comments=True)
    match words:
        case ["make", *arguments]:
            call(["make", "--dry-run", *arguments])
        case ["python", "-m", "mmvm", "train" | "queue" as name, *arguments]:
            mmvm(name, *arguments, "--dry-run")
        case ["python", "-m", "mmvm", *arguments]:
            mmvm(*arguments)
        case ["torchrun", "--nproc-per-node", _, "-m", "mmvm", "train", *arguments]:
            mmvm("train", *arguments, "--dry-run")  # test_distributed starts several
        case ["python", "-m", "benchmarks", *arguments]:
            call([sys.executable, "-m", "benchmarks", *arguments, "--help"])
        case ["papermill", chapter, output, *arguments]:
            assert (ROOT / output).parent.is_dir(), "papermill makes no folders"
            said = call([sys.executable, "-m", "papermill", chapter, str(tmp_path / "x.ipynb"), *arguments,
                         "--prepare-only"])
            assert "unknown parameter" not in said, said
        case ["snakemake", *arguments]:
            call([sys.executable, "-m", "snakemake", *arguments, "--dry-run"])
        case ["conda", "env", "create", "-f", file]:
            assert (ROOT / file).is_file()
        case ["git", "clone", *_] | ["cd", _] | ["conda", "activate", _]:
            pass
        case _:
            pytest.fail(f"this test does not know how to check `{command}`")


def test_links_to_files_exist():
    for target in re.findall(r"\]\(([^):]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
