"""What a copy of MIMIC-CXR-JPG has and lacks: lists, labels, splits, image files, prepared arrays. Only counts."""

import os
import re
import zlib
from pathlib import Path

import numpy as np

from mmvm.errors import UserError
from mmvm.paths import home
from studies.mimic_cxr import image as mimic_cxr_image
from studies.mimic_cxr.index import (
    LABELS,
    MARKER,
    POLICIES,
    SPLITS,
    WHERE,
    Index,
    default_root,
    pairs,
    read_index,
    split_of,
)
from studies.mimic_cxr.prepare import needed
from studies.mimic_cxr.store import KEY, VIEWS, Store, folder_of, names_of, statuses, usable

# the official files; pairs and their split: the paper's
FULL = {"images": 377_110, "label rows": 227_827, "all_pairs": 128_212}
SAMPLE = 200        # images that are decoded, spread over the set


def check(root: str | os.PathLike | None = None, *, full: bool = False) -> list[str]:
    """A report on the files under `root`, one line each: lists, labels, splits, pairs, images, prepared arrays.

    full  decode every image and compare all prepared pixels with their CRC; otherwise 200 images are decoded and
          the arrays' sizes compared

    Writes nothing. Raises one `UserError` that names all problems, in numbers, and where the files come from.
    """
    root = default_root() if root is None else home(root)
    index = read_index(root)
    report, problems = [_count(index), *index.report(), _labels(index)], []
    for split_by in ("official", "subject"):
        try:
            report.append(_split(index, split_by))
        except UserError as error:
            problems.append(str(error))
    for policy in POLICIES:
        n = len(pairs(index, np.ones(len(index.dicoms), bool), policy))
        report.append(f"policy {policy}: {n:,} rows of {int(needed(index, policy).sum()):,} images"
                      + (" (the paper's number)" if n == FULL.get(policy) else ""))
    for step in (_images, _prepared):
        try:
            report += step(index, full)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{root} is not as it should be:\n" + "\n".join(problems) + f"\nThe files: {WHERE}")
    return report


def _count(index: Index) -> str:
    if index.standin:
        return f"simulated, not MIMIC-CXR: {MARKER} says so"
    if all(index.counts[name] == FULL[name] for name in ("images", "label rows")):
        return f"lists: complete, {FULL['images']:,} images and {FULL['label rows']:,} rows of labels"
    return (f"lists: {index.counts['images']:,} images and {index.counts['label rows']:,} rows of labels; "
            f"MIMIC-CXR-JPG has {FULL['images']:,} and {FULL['label rows']:,}, so this is a part of it")


def _labels(index: Index) -> str:
    shares = ", ".join(f"{name} {100 * np.mean(column == 1):.1f}" for name, column in zip(LABELS, index.labels.T))
    return f"labels of 1, in % of the studies: {shares}; of -1: {100 * np.mean(index.labels == -1):.1f} % of all labels"


def _split(index: Index, split_by: str) -> str:
    split, how = split_of(index, split_by)
    rows = pairs(index, np.ones(len(index.dicoms), bool), "all_pairs")[:, 0]
    sizes = ", ".join(f"{int((split[rows] == i).sum()):,} {name}" for i, name in enumerate(SPLITS))
    return f"{how}: {sizes} pairs; no subject in two"


def _images(index: Index, full: bool) -> list[str]:
    there = np.array([_there(index.path(i)) for i in range(len(index.dicoms))], bool)
    sample = np.flatnonzero(there)
    if not full and len(sample) > SAMPLE:
        sample = sample[np.linspace(0, len(sample) - 1, SAMPLE).astype(int)]
    damaged = sum(not _opens(index.path(i)) for i in sample)
    missing = {view: int((~there & (index.lateral == (view == "lateral"))).sum()) for view in VIEWS}
    problems = []
    if not there.all():
        problems.append(f"{(~there).sum():,} of {len(there):,} image files are missing or empty ("
                        + ", ".join(f"{n:,} {view}" for view, n in missing.items()) + "): download them to files/")
    if damaged:
        problems.append(f"{damaged:,} of {len(sample):,} images that were decoded are damaged: download them again; "
                        "--prepare lists them by hash")
    if problems:
        raise UserError("\n".join(problems))
    return [f"images: all {len(there):,} frontal and lateral files are there; {len(sample):,} of them decoded, "
            + ("all" if len(sample) == len(there) else "spread over the set")]


def _there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _opens(path: Path) -> bool:
    try:
        return mimic_cxr_image.read_image(path, 64).size > 0
    except Exception:       # its text would name the image
        return False


def _prepared(index: Index, full: bool) -> list[str]:
    home = folder_of(index.base)
    folders = sorted(folder for folder in home.glob("*") if re.fullmatch(r"\d+(-equalised)?", folder.name)
                     and (folder / "frontal-rows.npy").is_file())
    if not (home / KEY).is_file() or not folders:
        return ["prepared: nothing yet"]
    names, lines, problems = names_of(index), [], []
    for folder in folders:
        size = int(folder.name.split("-")[0])
        stores = {view: Store(folder, view, size) for view in VIEWS}
        status = statuses(index, names, stores)
        wrong = sum(_wrong(store) for store in stores.values()) if full else 0
        if wrong:
            problems.append(f"{folder}: the pixels of {wrong:,} images are not what was written: delete the folder and "
                            "prepare again")
        ready = {policy: len(pairs(index, usable(status), policy)) for policy in ("all_pairs", "missing")}
        lines.append(f"prepared {folder.name}: {int(usable(status).sum()):,} images, "
                     + ", ".join(f"{n:,} rows for {policy}" for policy, n in ready.items())
                     + ("; all as written" if full else ""))
    if problems:
        raise UserError("\n".join(problems))
    return lines


def _wrong(store: Store) -> int:
    if not len(store.rows):     # a preparation was killed before its first image
        return 0
    pixels, rows = store.pixels(), store.rows
    return sum(zlib.crc32(pixels[row]) != rows["check"][row] for row in np.flatnonzero(usable(rows["status"])))
