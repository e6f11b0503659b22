"""The page `status`: lines of runs, what chapters say of their time, versions."""

import re
import subprocess

import pytest

from mmvm import paths
from mmvm.study import results
from studies.pages import status

ROOT = paths.REPOSITORY


def test_every_committed_row_is_counted_once():
    board = status.runs()
    tables = [results.read(name) for name in results.available()]
    assert board["rows"].sum() == sum(map(len, tables))
    trained = [table[table["method"] != "untrained"] for table in tables]
    assert board["runs"].sum() == sum(len(table.groupby(["profile", "run"])) for table in trained)
    assert (board["hours"] * 60 >= board["minutes"] * board["runs"] / 2 - 1e-9).all()
    assert board["hours"].is_monotonic_decreasing and (board["first"] <= board["last"]).all()


def test_chapters_are_named_with_the_rows_that_they_read():
    assert set(results.available()) <= set(status.SHOWN), "a results file that the page does not know"
    for path in (ROOT / status.TEXTS).glob("*.md"):
        for name in re.findall(r'results\.(?:read|validated)\("([\w-]+)"\)', path.read_text(encoding="utf-8")):
            assert path.stem in status.SHOWN[name], f"{path.stem} reads {name}"
            if f'validated("{name}")' in path.read_text(encoding="utf-8"):
                assert path.stem in status.SHOWN["validation"]
    assert {name for names in status.SHOWN.values() for name in names} <= {
        path.stem for path in (ROOT / "book").glob("*.ipynb")}


def test_rows_that_are_committed_say_how_they_were_made():
    tracked = subprocess.run(["git", "ls-files", "data/results/*.csv"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in tracked.split():
        assert (ROOT / name).with_suffix(".md").is_file(), name


def test_rows_of_a_users_own_are_lines_too(tmp_path, monkeypatch):
    (tmp_path / "lonely.csv").write_bytes((paths.results_root() / "errata.csv").read_bytes())
    monkeypatch.setattr(paths, "results_root", lambda: tmp_path)
    assert status.runs()["file"].tolist() == ["lonely"] and "none yet" in status.table(status.runs()).to_string()


@pytest.mark.parametrize(("text", "said"), [
    ("**Runtime and memory** of the live run: about a minute on 2 cores,\nunder 2 GB. **Data:** birds",
     "about a minute on 2 cores, under 2 GB"),
    ("**Runtime and memory:** seconds, under 1 GB. **Data:** none.", "seconds, under 1 GB"),
    ("**Runtime and memory:** 1.5 minutes, about 1 GB.\n\n**Data:** none", "1.5 minutes, about 1 GB"),
    ("nothing is said", "")])
def test_what_a_chapter_says_of_its_time(tmp_path, text, said):
    (tmp_path / status.TEXTS).mkdir(parents=True)
    (tmp_path / status.TEXTS / "x.md").write_text(text)
    assert status.runtime("x", tmp_path) == said


def test_every_chapter_that_runs_something_says_how_long_it_takes():
    silent = {path.stem for path in (ROOT / status.TEXTS).glob("*.md") if not status.runtime(path.stem)}
    assert silent <= {"intro", "scoreboard"}  # pages of committed rows
    assert set(status.chapters()["live part"].str.len() < 120) == {True}


def test_versions_are_those_of_the_lock():
    versions = status.versions().set_index("package")["version"]
    lock = (ROOT / "requirements.lock").read_text()
    assert all(f"\n{name}=={version}" in "\n" + lock for name, version in versions.items())


def test_the_figure_has_a_bar_for_every_line():
    board = status.runs().head(3)
    fig = status.hours(board)
    assert len(fig.axes[0].patches) == 3
    assert [text.get_text() for text in fig.axes[0].texts] == [f"{n:,}" for n in board["runs"]]
