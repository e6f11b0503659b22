"""The grid of workflow/: a small one is really run, in a copy of the project that the tests may edit."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmvm.errors import UserError
from mmvm.study import results
from mmvm.study.registry import STUDIES
from workflow import grid

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "workflow" / "config.yaml").read_text())
MICRO = {"profile": "micro", "n_modalities": 2, "n_train": 200, "n_test": 100, "n_probe": 100,
         "network": "conv:channels=4", "latent_dim": 4, "batch_size": 50, "epochs": 1, "classifier_epochs": 1,
         "device": "cpu"}
GRID = {"profile": "micro", "grids": {"polymnist": {"micro": [{"settings": {"objective": "independent"},
                                                               "betas": [0.5, 1], "seeds": [0]}]}}}


def snakemake(folder: Path, runs: Path, *arguments: str, status: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MMVM_RUNS": str(runs), "MMVM_DATA": str(ROOT / "data"),
                   "XDG_CACHE_HOME": str(runs / "cache")}
    environment.pop("SNAKEMAKE_PROFILE", None)
    done = subprocess.run([sys.executable, "-m", "snakemake", *arguments], cwd=folder, capture_output=True, text=True,
                          env=environment)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def jobs(said: str) -> dict[str, int]:
    """Per rule, how many jobs were run, or would be."""
    rules = re.findall(r"^(?:local)?rule (\w+):", said, re.MULTILINE)
    return {rule: rules.count(rule) for rule in rules if rule != "all"}


class Copy:
    """The code, texts and grid of the project in a folder of their own, which has been run once."""

    def __init__(self, folder: Path):
        self.root, self.runs = folder / "project", folder / "runs"
        for part in ("mmvm", "studies", "workflow", "book/params"):
            shutil.copytree(ROOT / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "book" / "polymnist.ipynb", self.root / "book")
        (self.root / "book" / "params" / "polymnist-micro.yaml").write_text(yaml.safe_dump(MICRO))
        (self.root / "micro.yaml").write_text(yaml.safe_dump(GRID))
        self.table = self.root / "data" / "results" / "polymnist.csv"
        self.first = self.grid()

    def grid(self, *arguments: str, **keywords) -> str:
        return snakemake(self.root, self.runs, "--cores", "1", "--configfile", "micro.yaml", *arguments, **keywords)

    def folder(self, beta: str) -> Path:
        return self.runs / "grid" / "polymnist" / "micro" / f"independent-b{beta}-s0"

    def edit(self, path: str, before: str, after: str) -> None:
        text = (self.root / path).read_text()
        assert before in text
        (self.root / path).write_text(text.replace(before, after, 1))


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    return Copy(tmp_path_factory.mktemp("grid"))


def _config(**grids) -> dict:
    return {"study": "polymnist", "profile": next(iter(grids)), "grids": {"polymnist": grids}}


# really run ----------------------------------------------------------------------------------------------------------

def test_every_run_is_made_and_collected(copy):
    assert jobs(copy.first) == {"train": 2, "collect": 1}
    table = results.read(copy.table)
    assert set(table["beta"]) == {0.5, 1.0} and set(table["method"]) == {"independent"}
    assert len(table) == sum(len(results.read(copy.folder(beta) / "results.csv")) for beta in ("0.5", "1"))


def test_prose_figures_and_new_times_rerun_nothing(copy):
    copy.edit("mmvm/gaussian.py", "import math", "import math  # of the standard library")
    copy.edit("mmvm/model.py", '"""', '"""Told in other words. ')
    copy.edit("mmvm/study/figures.py", "import numpy as np", "import numpy as np\n\nOTHER_COLOUR = 'red'")
    copy.edit("book/params/polymnist-micro.yaml", "epochs: 1", "epochs: 1  # one pass")
    notebook = copy.root / "book" / "polymnist.ipynb"
    text = json.loads(notebook.read_text())
    next(cell for cell in text["cells"] if cell["cell_type"] == "markdown")["source"] = "Other prose."
    notebook.write_text(json.dumps(text))
    for path in copy.root.rglob("*"):
        path.touch()
    assert "Nothing to be done" in copy.grid("--dry-run")


def test_code_that_a_run_uses_reruns_it(copy):
    copy.edit("mmvm/evaluation/errors.py", "import math", "import math\nOTHER = 1")
    said = copy.grid("--dry-run")
    assert jobs(said) == {"train": 2, "collect": 1}
    assert "code " in said and "'weights " not in said  # measured again, not trained again
    copy.edit("mmvm/evaluation/errors.py", "import math\nOTHER = 1", "import math")


def test_files_that_the_digests_leave_out_are_there():
    """A renamed file would count again, or another of its old name not at all."""
    names = {path.stem for folder in ("mmvm", "studies") for path in Path(grid.paths.REPOSITORY, folder).rglob("*")}
    assert grid.IN_NO_RUN | grid.EVALUATION <= names


def test_notes_of_the_table_stay(tmp_path):
    """tools/note_settings.py adds to them after the rows were collected."""
    there = results.read("errata_birds").head(3)
    results.append(there, tmp_path / "run.csv")
    results.append(there.assign(note="its settings"), tmp_path / "table.csv")
    assert not grid.lacks(tmp_path / "table.csv", [tmp_path / "run.csv"])
    grid.collect([str(tmp_path / "run.csv")], tmp_path / "table.csv")
    assert set(results.read(tmp_path / "table.csv")["note"]) == {"its settings"}
    results.append(there.assign(value=[0.5, *there["value"][1:]]), tmp_path / "run.csv")
    grid.collect([str(tmp_path / "run.csv")], tmp_path / "table.csv")
    assert len(results.read(tmp_path / "table.csv")) == 3, "a metric of which one number is new is collected as a whole"
    results.append(there.assign(value=0.5), tmp_path / "run.csv")
    assert grid.lacks(tmp_path / "table.csv", [tmp_path / "run.csv"])


def test_code_of_another_study_reruns_nothing(copy):
    copy.edit("studies/cub/study.py", "import typing", "import typing\nOTHER = 1")
    assert "Nothing to be done" in copy.grid("--dry-run")
    assert grid.code_digest("cub") != grid.code_digest("polymnist")


def test_a_missing_output_is_the_only_one_made_again(copy):
    weights, text = copy.folder("1") / "checkpoint.safetensors", copy.table.read_text()
    before = weights.stat().st_mtime_ns
    copy.table.write_text("".join(text.splitlines(keepends=True)[:5]))  # an older version, just checked out
    assert jobs(copy.grid("--dry-run")) == {"collect": 1}
    (copy.folder("1") / "results.csv").unlink()
    assert jobs(copy.grid()) == {"train": 1, "collect": 1}
    assert weights.stat().st_mtime_ns == before, "the checkpoint was kept, and was complete"
    assert len(copy.table.read_text().splitlines()) == len(text.splitlines())


def test_weights_of_other_code_are_not_continued(copy):
    note, results_file = copy.folder("0.5") / "trained_with", copy.folder("0.5") / "results.csv"
    written = note.read_text()
    note.write_text("weights of other code\n")
    (copy.folder("0.5") / "checkpoint.safetensors").write_text("cannot be read")
    results_file.unlink()
    assert jobs(copy.grid()) == {"train": 1, "collect": 1}
    assert note.read_text() == written and results_file.exists()


# only planned --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("target, arguments", [("chapter", ["--cores", "2", "chapters"]),
                                               ("collect", ["--profile", "workflow/profiles/slurm"])])
def test_the_committed_grid_is_planned(tmp_path, target, arguments):
    n = len(grid.runs(CONFIG))
    planned = jobs(snakemake(ROOT, tmp_path, *arguments, "--dry-run"))
    planned.pop("chapters", None)
    assert planned == {"train": n, target: n if target == "chapter" else 1}


def test_a_list_is_planned_each_run_with_its_own_table_and_chapter(tmp_path):
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"study": "polymnist", "profile": "smoke", "runs": [
        {"betas": [1, 2], "seeds": [0]}, {"betas": [1], "seeds": [0], "study": "cub", "profile": "laptop"}]}))
    words = ["--cores", "2", "--dry-run", "--config", f"list={tmp_path / 'two.yaml'}"]
    said = snakemake(ROOT, tmp_path, *words)
    assert jobs(said) == {"train": 3, "collect": 1} and f"{tmp_path}/grid/lists/two/collected" in said
    said = snakemake(ROOT, tmp_path, words[0], words[1], "chapters", *words[2:])
    assert jobs(said) == {"train": 3, "chapter": 3, "chapters": 1}
    assert {"book/polymnist.ipynb", "book/cub.ipynb"} <= set(re.split(r"[\s,]+", said))
    found = grid.runs({"list": str(tmp_path / "two.yaml")})
    assert {table.name: len(files) for table, files in grid.by_table(found).items()} == {"polymnist.csv": 2,
                                                                                        "cub.csv": 1}


def test_a_missing_list_fails_before_any_job(tmp_path):
    assert "there is no list" in snakemake(ROOT, tmp_path, "--cores", "1", "--config", "list=none.yaml", status=1)


def test_every_committed_grid_names_runs():
    assert set(CONFIG["grids"]) == set(STUDIES)
    for study, profiles in CONFIG["grids"].items():
        for profile in profiles:
            for folder, run in grid.runs({**CONFIG, "study": study, "profile": profile}).items():
                assert run.parameters.out == folder and run.parameters.profile == Path(folder).parent.name
                assert run.parameters.name == study == Path(folder).parent.parent.name


def test_a_broken_setting_fails_before_any_job(tmp_path):
    broken = {"grids": {"polymnist": {"laptop": [{"settings": {"objektive": "mmvm"}, "betas": [1], "seeds": [0]}]}}}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    said = snakemake(ROOT, tmp_path, "--cores", "1", "--configfile", str(tmp_path / "broken.yaml"), status=1)
    assert "grid polymnist, laptop, entry 1: unknown parameter objektive; PolyMNIST has: profile, objective" in said
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize("entry, sentence", [
    ({"settings": {"objective": "nope"}, "betas": [1], "seeds": [0]},
     "unknown objective 'nope': there are mmvm, independent"),
    ({"settings": {"beta": 1}, "betas": [1], "seeds": [0]}, "it comes from betas"),
    ({"betas": 1, "seeds": [0]}, "betas must be a list, got 1"),
    ({"beta": [1], "seeds": [0]}, "unknown key beta; an entry has: settings, betas, seeds"),
    ({"betas": ["many"], "seeds": [0]}, "beta must be a number, got 'many'"),
])
def test_every_mistake_in_the_grid_has_a_sentence(entry, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        grid.runs(_config(smoke=[entry]))


def test_a_study_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="there is no study 'mnist'; there are: cub, hippocampus"):
        grid.runs({**CONFIG, "study": "mnist"})


def test_a_profile_without_grid_is_named():
    with pytest.raises(UserError, match="no grid of polymnist for profile 'smoke'; there are: laptop"):
        grid.runs({**CONFIG, "profile": "smoke"})


def test_folders_tell_runs_apart():
    def folders(*settings: dict) -> list[str]:
        entries = [{"settings": values, "betas": [0.25], "seeds": [3]} for values in settings]
        return [Path(folder).name for folder in grid.runs(_config(smoke=entries))]
    assert folders({}, {"objective": "mmvm"}) == ["mmvm-b0.25-s3"], "one run, named twice"
    assert folders({"objective": "mmvm:bound=variational"}) == ["mmvm-bound=variational-b0.25-s3"]
    assert folders({"latent_dim": 8, "backgrounds": "a/b"}) == ["mmvm-latent_dim=8-backgrounds=a-b-b0.25-s3"]
    assert folders({"compare": False}) == ["mmvm-b0.25-s3"], "of the chapter alone"
    with pytest.raises(UserError, match="already belongs to a run with other settings"):
        folders({"backgrounds": "a/b"}, {"backgrounds": "a-b"})


def test_commands_name_the_same_parameters():
    entry = {"settings": {"objective": "independent:square_beta=true"}, "betas": [0.5], "seeds": [0]}
    run, = grid.runs(_config(laptop=[entry])).values()
    words = run.train_arguments()
    assert words.startswith("polymnist --profile laptop --set objective=independent:square_beta=true "
                            "--set beta=0.5 --set seed=0 --out ")
    words = run.papermill_arguments()
    assert "-r objective independent:square_beta=true" in words and "-p beta 0.5" in words
    assert "-p seed" not in words, "a default is left out"


def test_a_table_lacks_no_row_because_of_a_younger_column(tmp_path):
    row = {**{name: "x" for name in results.COLUMNS}, **{name: 1 for name in results.NUMBERS}, "data": ""}
    table, file = tmp_path / "table.csv", tmp_path / "run.csv"
    results.append([row, {**row, "run": "y", "data": "3f2a91bc04"}], table)
    older = [name for name in results.COLUMNS if name != "data"]
    file.write_text(",".join(older) + "\n" + ",".join(str(row[name]) for name in older) + "\n")
    assert not grid.lacks(table, [file, tmp_path / "absent.csv"])
    file.write_text(file.read_text().replace(",x", ",z", 1))
    assert grid.lacks(table, [file]) and grid.lacks(tmp_path / "absent.csv", [file])
