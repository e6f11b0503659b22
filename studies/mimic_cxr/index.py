"""MIMIC-CXR-JPG's csv files: images, views, studies, labels and who is for training; checked before any image is read.

Real ids stay in here: no message names a subject, a study or a dicom, or quotes a cell of the files.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmvm.errors import UserError
from mmvm.paths import data_root

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
          "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
          "Pneumothorax", "Support Devices")
VIEWS = {"AP": "frontal", "PA": "frontal", "LATERAL": "lateral", "LL": "lateral"}
POLICIES = ("all_pairs", "one_pair", "missing")
SPLITS = ("train", "validate", "test")
SPLITS_BY = ("subject", "official")
UNCERTAIN = ("zero", "one", "ignore")
FILES = {name: f"mimic-cxr-2.0.0-{name}.csv" for name in ("metadata", "chexpert", "split")}
MARKER = "STAND-IN.txt"     # in the root of a simulated set
SHIPPED_BESIDE = ("SHA256SUMS.txt", "LICENSE.txt")    # PhysioNet's download has them beside the csv files
DOWNLOADED = Path("physionet.org/files/mimic-cxr-jpg/2.1.0")    # where wget puts it
WHERE = ("MIMIC-CXR-JPG 2.1.0, https://physionet.org/content/mimic-cxr-jpg/2.1.0/ (free, for credentialed users who "
         "signed its data use agreement)")


@dataclass(frozen=True, repr=False)
class Index:
    """Frontal and lateral images of labelled studies, ordered by subject, study and dicom id: I images, S studies."""

    base: Path                      # holds the csv files and files/
    dicoms: np.ndarray              # (I,) bytes
    subject_ids: np.ndarray         # (I,) int32
    study_ids: np.ndarray           # (I,) int32
    subject: np.ndarray             # (I,) running number of the subject, from 0
    study: np.ndarray               # (I,) row of `labels`
    lateral: np.ndarray             # (I,) bool
    labels: np.ndarray              # (S, 14) float32: 1, 0, -1, or NaN where the file is empty
    counts: dict[str, int]          # of the files: images, subjects, studies, label rows, views

    def __repr__(self) -> str:
        return f"Index of {len(self.dicoms)} images"    # never their ids

    @property
    def standin(self) -> bool:
        return (self.base / MARKER).is_file()

    def path(self, i: int) -> Path:
        subject = str(self.subject_ids[i])
        return (self.base / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{self.study_ids[i]}"
                / f"{self.dicoms[i].decode()}.jpg")

    def report(self) -> list[str]:
        """Sentences on what the files hold and what of it is left out."""
        c = self.counts
        views = ", ".join(f"{c[view]:,} {view}" for view in VIEWS)
        lines = [f"{c['images']:,} images of {c['studies']:,} studies and {c['subjects']:,} subjects: {views}, "
                 f"{c['other views']:,} of other or unknown views left out"]
        if c["studies without labels"]:
            lines.append(f"{c['studies without labels']:,} studies without a row of labels skipped "
                         f"({c['images without labels']:,} images)")
        return lines


def default_root() -> Path:
    """data/mimic_cxr where the official files were put there, else the largest stand-in in it."""
    root = data_root() / "mimic_cxr"
    if _base(root) is not None:
        return root
    found = {tuple(map(int, match.groups())): folder for folder in root.glob("standin-*")
             if (match := re.fullmatch(r"standin-(\d+)-(\d+)", folder.name)) and _base(folder) is not None}
    return found[max(found, key=lambda key: (key[0], -key[1]))] if found else root


def _base(root: Path) -> Path | None:
    return next((folder for folder in (root, root / DOWNLOADED) if _file(folder, "metadata") is not None), None)


def _file(base: Path, name: str) -> Path | None:
    return next((path for path in (base / FILES[name], base / f"{FILES[name]}.gz") if path.is_file()), None)


def read_index(root: Path) -> Index:
    """Images, views and labels; two or three seconds for the 377,110 official rows.

    Raises `UserError` where a file is absent, damaged or inconsistent; says how many rows, never which.
    """
    base = _base(root)
    if base is None:
        own = "" if root.exists() else f" --root {shlex.quote(str(root))}"
        raise UserError(f"{root} holds no {FILES['metadata']}, plain or .gz. Write the stand-in with `python -m mmvm "
                        f"data mimic-cxr{own} --simulate`, or put there {WHERE}")
    images = _images(base)
    path, labels = _labels(base)
    owner = images.drop_duplicates("study_id").set_index("study_id")["subject_id"]
    _refuse(path, (owner.reindex(labels["study_id"]).to_numpy() != labels["subject_id"].to_numpy())
            & labels["study_id"].isin(owner.index).to_numpy(),
            f"rows name another subject than {FILES['metadata']} for their study")

    view = images["ViewPosition"].map(VIEWS)
    row = pd.Series(np.arange(len(labels)), labels["study_id"]).reindex(images["study_id"]).to_numpy()
    counts = {"images": len(images), "subjects": images["subject_id"].nunique(), "studies": len(owner),
              "label rows": len(labels), **images["ViewPosition"].value_counts().reindex(list(VIEWS), fill_value=0),
              "other views": int(view.isna().sum()), "images without labels": int(np.isnan(row).sum()),
              "studies without labels": int((~owner.index.isin(labels["study_id"])).sum())}
    kept = images[view.notna().to_numpy() & ~np.isnan(row)]
    kept = kept.assign(lateral=(view == "lateral")[kept.index], row=row[kept.index].astype(np.int32))
    kept = kept.sort_values(["subject_id", "study_id", "dicom_id"])
    return Index(base, kept["dicom_id"].to_numpy().astype("S"), kept["subject_id"].to_numpy(np.int32),
                 kept["study_id"].to_numpy(np.int32), np.unique(kept["subject_id"], return_inverse=True)[1],
                 kept["row"].to_numpy(), kept["lateral"].to_numpy(bool),
                 labels[list(LABELS)].to_numpy(np.float32), {name: int(n) for name, n in counts.items()})


def _images(base: Path) -> pd.DataFrame:
    path = _file(base, "metadata")
    images = _read(path, ["dicom_id", "subject_id", "study_id", "ViewPosition"])
    _ids(path, images)
    _refuse(path, ~images["dicom_id"].str.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]*").fillna(False).to_numpy(bool),
            "rows have no usable dicom_id (letters, digits, '-', '_' and '.')")
    _refuse(path, images["dicom_id"].duplicated().to_numpy(), "rows repeat a dicom_id")
    pairs = images[["subject_id", "study_id"]].drop_duplicates()
    _refuse(path, pairs["study_id"].duplicated().to_numpy(), "studies belong to more than one subject")
    return images


def _labels(base: Path) -> tuple[Path, pd.DataFrame]:
    path = _needed(base, "chexpert")
    labels = _read(path, ["subject_id", "study_id", *LABELS])
    _ids(path, labels)
    _refuse(path, labels["study_id"].duplicated().to_numpy(), "rows repeat a study_id")
    for name in LABELS:
        known = _number(labels[name])
        empty = labels[name].isna()
        _refuse(path, ~(known.isin((1, 0, -1)) | empty).to_numpy(),
                f"rows have something else than 1, 0, -1 or nothing under {name}")
        labels[name] = known.astype(np.float32)
    return path, labels


def check_choices(**options: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, choices) in options.items():
        if value not in choices:
            raise UserError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def has_split(index: Index) -> bool:
    return _file(index.base, "split") is not None


def split_of(index: Index, split_by: str, seed: int = 0) -> tuple[np.ndarray, str]:
    """(I,) 0 train, 1 validate, 2 test, and one sentence on where that comes from. No subject has images in two.

    "subject": 80/10/10 % of the subjects in an order drawn by `seed` (ranks of raw PCG64 output), the same under every
    policy. "official": the split file.
    """
    if split_by == "official":
        split = _official(index)
        how = f"split: {FILES['split']}"
    else:
        n = index.subject.max(initial=-1) + 1
        if n < 3:
            raise UserError(f"{index.base} has {n} subjects with labelled frontal or lateral images, three splits need "
                            "three: add studies, or simulate more subjects")
        held = max(1, round(n / 10))
        place = np.argsort(np.argsort(np.random.PCG64(np.random.SeedSequence([seed, 1])).random_raw(n), kind="stable"))
        split = np.where(place < held, 2, np.where(place < 2 * held, 1, 0)).astype(np.int8)[index.subject]
        how = f"split: 80/10/10 % of the subjects, seed {seed}"
    low, high = np.full(index.subject.max(initial=0) + 1, 3), np.full(index.subject.max(initial=0) + 1, -1)
    np.minimum.at(low, index.subject, split)
    np.maximum.at(high, index.subject, split)
    if (low < high).any():
        raise UserError(f"{_file(index.base, 'split')} puts {(low < high).sum()} subjects into more than one split: "
                        f"{cure(_file(index.base, 'split'))}; or use split_by='subject'")
    return split, how


def _official(index: Index) -> np.ndarray:
    path = _needed(index.base, "split", "split_by='official' needs it; split_by='subject' does not")
    table = _read(path, ["dicom_id", "study_id", "subject_id", "split"])
    _ids(path, table)
    _refuse(path, table["dicom_id"].duplicated().to_numpy(), "rows repeat a dicom_id")
    _refuse(path, ~table["split"].isin(SPLITS).to_numpy(), f"rows have no split out of {', '.join(SPLITS)}")
    table = table.set_index("dicom_id").reindex(np.char.decode(index.dicoms))
    _refuse(path, table["split"].isna().to_numpy(), f"images of {FILES['metadata']} have no row")
    _refuse(path, ((table["study_id"] != index.study_ids) | (table["subject_id"] != index.subject_ids)).to_numpy(),
            f"rows disagree with {FILES['metadata']} on study or subject")
    return table["split"].map({name: i for i, name in enumerate(SPLITS)}).to_numpy(np.int8)


def pairs(index: Index, usable: np.ndarray, policy: str) -> np.ndarray:
    """(N, 2) frontal and lateral image of each row, -1 where a view is absent; of images that are `usable` (I,) bool.

    "all_pairs": every frontal x lateral pair of a study. "one_pair": of each study with both views the first frontal
    and the first lateral image, in the order of the dicom ids, which are hashes: any one. "missing": all pairs, and
    each image of a study that has only one view.
    """
    sides = [np.flatnonzero(usable & (index.lateral == side)) for side in (False, True)]
    studies = [index.study[side] for side in sides]
    if policy == "one_pair":
        both, *first = np.intersect1d(*studies, return_indices=True)     # indices of the first occurrences
        found = np.stack([side[own] for side, own in zip(sides, first)], 1)
    else:
        frontal, lateral = sides
        count = np.bincount(studies[1], minlength=len(index.labels))     # laterals of each study
        start = np.full(len(index.labels), -1)      # the study's first lateral; its others follow
        start[studies[1][::-1]] = np.arange(len(lateral))[::-1]
        times = count[studies[0]]
        rows = np.repeat(np.arange(len(frontal)), times)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
        found = np.stack([frontal[rows], lateral[start[studies[0]][rows] + nth]], 1) if len(rows) else \
            np.empty((0, 2), int)
        if policy == "missing":
            alone = [side[~np.isin(own, other)] for side, own, other in zip(sides, studies, studies[::-1])]
            found = np.concatenate([found, np.stack([alone[0], np.full(len(alone[0]), -1)], 1),
                                    np.stack([np.full(len(alone[1]), -1), alone[1]], 1)])
    image = np.where(found[:, 0] >= 0, found[:, 0], found[:, 1])
    return found[np.lexsort((found[:, 1], found[:, 0], index.study_ids[image], index.subject_ids[image]))]


# reading a csv file without ever quoting it --------------------------------------------------------------------------

def _needed(base: Path, name: str, why: str = "it holds the labels") -> Path:
    path = _file(base, name)
    if path is None:
        raise UserError(f"{base / FILES[name]}, plain or .gz, is missing ({why}): get it from {WHERE}")
    return path


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Columns of a csv file: whole numbers where the name says ids, text and numbers as pandas finds them."""
    header = _quietly(path, lambda: pd.read_csv(path, nrows=0))
    absent = [name for name in columns if name not in header.columns]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}: {cure(path)}")
    types = {name: str for name in ("dicom_id", "ViewPosition", "split") if name in columns}
    table = _quietly(path, lambda: pd.read_csv(path, usecols=columns, dtype=types, low_memory=False))
    if table.empty:
        raise UserError(f"{path} has no rows: {cure(path)}")
    return table


def _quietly(path: Path, read: Callable):
    """What `read` returns; its exceptions may quote the file, so they are replaced, not chained."""
    try:
        return read()
    except Exception as error:      # OSError, EOFError, zlib.error, ParserError, UnicodeDecodeError, ...
        kind = type(error).__name__
    raise UserError(f"{path} cannot be read ({kind}): it is cut or damaged; {cure(path)}")


def _ids(path: Path, table: pd.DataFrame) -> None:
    """Subject and study ids become int32; all have eight digits."""
    for name in ("subject_id", "study_id"):
        numbers = _number(table[name])
        _refuse(path, ~(numbers.between(10_000_000, 99_999_999) & (numbers % 1 == 0)).to_numpy(),
                f"rows have no number of eight digits under {name}")
        table[name] = numbers.astype(np.int32)


def _number(column: pd.Series) -> pd.Series:
    return column if column.dtype.kind in "if" else pd.to_numeric(column, errors="coerce")


def cure(path: Path) -> str:
    """What helps where a csv file is wrong, by whose file it is: simulated, a download of PhysioNet's with the lists
    that come with it, or, as far as can be seen, a lab's own."""
    if (path.parent / MARKER).is_file():
        return f"the files are simulated: delete {path.parent}, then simulate again"
    restore = f"restore the file from {WHERE}"
    if any((path.parent / name).is_file() for name in SHIPPED_BESIDE):
        return restore
    return f"correct the file, if it is your own; if it is PhysioNet's, {restore}"


def _refuse(path: Path, wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        raise UserError(f"{path}: {int(wrong.sum()):,} {what}: {cure(path)}")
