"""MIMIC-CXR's files: csv lists, pairs, splits, labels, and rows that are mapped into memory."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mimic_cxr_files import (
    COLUMNS,
    N_PAIRS,
    N_STUDIES,
    N_STUDIES_WITH_BOTH,
    STUDIES,
    edit,
    write_tree,
)

from mmvm.data import MultimodalData, Repeated
from mmvm.errors import UserError
from mmvm.likelihoods import Laplace
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM
from mmvm.training.batches import announce
from mmvm.training.loop import fit
from studies.mimic_cxr import data as mimic_cxr, image as mimic_cxr_image, store as mimic_cxr_store
from studies.mimic_cxr.index import FILES, LABELS, default_root, pairs, read_index, split_of

SIZE = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mimic") / "files of ours"
    write_tree(root)
    mimic_cxr.prepare(root, size=SIZE, any_size=True, policy="missing", workers=2)
    return root


@pytest.fixture
def copy(files, tmp_path) -> Path:
    """The tree in a folder that a test may damage, not prepared."""
    return Path(shutil.copytree(files, tmp_path / "copy", ignore=shutil.ignore_patterns("prepared")))


@pytest.fixture(scope="module")
def metadata(files) -> pd.DataFrame:
    return pd.read_csv(files / f"{FILES['metadata']}.gz", dtype={"ViewPosition": str}, keep_default_na=False)


def all_splits(root, **options):
    return [mimic_cxr.load(split, root, size=SIZE, **options) for split in mimic_cxr.SPLITS]


# rows

def test_rows_of_every_policy_are_those_of_a_plain_loop(files, metadata):
    """A loop over studies, as one would write it by hand."""
    expected = {"all_pairs": [], "one_pair": [], "missing": []}
    for _, study in metadata.groupby(["subject_id", "study_id"]):
        study = study.sort_values("dicom_id")
        frontal = study["dicom_id"][study["ViewPosition"].isin(["AP", "PA"])].tolist()
        lateral = study["dicom_id"][study["ViewPosition"].isin(["LATERAL", "LL"])].tolist()
        both = [(a, b) for a in frontal for b in lateral]
        expected["all_pairs"] += both
        expected["one_pair"] += both[:1]
        expected["missing"] += both or [(a, None) for a in frontal] or [(None, b) for b in lateral]
    index = read_index(files)
    names = [*(dicom.decode() for dicom in index.dicoms), None]
    for policy, rows in expected.items():
        found = pairs(index, np.ones(len(index.dicoms), bool), policy)
        assert [(names[a], names[b]) for a, b in found] == rows, policy
    assert len(expected["all_pairs"]) == N_PAIRS and len(expected["one_pair"]) == N_STUDIES_WITH_BOTH
    assert index.counts["studies"] == N_STUDIES


@pytest.mark.slow
@pytest.mark.parametrize("policy", mimic_cxr.POLICIES)
def test_a_row_holds_the_images_it_names(files, policy):
    seen = 0
    for data in all_splits(files, policy=policy):
        batch = data.batch(torch.arange(len(data)))
        for i, name in enumerate(data.ids):
            paths = iter(mimic_cxr.locate(files, name))
            for m, part in enumerate(name.split("+")):
                assert data.observed[m, i] == (part != "-")
                pixels = mimic_cxr_image.read_image(next(paths), SIZE) if part != "-" else np.zeros((SIZE, SIZE))
                assert np.array_equal(batch.x[m][i, 0].numpy(), pixels)
        seen += len(data)
        assert data.observed.all() == (policy != "missing") or len(data) < 3
    assert seen == {"all_pairs": N_PAIRS, "one_pair": N_STUDIES_WITH_BOTH, "missing": N_PAIRS + 6}[policy]


def test_what_describes_the_rows(files):
    data = mimic_cxr.load("train", files, size=SIZE)
    assert isinstance(data, MultimodalData) and data.names == ["frontal", "lateral"]
    for spec in data.specs:
        assert spec.shape == (1, SIZE, SIZE) and spec.likelihood == Laplace(0.75) and spec.scale == 1 / 255
    assert data.modalities["frontal"].dtype == torch.uint8 and isinstance(data.modalities["frontal"], Repeated)
    assert data.labels.shape == (len(data), 14) and data.labels.dtype == torch.float32 and data.label_names == LABELS
    assert data.subject.dtype == torch.int64 and not data.standin and repr(data).startswith("ChestXrays(")
    assert any("2 of other or unknown views left out" in line for line in data.report)
    (files / "STAND-IN.txt").write_text("simulated")
    try:
        assert mimic_cxr.load("train", files, size=SIZE).standin
        assert "simulated, not MIMIC-CXR" in mimic_cxr.check(files)[0]
    finally:
        (files / "STAND-IN.txt").unlink()


# splits

@pytest.mark.parametrize("split_by", mimic_cxr.SPLITS_BY)
@pytest.mark.parametrize("policy", mimic_cxr.POLICIES)
def test_no_subject_is_in_two_splits(files, split_by, policy):
    parts = [set(data.subject.tolist()) for data in all_splits(files, split_by=split_by, policy=policy)]
    assert all(parts) and sum(map(len, parts)) == len(set.union(*parts))


def test_a_subject_keeps_its_split_under_every_policy_and_another_seed_draws_another(files):
    index = read_index(files)
    split, how = split_of(index, "subject", 0)
    assert np.bincount([split[index.subject == s][0] for s in range(10)]).tolist() == [8, 1, 1] and "seed 0" in how
    assert len({tuple(split_of(index, "subject", seed)[0]) for seed in range(5)}) > 1
    for policy in ("one_pair", "missing"):
        for name, all_pairs, other in zip(mimic_cxr.SPLITS, all_splits(files), all_splits(files, policy=policy)):
            known = set(all_pairs.subject.tolist())
            assert known <= set(other.subject.tolist()), name


def test_the_official_split_is_the_files(files, metadata):
    split = pd.read_csv(files / f"{FILES['split']}.gz").set_index("dicom_id")["split"]
    for name, data in zip(mimic_cxr.SPLITS, all_splits(files, split_by="official")):
        stems = {path.stem for row in data.ids for path in mimic_cxr.locate(files, row)}
        assert set(split[list(stems)]) == {name}
        assert data.report[1] == "split: mimic-cxr-2.0.0-split.csv"


def test_an_official_split_that_tears_a_subject_apart_is_refused(copy):
    table = pd.read_csv(copy / f"{FILES['split']}.gz")
    table.loc[table["subject_id"].duplicated(), "split"] = "test"
    table.to_csv(copy / f"{FILES['split']}.gz", index=False)
    with pytest.raises(UserError, match="puts . subjects into more than one split: .* use split_by='subject'"):
        mimic_cxr.load("train", copy, split_by="official", size=SIZE)


# labels

@pytest.mark.slow
@pytest.mark.parametrize("uncertain, value", [("zero", 0.0), ("one", 1.0), ("ignore", np.nan)])
def test_labels_of_1_are_1_and_empty_ones_0(files, metadata, uncertain, value):
    table = pd.read_csv(files / f"{FILES['chexpert']}.gz").set_index("study_id")[list(LABELS)]
    study = metadata.set_index("dicom_id")["study_id"]
    assert (table == -1).any(axis=None) and table.isna().any(axis=None)
    for data in all_splits(files, uncertain=uncertain, policy="missing"):
        for name, labels in zip(data.ids, data.labels.numpy()):
            raw = table.loc[study[mimic_cxr.locate(files, name)[0].stem]].to_numpy()
            assert np.array_equal(labels, np.where(raw == -1, value, np.where(raw == 1, 1.0, 0.0)), equal_nan=True)


def test_studies_without_labels_are_counted_and_left_out(copy, metadata):
    last = str(metadata["study_id"].max())
    edit(copy, "chexpert", lambda text: "".join(line for line in text.splitlines(True) if last not in line))
    data = mimic_cxr.load("train", copy, size=SIZE)
    assert "1 studies without a row of labels skipped (2 images)" in data.report
    assert sum(map(len, all_splits(copy))) == N_PAIRS - 1


# csv files

def test_plain_files_are_read_like_zipped_ones(tmp_path, files):
    write_tree(tmp_path / "mimic-cxr-jpg", zipped=False)
    a, b = read_index(files), read_index(tmp_path / "mimic-cxr-jpg")
    for name in ("dicoms", "subject", "study", "lateral"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert np.array_equal(a.labels, b.labels, equal_nan=True) and a.counts == b.counts
    assert len(mimic_cxr.load("train", tmp_path / "mimic-cxr-jpg", split_by="official", size=SIZE))


def test_the_folder_that_wget_makes_is_found(tmp_path, monkeypatch):
    write_tree(tmp_path / "mimic_cxr" / "physionet.org" / "files" / "mimic-cxr-jpg" / "2.1.0", STUDIES[:4])
    monkeypatch.setenv("MMVM_DATA", str(tmp_path))
    assert default_root() == tmp_path / "mimic_cxr" and len(mimic_cxr.load("train", size=SIZE)) > 0


def test_without_official_files_the_largest_stand_in_is_the_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVM_DATA", str(tmp_path))
    assert default_root() == tmp_path / "mimic_cxr"
    for name in ("standin-20-0", "standin-100-1", "standin-100-0", "standin-300"):
        write_tree(tmp_path / "mimic_cxr" / name, STUDIES[:1], image=False)
    assert default_root().name == "standin-100-0"


@pytest.mark.parametrize("name, old, new, message", [
    ("metadata", "ViewPosition", "View", "has no column ViewPosition: correct the file, if it is your own; if"),
    ("metadata", ",19999991,", ",1999991,", "1 rows have no number of eight digits under subject_id"),
    ("metadata", ",59999901,", ",x,", "2 rows have no number of eight digits under study_id"),
    ("metadata", ",59999901,", ",,", "2 rows have no number of eight digits under study_id"),
    ("metadata", "d1c09901-0badc0de-00000001-feedface-b0000000", "d1c09901-0badc0de-00000000-feedface-a0000000",
     "1 rows repeat a dicom_id"),
    ("metadata", "d1c09901-0badc0de-00000001-feedface-b0000000", "../../etc/x", "1 rows have no usable dicom_id"),
    ("metadata", ",59999902,", ",59999901,", "1 studies belong to more than one subject"),
    ("chexpert", "Edema", "edema", "has no column Edema"),
    ("chexpert", "19999991,59999901,", "19999991,59999901,0.5,", "cannot be read|something else than 1, 0, -1"),
    ("chexpert", "19999992,59999902,", "19999992,59999903,", "1 rows repeat a study_id"),
    ("chexpert", "19999992,59999902,", "19999993,59999902,", "1 rows name another subject than mimic-cxr-2.0.0-meta"),
    ("split", ",train", ",trian", "rows have no split out of train, validate, test"),
    ("split", "d1c09901-0badc0de-00000000-feedface-a0000000", "other", "1 images of mimic-cxr-2.0.0-metadata.csv have"),
    ("split", ",59999901,", ",59999902,", "2 rows disagree with mimic-cxr-2.0.0-metadata.csv on study or subject"),
])
def test_wrong_lists_are_named_and_counted_but_never_quoted(copy, name, old, new, message):
    count = 1 if message.startswith("1 rows have no number") else -1
    edit(copy, name, lambda text: text.replace(old, new, count))
    with pytest.raises(UserError, match=message) as raised:
        mimic_cxr.load("train", copy, split_by="official", size=SIZE)
    assert FILES[name] in str(raised.value) and "MIMIC-CXR-JPG 2.1.0, https://physionet.org" in str(raised.value)
    assert "1999999" not in str(raised.value) and "d1c0" not in str(raised.value)


def test_a_label_that_is_no_label_is_refused(copy):
    table = pd.read_csv(copy / f"{FILES['chexpert']}.gz").astype({"Edema": object})
    table.loc[2, "Edema"] = "yes"
    table.to_csv(copy / f"{FILES['chexpert']}.gz", index=False)
    with pytest.raises(UserError, match="1 rows have something else than 1, 0, -1 or nothing under Edema"):
        mimic_cxr.load("train", copy, size=SIZE)
    table.assign(Edema=0.5).to_csv(copy / f"{FILES['chexpert']}.gz", index=False)
    with pytest.raises(UserError, match=f"{N_STUDIES} rows have something else"):
        mimic_cxr.load("train", copy, size=SIZE)


@pytest.mark.parametrize("damage", [
    lambda raw: raw[:len(raw) // 2], lambda raw: b"no csv", lambda raw: gzip.compress(b"\xff\xfe,subject_id\n\x80,1"),
    lambda raw: gzip.compress(b""), lambda raw: raw[:40] + b"\x00\x01\x02" + raw[43:]])
def test_damaged_csv_files_are_named(copy, damage):
    path = copy / f"{FILES['metadata']}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path.name} (cannot be read|has no column|: .* rows)"):
        mimic_cxr.load("train", copy, size=SIZE)


@pytest.mark.parametrize("name, options", [("metadata", {}), ("chexpert", {}), ("split", {"split_by": "official"})])
def test_absent_csv_files_are_named_with_their_source(copy, name, options):
    (copy / f"{FILES[name]}.gz").unlink()
    with pytest.raises(UserError, match=f"{FILES[name]}.*https://physionet.org/content/mimic-cxr-jpg/2.1.0"):
        mimic_cxr.load("train", copy, size=SIZE, **options)
    if name == "split":
        assert len(mimic_cxr.load("train", copy, size=SIZE))


def test_options_that_do_not_exist(files):
    for name, value in (("split", "val"), ("policy", "pairs"), ("split_by", "x"), ("uncertain", "x")):
        with pytest.raises(UserError, match=f"^{name} must be one of"):
            mimic_cxr.load(**{"split": "train", "root": files, "size": SIZE, name: value})
    for size in (0, 7, 4096, 64.0, "64"):
        with pytest.raises(UserError, match="size must be a whole number of pixels from 8 to 2048"):
            mimic_cxr.load("train", files, size=size)
    with pytest.raises(UserError, match="workers must be at least 1"):
        mimic_cxr.prepare(files, workers=0)


def test_sets_that_are_too_small_are_told(tmp_path):
    write_tree(tmp_path / "two", STUDIES[:2])
    with pytest.raises(UserError, match="has 2 subjects .* three splits need three"):
        mimic_cxr.load("train", tmp_path / "two", size=SIZE)
    write_tree(tmp_path / "one view", ((("AP",),),) * 5)
    with pytest.raises(UserError, match="has no study with both views: use policy='missing'"):
        mimic_cxr.load("train", tmp_path / "one view", size=SIZE)
    data = mimic_cxr.load("train", tmp_path / "one view", policy="missing", size=SIZE)
    assert data.observed.tolist() == [[True] * 3, [False] * 3] and not data.modalities["lateral"][:].any()
    write_tree(tmp_path / "three", STUDIES[:1] + ((("AP",),),) * 2)
    messages = []
    for split in mimic_cxr.SPLITS:
        try:
            mimic_cxr.load(split, tmp_path / "three", size=SIZE)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) == 2 and all("no row is left for the" in message for message in messages)


# memory, batches and training

def test_images_stay_in_their_files(files):
    data = mimic_cxr.load("train", files, size=SIZE, policy="missing")
    assert len(data.files) == 2 and all(isinstance(file, np.memmap) for file in data.files)
    for x, file in zip(data.modalities.values(), data.files):
        assert x.values.data_ptr() == file.ctypes.data
        assert x.numel() == len(x.rows.unique()) * SIZE * SIZE
    part = data.subset(torch.tensor([3, 0, 3]))
    assert part.modalities["frontal"].values.data_ptr() == data.files[0].ctypes.data and part.files == data.files
    assert part.subject.tolist() == data.subject[[3, 0, 3]].tolist() and part.ids[1] == data.ids[0]
    assert torch.equal(part.batch(torch.tensor([2])).x[1], data.batch(torch.tensor([3])).x[1])
    assert torch.equal(part.observed, data.observed[:, [3, 0, 3]]) and part.report == data.report
    assert len(data.subset(data.observed.all(0))) == int(data.observed.all(0).sum())
    assert data.to("cpu").files == data.files
    weighed = replace(data, trust=torch.arange(2.0 * len(data)).view(2, -1))
    assert torch.equal(weighed.subset([3, 0]).trust, weighed.trust[:, [3, 0]])


def test_a_system_that_refuses_a_private_mapping_gets_a_read_only_one(files, monkeypatch, recwarn):
    expected = mimic_cxr.load("train", files, size=SIZE).batch(torch.arange(5)).x
    load = np.load

    def refusing(path, mmap_mode=None, **options):
        if mmap_mode == "c":
            raise OSError(12, "Cannot allocate memory")
        return load(path, mmap_mode=mmap_mode, **options)
    monkeypatch.setattr(mimic_cxr_store.np, "load", refusing)
    found = mimic_cxr.load("train", files, size=SIZE)
    assert not found.files[0].flags.writeable and not recwarn.list
    assert all(torch.equal(a, b) for a, b in zip(found.batch(torch.arange(5)).x, expected))
    announce(found, torch.arange(5))


def test_the_pages_of_the_wanted_rows_are_announced(files):
    data = mimic_cxr.load("train", files, size=SIZE, policy="missing")
    index = torch.tensor([5, 0, 5, 2])
    asked = {view: [] for view in data.names}

    class Recording:
        def __init__(self, array, said):
            self.strides, self.offset, self._mmap, self.said = array.strides, array.offset, self, said

        def madvise(self, option, start, length):
            self.said.append((start, length))
    data.files = tuple(Recording(file, asked[view]) for file, view in zip(data.files, data.names))
    announce(data, index)
    for view, said in asked.items():
        rows = data.modalities[view].rows[index].unique().tolist()
        assert len(said) == len(rows)
        for row, (start, length) in zip(rows, said):
            first = mimic_cxr_store.HEADER + row * SIZE * SIZE
            assert start <= first and start + length == first + SIZE * SIZE and start % os.sysconf("SC_PAGE_SIZE") == 0


def test_rows_move_to_another_device_without_what_is_not_used():
    values = torch.arange(12).view(6, 2)
    moved = Repeated(values, torch.tensor([4, 4, 1])).to("meta")
    assert moved.values.shape == (2, 2) and moved.shape == (3, 2) and moved.device.type == "meta"
    rows = Repeated(values, torch.tensor([4, 4, 1]))
    assert rows.numel() == 4 and torch.equal(rows.select(torch.tensor([2, 0]))[:], values[[1, 4]])


@pytest.mark.parametrize("policy", ["all_pairs", "missing"])
def test_an_epoch_of_training(files, tmp_path, policy):
    data = mimic_cxr.load("train", files, size=SIZE, policy=policy)
    model = MultimodalVAE(data.specs, [MLPEncoder(s.shape, 2, (8,)) for s in data.specs],
                          [MLPDecoder(s.shape, 2, (8,)) for s in data.specs], MMVM())
    history = fit(model, data, epochs=1, batch_size=4, device="cpu", out=tmp_path / "run")
    assert len(history["loss"]) == 1 and np.isfinite(history["loss"][0])


@pytest.mark.slow
def test_an_index_of_the_official_size_takes_seconds(tmp_path):
    """377,110 rows, in a process of its own: time and memory of reading them."""
    draw = np.random.default_rng(0)
    n, n_studies = 377_110, 227_827
    subject = 10_000_000 + np.sort(draw.integers(0, 65_379, n_studies)) * 100
    study = 50_000_000 + np.arange(n_studies)
    own = np.sort(np.r_[np.arange(n_studies), draw.integers(0, n_studies, n - n_studies)])
    table = pd.DataFrame({name: "" for name in COLUMNS}, index=range(n))
    table["dicom_id"] = [f"{i:08x}-{i:08x}-{i:08x}-{i:08x}-{i:08x}" for i in range(n)]
    table["subject_id"], table["study_id"] = subject[own], study[own]
    table["ViewPosition"] = np.array(["AP", "PA", "LATERAL", "LL", ""])[draw.choice(5, n, p=[.39, .25, .22, .09, .05])]
    table.to_csv(tmp_path / FILES["metadata"], index=False)
    labels = pd.DataFrame({"subject_id": subject, "study_id": study, **{name: "" for name in LABELS}})
    labels.to_csv(tmp_path / FILES["chexpert"], index=False)
    script = ("import json, resource, sys, time, numpy as np\n"
              "from studies.mimic_cxr.index import *\n"
              "unit = 2**20 if sys.platform == 'darwin' else 1024\n"
              "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit\n"
              "before, started = peak(), time.process_time()\n"
              "from pathlib import Path\n"
              "index = read_index(Path(sys.argv[1])); split_of(index, 'subject')\n"
              "rows = pairs(index, np.ones(len(index.dicoms), bool), 'all_pairs')\n"
              "print(json.dumps([time.process_time() - started, peak() - before, index.counts['images'], len(rows)]))")
    said = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    seconds, megabytes, n_images, n_rows = json.loads(said.stdout)
    assert n_images == n and n_rows > 50_000
    assert seconds < 30 and megabytes < 1_000, "about 2 s and 300 MB"


def test_git_ignores_the_data():
    from mmvm.paths import REPOSITORY
    assert "data/mimic_cxr/" in (REPOSITORY / ".gitignore").read_text().splitlines()
