"""`python -m mmvm new-study` writes a package that installs beside the project, trains and passes its own tests."""

import os
import subprocess
import sys

import pytest

from mmvm.__main__ import main
from mmvm.paths import REPOSITORY
from mmvm.study import results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The folder of a new study, installed into its `site`; and a function that runs Python there."""
    folder = tmp_path_factory.mktemp("lab")
    assert main(["new-study", "lab-tables", "--into", str(folder)]) == 0
    folder = folder / "lab-tables"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
                    "--no-index", "--disable-pip-version-check", "--target", folder / "site", folder], check=True)
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{REPOSITORY}"}

    def python(*words):
        found = subprocess.run([sys.executable, *map(str, words)], cwd=folder, env=environment, capture_output=True,
                               text=True)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout
    return folder, python


def test_it_writes_all_that_a_study_has_and_no_word_of_the_template(lab):
    folder, _ = lab
    files = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {"pyproject.toml", "README.md", "chapter.md", "tests/test_lab_tables.py", "lab_tables/data.py",
            "lab_tables/networks.py", "lab_tables/study.py", "lab_tables/figures.py",
            "lab_tables/params/laptop.yaml"} <= files
    for path in [folder / "pyproject.toml", folder / "README.md", folder / "chapter.md",
                 *(folder / "lab_tables").rglob("*.py"), *(folder / "tests").rglob("*.py")]:
        assert not [word for word in ("newstudy", "new-study", "NewStudy", "New study") if word in path.read_text()]


def test_it_is_listed_reads_files_and_trains_from_the_command_line(lab, monkeypatch, capsys):
    folder, python = lab
    monkeypatch.syspath_prepend(folder / "site")
    assert main(["studies"]) == 0
    assert main(["data", "lab-tables", "--simulate", "--check", "--root", str(folder / "tables")]) == 0
    told = capsys.readouterr().out
    assert "lab-tables     Lab tables: two tables of the same samples. [lab_tables.study]" in told
    assert "test: 100 samples of 2 modalities (50 groups)" in told
    python("-m", "mmvm", "train", "lab-tables", "--profile", "laptop", "--set", f"root={folder / 'tables'}", "--set",
           "epochs=2", "--out", folder / "run")
    rows = results.read(folder / "run" / "results.csv")
    assert set(rows["experiment"]) == {"lab-tables"} and set(rows["profile"]) == {"laptop"}
    assert {"probe", "imputation_rmse", "ridge_rmse", "validation_probe"} <= set(rows["metric"])
    assert rows["value"].notna().all()


def test_its_own_tests_pass(lab):
    folder, python = lab
    assert "5 passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", folder / "tests")


@pytest.mark.parametrize("name, words", [
    ("My_Study", "cannot be a study's name"), ("class", "cannot be a study's name"), ("2photon", "cannot be a study's"),
    ("polymnist", "a study 'polymnist' is installed already"), ("json", "Python has a module 'json' already"),
    ("there", "is there already: choose another name"), ("two--hyphens", "cannot be a study's name")])
def test_names_that_are_taken_or_no_names_are_one_line(name, words, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert main(["new-study", name, "--into", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("mmvm: ") and words in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
