"""What has to hold of new-study, in seconds: python -m pytest tests"""

import math
import re
from pathlib import Path

import pytest
import torch

from mmvm import UserError
from mmvm.study import STUDIES, run
from newstudy import data
from newstudy.study import NewStudy

CHAPTER = Path(__file__).resolve().parents[1] / "chapter.md"
CELLS = re.findall(r"^```\{code-cell\}.*?\n(?:---\n.*?^---\n|:tags:.*?\n)?(.*?)^```$", CHAPTER.read_text(),
                   re.MULTILINE | re.DOTALL)


def test_it_is_installed_and_its_profiles_are_read():
    assert STUDIES["new-study"] is NewStudy
    assert all(NewStudy.from_profile(name) for name in ("smoke", *NewStudy.profiles()))


def test_files_hold_what_is_loaded(tmp_path):
    data.simulate(str(tmp_path))
    assert any("modalities" in line for line in data.check(str(tmp_path)))
    drawn, read = data.load("test"), data.load("test", str(tmp_path))
    for name in data.NAMES:
        torch.testing.assert_close(drawn.modalities[name], read.modalities[name], equal_nan=True)
    assert torch.equal(drawn.labels, read.labels) and not set(read.ids) & set(data.load("train", str(tmp_path)).ids)
    (tmp_path / "second.csv").unlink()
    with pytest.raises(UserError, match="second.csv is missing"):
        data.load("train", str(tmp_path))


def test_no_group_is_on_two_sides():
    p = NewStudy(n_validation=60)
    sides = [set(data.groups(p.data(split).ids)) for split in ("train", "validation", "test")]
    assert all(sides) and len(set.union(*sides)) == sum(map(len, sides))


def test_a_short_run_has_rows_of_all_that_is_measured(tmp_path):
    result = run(NewStudy(epochs=2, out=str(tmp_path)))
    averages = {row["metric"]: row["value"] for row in result.rows if row["source"] == ""}
    assert {"probe", "reconstruction", "imputation_rmse", "ridge_rmse"} <= set(averages)
    assert all(math.isfinite(value) for value in averages.values())


def test_the_chapter_has_the_studys_parameters_and_runs(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert CELLS[0].strip() == NewStudy.cell()
    namespace = {}
    for cell in [CELLS[0].replace("epochs: int = 20 ", "epochs: int = 10 "), *CELLS[1:]]:
        exec(cell, namespace)
