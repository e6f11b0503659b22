"""MIMIC-CXR's preparation: one image, many images, and what a kill, a full disk or a damaged file leaves behind; the
command line.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mimic_cxr_files import jpeg, path_of, write_tree
from PIL import Image

from mmvm.__main__ import main
from mmvm.errors import UserError
from studies.mimic_cxr import (
    data as mimic_cxr,
    image as mimic_cxr_image,
    prepare as mimic_cxr_prepare,
    store as mimic_cxr_store,
)
from studies.mimic_cxr.index import FILES

SIZE = 16


@pytest.fixture
def copy(tmp_path) -> Path:
    """A tree that a test may damage, not prepared."""
    write_tree(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def metadata(copy) -> pd.DataFrame:
    return pd.read_csv(copy / f"{FILES['metadata']}.gz", dtype={"ViewPosition": str}, keep_default_na=False)


def all_splits(root, **options):
    return [mimic_cxr.load(split, root, size=SIZE, **options) for split in mimic_cxr.SPLITS]


def tree_of(root) -> dict:
    """Every file below `root` with its bytes, locks apart."""
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*"))
            if path.is_file() and path.name != "lock"}


# one image

def test_the_middle_square_is_resized(tmp_path):
    stripes = np.full((40, 120), 0, np.uint8)
    stripes[:, 40:80] = np.linspace(100, 200, 40)[:, None]
    for name, options in (("x.png", {}), ("x.jpg", {"quality": 95})):
        Image.fromarray(stripes).save(tmp_path / name, **options)
        pixels = mimic_cxr_image.read_image(tmp_path / name, 20)
        assert pixels.shape == (20, 20) and pixels.dtype == np.uint8 and (np.diff(pixels[:, 10].astype(int)) > 0).all()
        assert pixels[0, 10] == pytest.approx(102, abs=4) and pixels[-1, 10] == pytest.approx(198, abs=4)


def test_a_fraction_of_the_resolution_gives_the_same_picture(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    smooth = Image.fromarray(draw.integers(0, 255, (12, 10), np.uint8)).resize((1000, 1200), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "x.jpg", quality=95)
    scaled = mimic_cxr_image.read_image(tmp_path / "x.jpg", 64).astype(int)
    monkeypatch.setattr(mimic_cxr_image, "DRAFT", 1_000)
    exact = mimic_cxr_image.read_image(tmp_path / "x.jpg", 64)
    assert np.abs(scaled - exact).max() <= 3 and np.abs(scaled - exact).mean() < 0.5


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "I;16", "LA", "P", "1"])
def test_images_of_any_mode(tmp_path, mode):
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))
    image = Image.fromarray(ramp.astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(ramp).convert(mode)
    image.save(tmp_path / "x.jpg", format="TIFF" if mode == "CMYK" else "PNG")
    pixels = mimic_cxr_image.read_image(tmp_path / "x.jpg", 8).astype(int)
    assert pixels.shape == (8, 8) and pixels[:, 0].mean() < 40 and pixels[:, -1].mean() > 215


def test_equalised_images_have_flat_histograms(tmp_path, copy):
    draw = np.random.default_rng(0)
    dark = Image.fromarray((draw.random((256, 256)) ** 2 * 150 + 9).astype(np.uint8))
    levels = np.asarray(mimic_cxr_image.equalised(dark))
    assert levels.min() == 0 and levels.max() == 255
    assert np.abs(np.quantile(levels, [0.5, 0.75, 0.95]) / 255 - [0.5, 0.75, 0.95]).max() < 0.05
    flat = Image.fromarray(np.full((9, 9), 77, np.uint8))
    assert len(np.unique(np.asarray(mimic_cxr_image.equalised(flat)))) == 1
    plain, equal = (mimic_cxr.load("train", copy, size=SIZE, equalise=equalise) for equalise in (False, True))
    assert plain.ids == equal.ids and not torch.equal(plain.modalities["frontal"][:], equal.modalities["frontal"][:])
    assert {path.name for path in (copy / "prepared").iterdir()} >= {"16", "16-equalised", "key"}


# preparation

def test_a_dry_run_says_what_it_takes_and_writes_nothing(copy, capsys):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    said = "\n".join(mimic_cxr.prepare(copy, size=64, workers=3, dry_run=True))
    assert "22 images are needed (policy all_pairs), 0 of them are ready" in said
    assert "the other 22 take 0.1 MB on the disk" in said and "are free" in said and "nothing was written" in said
    assert "of 12 images that were tried 12 could be read; all will take about" in said and "with 3 workers" in said
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    mimic_cxr.prepare(copy, size=64)
    assert "22 of them are ready" in "\n".join(mimic_cxr.prepare(copy, size=64, dry_run=True))
    assert "28 images are needed (policy missing), 22 of them are ready" in "\n".join(
        mimic_cxr.prepare(copy, size=64, policy="missing", dry_run=True))


def test_a_second_call_finds_nothing_to_do_and_another_policy_adds(copy):
    first = mimic_cxr.prepare(copy, size=SIZE, any_size=True)
    assert "22 of 22 images ready, 14 of 14 rows (policy all_pairs)" in first and "22 images prepared now" in first[-2]
    before = mimic_cxr.load("train", copy, size=SIZE)
    pixels = [x[:].clone() for x in before.modalities.values()]
    assert "no image was added" in mimic_cxr.prepare(copy, size=SIZE, any_size=True)
    more = mimic_cxr.prepare(copy, size=SIZE, any_size=True, policy="missing")
    assert "28 of 28 images ready, 20 of 20 rows (policy missing)" in more and "6 images prepared now" in more[-2]
    after = mimic_cxr.load("train", copy, size=SIZE)
    assert after.ids == before.ids
    assert all(torch.equal(x[:], old) for x, old in zip(after.modalities.values(), pixels))
    assert all(torch.equal(x[:], old) for x, old in zip(before.modalities.values(), pixels)), "mapped before it grew"


def test_the_result_does_not_depend_on_the_number_of_workers(copy, tmp_path):
    trees = []
    for workers in (1, 5):
        root = Path(shutil.copytree(copy, tmp_path / f"with {workers}"))
        (root / "prepared").mkdir()
        (root / "prepared" / "key").write_text("ab" * 32)
        mimic_cxr.prepare(root, size=SIZE, any_size=True, policy="missing", workers=workers)
        trees.append(tree_of(root / "prepared"))
    assert trees[0] == trees[1] and len(trees[0]) == 6


SAY = ("from studies.mimic_cxr import data as mimic_cxr; "
       "print(*mimic_cxr.prepare({!r}, size={}, any_size=True, workers={}), sep='\\n')")


# signals itself once so many images are noted, and hands out no further one before it has heeded that: a signal sent
# from here can come when all is done
SIGNALLED = """
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # which what was started in the background ignores
from studies.mimic_cxr import prepare
note = prepare._Crew._note
def noted(crew, *image):
    note(crew, *image)
    if crew.done == {0}:
        signal.pthread_kill(threading.main_thread().ident, {1})  # a thread that waits: another would not wake it
        while not crew.stop.wait(5):  # one that came just before the thread began to wait has not woken it
            signal.pthread_kill(threading.main_thread().ident, {1})
prepare._Crew._note = noted
"""


def start(root, size=SIZE, workers=1, signalled: tuple[int, int] | None = None) -> subprocess.Popen:
    before = SIGNALLED.format(*map(int, signalled)) if signalled else ""
    return subprocess.Popen([sys.executable, "-c", before + SAY.format(str(root), size, workers)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def done(root) -> int:
    """Images that the tables say are prepared, the black ones apart."""
    found = 0
    for view in ("frontal", "lateral"):     # by name: a pattern would find the half-written tables too
        try:
            rows = np.load(root / "prepared" / str(SIZE) / f"{view}-rows.npy")
        except FileNotFoundError:
            continue
        found += int(mimic_cxr_store.usable(rows["status"]).sum()) - 1
    return found


@pytest.mark.slow
def test_a_killed_preparation_loses_only_what_was_in_work(copy, tmp_path, metadata):
    """SIGKILL, twice; what the tables then say is there is right, and the rest is added."""
    for k, row in enumerate(metadata.itertuples()):
        path_of(copy, row).write_bytes(jpeg(150 + 10 * k, 150, seed=k % 3))
    whole = Path(shutil.copytree(copy, tmp_path / "whole"))
    for now, n in ((4, 4), (8, 12)):
        process = start(copy, signalled=(now, signal.SIGKILL))
        process.communicate()
        assert process.returncode == -signal.SIGKILL and done(copy) == n
    for _ in range(200):    # the worker notices, and ends
        left = [p for p in Path("/proc").glob("[0-9]*") if str(copy) in _command(p)] if Path("/proc").exists() else []
        if not left:
            break
        time.sleep(0.02)
    assert not left
    assert f"{22 - n} images prepared now" in mimic_cxr.prepare(copy, size=SIZE, any_size=True, workers=2)[-2]
    mimic_cxr.prepare(whole, size=SIZE, any_size=True)
    for split in mimic_cxr.SPLITS:
        a, b = (mimic_cxr.load(split, root, size=SIZE) for root in (copy, whole))
        assert all(torch.equal(x[:], y[:]) for x, y in zip(a.modalities.values(), b.modalities.values()))
    assert "all as written" in mimic_cxr.check(copy, full=True)[-1]


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


def test_progress_is_said_in_lines_where_there_is_no_terminal(copy, monkeypatch, capsys):
    monkeypatch.setattr(mimic_cxr_prepare, "SAY_SECONDS", 0)
    monkeypatch.setattr(mimic_cxr_prepare, "SYNC_SECONDS", 0)
    mimic_cxr.prepare(copy, size=SIZE, any_size=True, workers=2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 22 and lines[-1].startswith("22 of 22 images, ") and lines[0].endswith(" left")
    assert "all as written" in mimic_cxr.check(copy, full=True)[-1]


def test_pixels_that_a_power_failure_lost_are_made_again(copy):
    mimic_cxr.prepare(copy, size=SIZE, any_size=True)
    expected = mimic_cxr.load("train", copy, size=SIZE).modalities["frontal"][:].clone()
    store = mimic_cxr_store.Store(copy / "prepared" / str(SIZE), "frontal", SIZE)
    for row in (2, 3):
        store.mark(row, mimic_cxr_store.DONE, store.rows["check"][row])     # as before the next sync
    store.close()
    with open(store.path, "r+b") as file:
        file.seek(mimic_cxr_store.HEADER + 3 * SIZE * SIZE)
        file.write(bytes(SIZE * SIZE))
    assert "1 images prepared now" in mimic_cxr.prepare(copy, size=SIZE, any_size=True)[-2]
    assert torch.equal(mimic_cxr.load("train", copy, size=SIZE).modalities["frontal"][:], expected)


def test_a_kill_before_the_table_of_a_grown_array_costs_nothing(tmp_path, monkeypatch):
    store = mimic_cxr_store.Store(tmp_path, "frontal", 8)
    store.extend(np.array([b"a" * 24, b"b" * 24], "S24"))
    with monkeypatch.context() as context:
        context.setattr(mimic_cxr_store.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mimic_cxr_store.Store(tmp_path, "frontal", 8).extend(np.array([b"c" * 24], "S24"))
    again = mimic_cxr_store.Store(tmp_path, "frontal", 8)
    assert again.pixels().shape == (3, 1, 8, 8), "the black one and the two of the table"
    again.extend(np.array([b"c" * 24, b"d" * 24], "S24"))
    assert mimic_cxr_store.Store(tmp_path, "frontal", 8).pixels().shape == (5, 1, 8, 8)


@pytest.mark.slow
def test_two_preparations_at_once_make_one_result(copy):
    processes = [start(copy, workers=2) for _ in range(2)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all("22 of 22 images ready" in text for text in said)
    assert "all as written" in mimic_cxr.check(copy, full=True)[-1]
    rows = [len(np.load(path)) for path in (copy / "prepared" / str(SIZE)).glob("*-rows.npy")]
    assert sum(rows) == 22 + 2, "one key, so no image has two rows; and a black one for each view"


def test_ctrl_c_stops_after_the_images_in_work(copy):
    process = start(copy, signalled=(3, signal.SIGINT))
    _, err = process.communicate()
    assert process.returncode != 0 and err.rstrip().endswith("KeyboardInterrupt")
    assert done(copy) == 3 and "22 of 22" in mimic_cxr.prepare(copy, size=SIZE, any_size=True)[1]


@pytest.mark.slow
def test_damaged_and_missing_images_are_listed_and_left_out(copy, metadata):
    rows = list(metadata.itertuples())
    cut, gone = path_of(copy, rows[0]), path_of(copy, rows[2])      # a PA of a pair; the AP of "AP, PA, LL"
    good = cut.read_bytes()
    cut.write_bytes(good[:len(good) * 2 // 3])
    gone.unlink()
    said = mimic_cxr.prepare(copy, size=SIZE, any_size=True)
    assert "20 of 22 images ready, 12 of 14 rows (policy all_pairs)" in said
    assert "1 image files missing or not to be opened, 1 damaged" in said[2]
    listed = pd.read_csv(copy / "prepared" / str(SIZE) / "skipped.csv")
    assert sorted(listed["problem"]) == ["damaged", "missing"] and set(listed["view"]) == {"frontal"}
    found = {problem: mimic_cxr.locate(copy, name) for name, problem in zip(listed["name"], listed["problem"])}
    assert found == {"damaged": [cut], "missing": [gone]}
    assert sum(map(len, all_splits(copy))) == 12 and any("1 damaged" in line for line in all_splits(copy)[0].report)
    # a study that lost its only frontal view has one view now
    assert sum(map(len, all_splits(copy, policy="missing"))) == 12 + 6 + 1
    with pytest.raises(UserError, match=r"(?s)1 of 28 image files are missing or empty \(1 frontal, 0 lateral\).*"
                                        r"1 of 27 images that were decoded are damaged"):
        mimic_cxr.check(copy)
    cut.write_bytes(good)       # downloaded again
    assert "21 of 22 images ready" in mimic_cxr.prepare(copy, size=SIZE, any_size=True)[1]
    again = mimic_cxr.prepare(copy, size=SIZE, any_size=True)
    assert "no image was added" in again, "the one that is missing does not count"
    assert sum(map(len, all_splits(copy))) == 13
    assert len(pd.read_csv(copy / "prepared" / str(SIZE) / "skipped.csv")) == 1


@pytest.mark.slow
def test_a_worker_that_dies_over_an_image_costs_that_image_alone(copy, monkeypatch, tmp_path):
    """As when libjpeg crashes; and where workers cannot even start, that is told."""
    source = Path(mimic_cxr_image.__file__).read_text()
    crashing = tmp_path / "crashing.py"
    start = "        status, check = DONE, 0\n"
    crashing.write_text(source.replace(start, f"{start}        if '-b0000002' in path: os._exit(1)\n"))
    monkeypatch.setattr(mimic_cxr_image, "__file__", str(crashing))
    assert "21 of 22 images ready" in mimic_cxr.prepare(copy, size=SIZE, any_size=True, workers=2)[1]
    crashing.write_text(source.replace(start, f"{start}        os._exit(1)\n"))
    with pytest.raises(UserError, match="20 worker processes of the preparation ended one after the other"):
        mimic_cxr.prepare(copy, size=SIZE + 1, any_size=True, workers=2)
    crashing.write_text("import sys; sys.exit(3)")
    with pytest.raises(UserError, match="a worker process of the preparation ends at once .status 3"):
        mimic_cxr.prepare(copy, size=SIZE, any_size=True)


def test_a_disk_that_is_too_small_or_fills_up_is_told(copy, monkeypatch, tmp_path):
    usage = shutil.disk_usage(copy)
    monkeypatch.setattr(mimic_cxr_prepare.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(UserError, match="22 images take 0.0 MB, 0.0 MB are free, .* make room, or choose a smaller"):
        mimic_cxr.prepare(copy, size=SIZE, any_size=True)
    assert ": not enough" in "\n".join(mimic_cxr.prepare(copy, size=SIZE, any_size=True, dry_run=True))
    monkeypatch.undo()
    full = tmp_path / "full.py"
    write = "                if os.pwrite"
    full.write_text(Path(mimic_cxr_image.__file__).read_text().replace(
        write, f"                if row == 5: raise OSError(28, 'x')\n{write}"))
    monkeypatch.setattr(mimic_cxr_image, "__file__", str(full))
    with pytest.raises(UserError, match="the disk is full or cannot be written; nothing is lost"):
        mimic_cxr.prepare(copy, size=SIZE, any_size=True, workers=2)
    monkeypatch.undo()
    assert "22 of 22" in mimic_cxr.prepare(copy, size=SIZE, any_size=True)[1]


def test_cut_arrays_and_keys_are_refused(copy):
    mimic_cxr.prepare(copy, size=SIZE, any_size=True)
    with open(copy / "prepared" / str(SIZE) / "lateral.npy", "r+b") as file:
        file.truncate(1_000)
    for call in (lambda: mimic_cxr.load("train", copy, size=SIZE),
                 lambda: mimic_cxr.prepare(copy, size=SIZE, any_size=True)):
        with pytest.raises(UserError, match="lateral.npy and lateral-rows.npy do not belong together or are cut"):
            call()
    (copy / "prepared" / "key").write_text("")
    with pytest.raises(UserError, match="key holds no key of 64 digits"):
        mimic_cxr.load("train", copy, size=SIZE)


def test_pixels_that_changed_are_found_by_the_full_check(copy):
    mimic_cxr.prepare(copy, size=SIZE, any_size=True)
    with open(copy / "prepared" / str(SIZE) / "frontal.npy", "r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x01\x02\x03")
    assert "22 images" in mimic_cxr.check(copy)[-1]
    with pytest.raises(UserError, match="the pixels of 1 images are not what was written: delete the folder"):
        mimic_cxr.check(copy, full=True)


def test_a_folder_without_write_access_is_prepared_elsewhere(copy, monkeypatch, tmp_path):
    monkeypatch.setenv("MMVM_RUNS", str(tmp_path / "runs"))
    access = os.access
    monkeypatch.setattr(mimic_cxr_store.os, "access", lambda path, mode: Path(path) != copy and access(path, mode))
    (tmp_path / "runs").mkdir()
    data = mimic_cxr.load("train", copy, size=SIZE)
    assert not (copy / "prepared").exists() and list((tmp_path / "runs" / "cache").glob(f"*/{SIZE}/frontal.npy"))
    assert mimic_cxr.locate(copy, data.ids[0])[0].is_file()


def test_load_prepares_few_images_and_asks_for_the_command_with_many(copy, monkeypatch):
    monkeypatch.setattr(mimic_cxr, "UNASKED", 21)
    with pytest.raises(UserError, match=r"22 images of .* are not prepared for size=16, equalise=True. Run `python -m "
                                        r"mmvm data mimic-cxr --root .* --prepare --size 16 --equalise "
                                        r"--set any_size=true` once; the "
                                        r"other 22 take 0.0 MB on the disk, .* about"):
        mimic_cxr.load("train", copy, size=SIZE, equalise=True)
    with pytest.raises(UserError, match="--prepare --size 16 --policy missing --set any_size=true` once"):
        mimic_cxr.load("train", copy, size=SIZE, policy="missing")
    assert not (copy / "prepared").exists()
    (copy / "STAND-IN.txt").write_text("simulated")
    assert len(mimic_cxr.load("train", copy, size=SIZE))
    with pytest.raises(UserError, match="names no image of"):
        mimic_cxr.locate(copy, "0" * 24)
    with pytest.raises(UserError, match="names no image of"):
        mimic_cxr.locate(copy, "-+-")


# the command line

def test_the_command_prepares_and_checks(copy, capsys):
    root = str(copy)
    assert main(["data", "mimic-cxr"]) == 0
    assert "Files, as PhysioNet has them" in capsys.readouterr().out
    sixteen = ["--prepare", "--size", "16", "--set", "any_size=true"]
    assert main(["data", "mimic-cxr", "--root", root, *sixteen, "--workers", "2", "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out and not (copy / "prepared").exists()
    words = ["data", "mimic-cxr", "--root", root, *sixteen, "--equalise", "--policy", "missing"]
    assert main([*words, "--check", "--full"]) == 0
    said = capsys.readouterr().out
    assert "28 of 28 images ready, 20 of 20 rows (policy missing)" in said
    assert "prepared 16-equalised: 28 images" in said
    assert "policy all_pairs: 14 rows of 22 images" in said and "no subject in two" in said
    assert "MIMIC-CXR-JPG has 377,110 and 227,827, so this is a part of it" in said


@pytest.mark.parametrize("words, message", [
    (["polymnist", "--prepare"], "polymnist needs no preparation: its loader reads the files"),
    (["mimic-cxr", "--size", "64"], "--size belongs to --prepare: add that, or leave it out"),
    (["mimic-cxr", "--dry-run", "--check"], "--dry-run belongs to --prepare"),
    (["mimic-cxr", "--prepare", "--full"], "--full belongs to --check"),
    (["polymnist", "--check", "--full"], "polymnist has no --full for --check: leave it out"),
    (["mimic-cxr", "--prepare", "--policy", "x"], "policy must be one of 'all_pairs', 'one_pair', 'missing', got 'x'"),
    (["mimic-cxr", "--prepare", "--root", "nowhere"], "nowhere holds no mimic-cxr-2.0.0-metadata.csv, plain or .gz. "
                                                      "Write the stand-in with `python -m mmvm data mimic-cxr"),
])
def test_mistakes_in_the_command_are_one_sentence(words, message, capsys):
    assert main(["data", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("mmvm: ") and message in err and "Traceback" not in err


def test_a_key_that_is_no_file_is_not_waited_for(copy):
    mimic_cxr.prepare(copy, size=SIZE, any_size=True, workers=1)
    (copy / "prepared" / "key").unlink()
    os.mkfifo(copy / "prepared" / "key")
    with pytest.raises(UserError, match="key holds no key of 64 digits: delete the folder"):
        mimic_cxr.load("train", copy, size=SIZE)
