"""A short part of the attacks, and that they find what they look for: readers that are not careful are caught."""

import gzip
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from attacks import disturbances, harness, kills
from attacks.damage import Escape, damage
from attacks.targets import TARGETS, Target

SLOW = {"mimic-cxr": 2, "cub": 4, "hippocampus": 6}  # cases; of the others a dozen


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVM_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_refused_or_read_right(name):
    faults = []
    cases = SLOW.get(name, 12)
    found = harness.run(name, cases, 10_000, faults)
    assert not faults and sum(found[outcome] for outcome in harness.OUTCOMES) == cases


@pytest.mark.parametrize("work", ["fit", "collect"])
def test_a_killed_writer_goes_on_to_the_same_result(work):
    faults = []
    assert kills.run(work, 1, 10_000, faults)[harness.RIGHT] == 1, faults


@pytest.mark.parametrize("name", disturbances.KINDS)
def test_a_disturbed_writer_says_so_or_ends_right(name):
    faults = []
    found = disturbances.run(name, 6 if name == "10,000 characters" else 1, 10_000, faults, works=("collect",))
    assert not faults and set(found) <= {harness.RIGHT, harness.REFUSED}


# careless readers, as they are written every day

def make(folder: Path) -> None:
    np.save(folder / "x.npy", np.arange(12.0).reshape(3, 4))


def unpickling(folder: Path):
    try:
        return np.load(folder / "x.npy", allow_pickle=True).tolist()
    except Exception:
        raise harness.UserError("it cannot be read") from None


def unbounded(folder: Path):
    return len(gzip.decompress((folder / "x.npy").read_bytes()))


def _when_damaged(act):
    """A reader that acts so at every reading but the first, which is of a sound folder."""
    calls = []

    def read(folder: Path):
        calls.append(folder)
        return act() if len(calls) > 1 else "sound"
    return read


def _raise(sentence: str):
    raise harness.UserError(sentence)


CARELESS = {
    "a wrong value": (Target(make, lambda folder: np.load(folder / "x.npy").tolist(), vouched=True), 18,
                      "a changed file was read"),
    "an error of a library": (Target(make, lambda folder: np.load(folder / "x.npy").tolist()), 6, "ValueError"),
    "a secret": (Target(make, _when_damaged(lambda: _raise("of patient 7")), secrets=(b"patient 7",)), 1,
                 "a secret in the message"),
    "a file left behind": (Target(make, lambda folder: (folder / "new").write_text("x")), 1, "files changed"),
    "its own death": (Target(make, _when_damaged(lambda: os._exit(3))), 1, "died"),
}


@pytest.mark.parametrize("what", CARELESS)
def test_the_harness_catches(what, monkeypatch):
    target, cases, outcome = CARELESS[what]
    monkeypatch.setitem(TARGETS, what, target)
    assert harness.run(what, cases)[outcome] >= 1


def test_the_page_says_the_bounds_that_hold():
    page = (Path(__file__).resolve().parents[2] / "book" / "text" / "trust.md").read_text()
    assert f'glue("seconds", {harness.SECONDS}, ' in page and f'glue("megabytes", {harness.MEMORY // 2**20}, ' in page


def test_damage_is_the_same_for_the_same_seed(tmp_path):
    said = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make(tmp_path / name)
        said.append((damage(tmp_path / name, 5), {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}))
    assert said[0] == said[1]


def test_no_pickle_is_opened(tmp_path):
    """In place of each file of each reader that takes a moment: nothing of it may run."""
    bomb = pickle.dumps(Escape(str(tmp_path / "escaped")))
    with pytest.raises(FileExistsError):
        pickle.loads(pickle.dumps(Escape(str(tmp_path))))  # it would leave its mark
    for number, name in enumerate(("hippocampus", "checkpoint", "kept model", "history", "rows", "cache", "list",
                                   "profile", "polymnist")):
        folder = tmp_path / str(number)
        folder.mkdir()
        TARGETS[name].make(folder)
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            before = path.read_bytes()
            for content in (bomb, gzip.compress(bomb), _as_array(bomb)):
                path.write_bytes(content)
                try:
                    TARGETS[name].read(folder)
                except harness.UserError as error:
                    assert "\n" not in str(error)
            if path.exists():
                path.write_bytes(before)
    assert not (tmp_path / "escaped").exists()


def _as_array(bomb: bytes) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return content.getvalue() + bomb


def test_rows_of_the_table_are_counts_that_add_up():
    from attacks.__main__ import COLUMNS, TABLE
    lines = [line.split(",") for line in TABLE.read_text().splitlines()]
    assert lines[0] == list(COLUMNS) and len(lines) > 1
    known = {*TARGETS, *kills.WORKS, *(json.dumps(name).strip('"') for name in disturbances.KINDS)}
    for cells in (dict(zip(COLUMNS, line)) for line in lines[1:] if len(line) == len(COLUMNS)):
        parts = [int(cells[name]) for name in ("right", "other", "refused", "faults")]
        assert sum(parts) == int(cells["cases"]) > 0 and cells["target"] in known
