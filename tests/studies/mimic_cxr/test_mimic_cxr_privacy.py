"""Nothing of single patients gets out: a tree with recognisable ids, damaged in many ways, goes through everything, and
what was printed, raised, warned of, logged or written outside the images and csv files is searched for the ids."""

import gzip
import io
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mimic_cxr_files import edit, jpeg, path_of, write_tree
from PIL import Image
from safetensors.torch import load_file

from mmvm.__main__ import main
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM
from mmvm.training.loop import fit
from studies.mimic_cxr import data as mimic_cxr, prepare as mimic_cxr_prepare, store as mimic_cxr_store
from studies.mimic_cxr.index import FILES, read_index

pytestmark = pytest.mark.slow

SIZE = 16
# every way to spoil an image file that we could think of
DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-400]),
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text(f"<html>404: {path.name} not found</html>"),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "loop": lambda path: (path.unlink(), path.symlink_to(path)),
    "no study folder": lambda path: (shutil.rmtree(path.parent), path.parent.write_text("a file")),
    "huge": lambda path: path.write_bytes(huge_png()),
    "header alone": lambda path: path.write_bytes(path.read_bytes()[:24]),
    "noise": lambda path: path.write_bytes(path.read_bytes()[:300] + np.random.default_rng(0).bytes(900)),
    "comment": lambda path: path.write_bytes(jpeg(60, 60, comment=f"patient {path.stem}".encode())),
    "other format": lambda path: Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path, "GIF"),
    "pipe": lambda path: (path.unlink(), path.symlink_to("/dev/null")),
}

ANY_SIZE = ("--set", "any_size=true")     # networks of this test's own, so to say


def huge_png() -> bytes:
    """A PNG of which the header promises 60,000 x 60,000 pixels."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    raw = bytearray(file.getvalue())
    raw[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    return bytes(raw)


class Watch:
    """Runs calls and keeps everything that comes out of them."""

    def __init__(self, metadata: pd.DataFrame, capfd, caplog):
        self.capfd, self.caplog, self.said = capfd, caplog, []
        numbers = {*metadata["subject_id"].tolist(), *metadata["study_id"].tolist()}
        # a dicom id counts from its second group on: groups alone may occur by chance
        self.texts = [str(number) for number in numbers] + [dicom[:17] for dicom in metadata["dicom_id"]]
        self.bytes = [*(text.encode() for text in self.texts), *(struct.pack("<q", number) for number in numbers),
                      *(struct.pack("<i", number) for number in numbers)]

    def call(self, function, *arguments, **options):
        """The result, or the exception, of a call; all it says is kept."""
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                result = function(*arguments, **options)
        except BaseException as error:
            result = error
            self._keep_chain(error)
        self.said += [str(warning.message) for warning in warned]
        self.said += [*self.capfd.readouterr(), self.caplog.text, repr(result), str(result)]
        if isinstance(result, mimic_cxr.ChestXrays):
            self.said += [*result.ids, *result.report]
        return result

    def _keep_chain(self, error):
        """Also what `raise ... from None` only hides: text, arguments and file names of every exception behind it."""
        seen, queue = set(), [error]
        while queue:
            error = queue.pop()
            if error is None or id(error) in seen:
                continue
            seen.add(id(error))
            self.said += [*traceback.format_exception(type(error), error, error.__traceback__, chain=True), str(error),
                          repr(error), repr(error.args), repr(vars(error)), str(getattr(error, "filename", ""))]
            queue += [error.__cause__, error.__context__]

    def search(self, *folders: Path, but: Path) -> list[str]:
        """Everything that was said, and every file in the folders that is no image or csv file of `but`."""
        found = [text for text in self.said if any(name in text for name in self.texts)]
        for folder in folders:
            for path in folder.rglob("*"):
                inside = path.relative_to(but) if path.is_relative_to(but) else None
                if inside is not None and (inside.parts[:1] == ("files",) or inside.name.removesuffix(".gz")
                                           in FILES.values()):
                    continue
                found += [f"path {path}"] if any(name in str(path.relative_to(folder)) for name in self.texts) else []
                if path.is_file():
                    content = weightless(path) if path.suffix == ".safetensors" else path.read_bytes()
                    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
                    found += [f"content of {path}"] if any(name in content for name in self.bytes) else []
        return found


def weightless(path: Path) -> bytes:
    """A safetensors file with its fractions written as whole numbers: four bytes of a weight may look like an id."""
    content = path.read_bytes()
    header = content[:8 + struct.unpack("<Q", content[:8])[0]]
    return header + b"".join(value.detach().long().numpy().tobytes() for value in load_file(path).values())


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Root and metadata of a set large enough for every damage to hit another subject."""
    monkeypatch.setenv("MMVM_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    root = tmp_path / "data"
    metadata = write_tree(root, ((("PA", "LATERAL", "AP"),), (("AP", "LL"), ("PA",))) * 10)
    return root, metadata


@pytest.fixture
def watch(tree, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    return Watch(tree[1], capfd, caplog)


def everything(watch: Watch, root: Path) -> None:
    """Every call there is, in this process and on the command line."""
    for policy in mimic_cxr.POLICIES:
        watch.call(mimic_cxr.prepare, root, size=SIZE, any_size=True, policy=policy, dry_run=True)
        for split in mimic_cxr.SPLITS:
            for split_by in mimic_cxr.SPLITS_BY:
                data = watch.call(mimic_cxr.load, split, root, size=SIZE, policy=policy, split_by=split_by)
                if isinstance(data, mimic_cxr.ChestXrays):
                    watch.call(data.subset, slice(0, 2))
    watch.call(mimic_cxr.prepare, root, size=SIZE, any_size=True, workers=2, equalise=True)
    for full in (False, True):
        watch.call(mimic_cxr.check, root, full=full)
    watch.call(mimic_cxr.locate, root, "0" * 24)
    watch.call(read_index, root)
    for words in (["--check"], ["--check", "--full"], ["--prepare", "--size", "24"], ["--prepare", "--dry-run"],
                  ["--prepare", "--size", "24", "--policy", "missing", "--check"]):
        watch.call(main, ["data", "mimic-cxr", "--root", str(root), *words])


def test_the_search_finds_what_it_should(watch, tree):
    root, metadata = tree
    row = next(metadata.itertuples())

    def leaky():
        try:
            open(path_of(root, row) / "x")
        except OSError:
            raise ValueError("hidden") from None
    watch.call(leaky)
    assert watch.search(but=root)
    watch.said.clear()
    (root / "notes.npy").write_bytes(struct.pack("<q", row.subject_id))
    (root / "zipped.gz").write_bytes(gzip.compress(row.dicom_id.encode()))
    assert len(watch.search(root, but=root)) == 2


def test_damaged_images_are_counted_and_never_named(watch, tree, tmp_path):
    root, metadata = tree
    damaged = metadata[metadata["ViewPosition"].isin(["PA", "LL"])].drop_duplicates("subject_id")
    for row, damage in zip(damaged.itertuples(), DAMAGES.values()):
        damage(path_of(root, row))
    everything(watch, root)
    listed = pd.read_csv(root / "prepared" / str(SIZE) / "skipped.csv")
    assert len(listed) >= len(DAMAGES) - 2 and set(listed["problem"]) == {"missing", "damaged"}
    assert any("damaged" in text for text in watch.said) and any("files are missing" in text for text in watch.said)
    assert watch.search(tmp_path, but=root) == []


def test_an_id_is_not_in_what_a_whole_set_leaves_behind(watch, tree, tmp_path):
    root, _ = tree
    everything(watch, root)
    data = watch.call(mimic_cxr.load, "train", root, size=SIZE, policy="missing")
    model = MultimodalVAE(data.specs, [MLPEncoder(s.shape, 2, (8,)) for s in data.specs],
                          [MLPDecoder(s.shape, 2, (8,)) for s in data.specs], MMVM())
    watch.call(fit, model, data, epochs=1, batch_size=4, device="cpu", out=tmp_path / "runs" / "run")
    data.observed[:, 1] = False
    watch.call(data.subset, slice(None))      # complains of a sample, by its hash
    assert any("has no observed modality" in text for text in watch.said)
    assert watch.search(tmp_path, but=root) == []
    assert all(re.fullmatch(r"([0-9a-f]{24}|-)\+([0-9a-f]{24}|-)", name) for name in data.ids)


CSV_DAMAGES = {
    "a subject that is no number": ("metadata", ",19999991,", ",19999991x,"),
    "a subject with a fraction": ("metadata", ",19999992,", ",19999992.5,"),
    "a subject without end": ("metadata", ",19999993,", ",1999999319999993199999931999999319999993,"),
    "a study that is empty": ("metadata", ",59999903,", ",,"),
    "a study of two subjects": ("metadata", "19999992,59999902", "19999991,59999902"),
    "one dicom twice": ("metadata", "-00000001-feedface-b", "-00000000-feedface-a"),
    "a dicom with a slash": ("metadata", "d1c09901-0badc0de", "d1c09901-0badc0de/../19999991"),
    "a line too long": ("metadata", ",19999991,", ",19999991,59999901,19999991,1,2,3,4,5,6,"),
    "an open quote": ("metadata", "d1c09904", '"d1c09904'),
    "a label that is no number": ("chexpert", "59999901,", "59999901,59999901 is positive"),
    "a label of 2": ("chexpert", "59999901,", "59999901,2"),
    "labels of another subject": ("chexpert", "19999991,59999901", "19999992,59999901"),
    "labels twice": ("chexpert", "59999902,", "59999901,"),
    "a split that is none": ("split", ",train", ",19999991"),
    "a split of another study": ("split", ",59999901,", ",59999902,"),
    "a split of two": ("split", ",19999992,train", ",19999992,test"),
    "no column": ("metadata", "subject_id", "19999991"),
    "two columns of a name": ("chexpert", "Edema", "subject_id"),
}


@pytest.mark.parametrize("damage", CSV_DAMAGES)
def test_wrong_csv_files_are_never_quoted(damage, watch, tree, tmp_path):
    root, _ = tree
    name, old, new = CSV_DAMAGES[damage]
    assert old in gzip.decompress((root / f"{FILES[name]}.gz").read_bytes()).decode()
    edit(root, name, lambda text: text.replace(old, new, 1))
    for split_by in mimic_cxr.SPLITS_BY:
        watch.call(mimic_cxr.load, "train", root, size=SIZE, split_by=split_by)
    watch.call(mimic_cxr.check, root)
    watch.call(main, ["data", "mimic-cxr", "--root", str(root), "--prepare", "--size", str(SIZE), "--check"])
    assert watch.search(tmp_path, but=root) == []


@pytest.mark.parametrize("damage", [lambda raw: raw[:-30], lambda raw: raw[:60] + b"\0\0\0" + raw[63:],
                                    lambda raw: gzip.compress(gzip.decompress(raw) + b"\xff\xfe19999991"),
                                    lambda raw: gzip.decompress(raw)], ids=["cut", "damaged", "bytes", "not zipped"])
def test_files_that_cannot_be_read_are_never_quoted(damage, watch, tree, tmp_path):
    root, _ = tree
    for name in FILES:
        path = root / f"{FILES[name]}.gz"
        good = path.read_bytes()
        path.write_bytes(damage(good))
        watch.call(mimic_cxr.load, "train", root, size=SIZE, split_by="official")
        watch.call(mimic_cxr.check, root)
        path.write_bytes(good)
    assert watch.search(tmp_path, but=root) == []


def test_failures_of_the_disk_and_of_workers_name_no_image(watch, tree, tmp_path, monkeypatch):
    root, metadata = tree
    source = Path(mimic_cxr_prepare.mimic_cxr_image.__file__).read_text()
    spoilt = tmp_path / "spoilt.py"
    monkeypatch.setattr(mimic_cxr_prepare, "DEATHS", 4)
    monkeypatch.setattr(mimic_cxr_prepare.mimic_cxr_image, "__file__", str(spoilt))
    for instead in ("raise OSError(28, 'full', path)", "os._exit(1)", "raise KeyError(path)", "print(path); continue",
                    "raise SystemExit(path)"):
        spoilt.write_text(source.replace("        status, check = DONE, 0\n", f"        {instead}\n"))
        watch.call(mimic_cxr.prepare, root, size=SIZE, any_size=True, workers=2)
        watch.call(main, ["data", "mimic-cxr", "--root", str(root), "--prepare", "--size", str(SIZE), *ANY_SIZE])
    monkeypatch.undo()

    def fails(self, row, status, check):
        raise OSError(28, "No space left on device", str(self.rows_path))
    monkeypatch.setattr(mimic_cxr_store.Store, "mark", fails)
    shutil.rmtree(root / "prepared", ignore_errors=True)
    watch.call(mimic_cxr.prepare, root, size=SIZE, any_size=True)
    watch.call(main, ["data", "mimic-cxr", "--root", str(root), "--prepare", "--size", str(SIZE), *ANY_SIZE])
    assert watch.search(tmp_path, but=root) == []


def test_other_users_see_no_path_in_the_list_of_processes(watch, tree, monkeypatch):
    root, _ = tree
    commands, popen = [], subprocess.Popen

    def recording(command, **options):
        commands.append([str(word) for word in command] + [str(options.get("env"))])
        return popen(command, **options)
    monkeypatch.setattr(mimic_cxr_prepare.subprocess, "Popen", recording)
    watch.call(mimic_cxr.prepare, root, size=SIZE, any_size=True, workers=2)
    assert len(commands) == 2
    assert not any(name in word for command in commands for word in command for name in watch.texts)


def test_a_process_of_its_own_prints_nothing_of_a_patient(watch, tree, tmp_path):
    """The real command, with what Python itself writes at its end."""
    root, metadata = tree
    for row, damage in zip(metadata[::4].itertuples(), DAMAGES.values()):
        damage(path_of(root, row))
    for words in (["--prepare", "--size", "16", "--check", "--full"], ["--check"]):
        command = [sys.executable, "-X", "dev", "-m", "mmvm", "data", "mimic-cxr", "--root", str(root), *words]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 2 and "mmvm: " in done.stderr
        watch.said += [done.stdout, done.stderr]
    assert watch.search(tmp_path, but=root) == []


def test_hashes_need_the_key(tree, tmp_path):
    """Two copies of the same data give other names, so a published list of dicom ids does not help."""
    root, metadata = tree
    other = Path(shutil.copytree(root, tmp_path / "other"))
    a, b = (mimic_cxr.load("train", folder, size=SIZE) for folder in (root, other))
    assert not set(a.ids) & set(b.ids) and torch.equal(a.modalities["frontal"][:], b.modalities["frontal"][:])
    assert mimic_cxr.locate(root, a.ids[0])[0].stem == mimic_cxr.locate(other, b.ids[0])[0].stem
    key = (root / "prepared" / "key").read_text()
    assert re.fullmatch("[0-9a-f]{64}", key) and key != (other / "prepared" / "key").read_text()
    assert mimic_cxr.load("train", root, size=24).ids == a.ids, "one key for all sizes"
    assert (root / "prepared" / ".gitignore").read_text() == "*\n"


def test_only_arrays_hashes_and_the_key_are_kept(tree):
    root, _ = tree
    mimic_cxr.prepare(root, size=SIZE, any_size=True)
    kept = {str(path.relative_to(root / "prepared")) for path in (root / "prepared").rglob("*") if path.is_file()}
    assert kept == {".gitignore", "key", *(f"{SIZE}/{name}" for name in (
        "frontal.npy", "frontal-rows.npy", "lateral.npy", "lateral-rows.npy", "skipped.csv", "lock"))}
