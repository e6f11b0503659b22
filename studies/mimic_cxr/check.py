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
    SPLITS_BY,
    UNCERTAIN,
    Index,
    check_choices,
    default_root,
    has_split,
    pairs,
    read_index,
    split_of,
)
from studies.mimic_cxr.prepare import needed
from studies.mimic_cxr.store import KEY, VIEWS, Store, folder_of, names_of, statuses, usable, variant

# the official files; pairs and their split: the paper's
FULL = {"images": 377_110, "label rows": 227_827, "all_pairs": 128_212}
SAMPLE = 200        # images that are decoded, spread over the set


def check(root: str | os.PathLike | None = None, *, full: bool = False, policy: str = "all_pairs",
          split_by: str = "subject", uncertain: str = "zero", size: int | None = None, equalise: bool = False,
          split_seed: int = 0) -> list[str]:
    """A report on the files under `root`, one line each: lists, labels, splits, pairs, images, prepared arrays.

    full  decode every image and compare all prepared pixels with their CRC; otherwise 200 images are decoded and
          the arrays' sizes compared

    The other options are those of `load`: what is said of rows, subjects and labels is what it makes of them, were all
    images prepared, and only what these options need must be there. `size`, with `equalise`, picks the prepared arrays;
    None: all. Writes nothing. Raises one `UserError` that names all problems, in numbers, and what helps.
    """
    check_choices(policy=(policy, POLICIES), split_by=(split_by, SPLITS_BY), uncertain=(uncertain, UNCERTAIN))
    root = default_root() if root is None else home(root)
    index = read_index(root)
    report, problems = [_count(index), *index.report(), _labels(index)], []
    for by in SPLITS_BY:
        try:
            report += _split(index, by, policy, uncertain, split_seed) if by == split_by else _other(index, by)
        except UserError as error:
            problems.append(str(error))
    for name in POLICIES:
        n = len(pairs(index, np.ones(len(index.dicoms), bool), name))
        report.append(f"policy {name}: {n:,} rows of {int(needed(index, name).sum()):,} images"
                      + (" (the paper's number)" if n == FULL.get(name) else ""))
    for step in (lambda: _images(index, full), lambda: _prepared(index, full, size, equalise)):
        try:
            report += step()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{root} is not as it should be:\n" + "\n".join(problems))
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


def _split(index: Index, split_by: str, policy: str, uncertain: str, seed: int) -> list[str]:
    """What `load` makes of the lists: per split rows, subjects, views that are missing, and each label's count."""
    split, how = split_of(index, split_by, seed)
    rows = pairs(index, np.ones(len(index.dicoms), bool), policy)
    image = rows.max(1, initial=-1)         # one that is there
    report = [f"{how}: no subject in two"]
    for i, name in enumerate(SPLITS):
        own, at = rows[split[image] == i], image[split[image] == i]
        labels = index.labels[index.study[at]]
        unknown = int((labels == -1).sum())
        counts = ((labels == 1) | ((labels == -1) & (uncertain == "one"))).sum(0)
        absent = ", ".join(f"{n:,} {view}" for view, n in zip(VIEWS, (own < 0).sum(0)))
        report += [f"{name}: {len(own):,} rows (policy {policy}) of {len(set(index.subject[at].tolist())):,} subjects; "
                   f"missing: {absent}",
                   f"{name}, labels: {', '.join(f'{label} {n:,}' for label, n in zip(LABELS, counts))}; "
                   f"{unknown if uncertain == 'ignore' else 0:,} not known"]
    return report


def _other(index: Index, split_by: str) -> list[str]:
    """The split that was not asked for, as far as it can be had: nothing needs it."""
    if split_by == "official" and not has_split(index):
        return ["split by the official file: it is absent, which only split_by='official' needs"]
    try:
        split, how = split_of(index, split_by)
    except UserError as error:
        return [f"split_by={split_by!r} cannot be used: {error}"]
    rows = pairs(index, np.ones(len(index.dicoms), bool), "all_pairs")[:, 0]
    sizes = ", ".join(f"{int((split[rows] == i).sum()):,} {name}" for i, name in enumerate(SPLITS))
    return [f"{how}: {sizes} pairs; no subject in two"]


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


def _prepared(index: Index, full: bool, wanted: int | None, equalise: bool) -> list[str]:
    home = folder_of(index.base)
    folders = sorted(folder for folder in home.glob("*") if re.fullmatch(r"\d+(-equalised)?", folder.name)
                     and (folder / "frontal-rows.npy").is_file()
                     and (wanted is None or folder == variant(index.base, wanted, equalise)))
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
        low, high = _range(stores, size)
        ready = {policy: len(pairs(index, usable(status), policy)) for policy in ("all_pairs", "missing")}
        lines.append(f"prepared {folder.name}: {int(usable(status).sum()):,} images of (1, {size}, {size}) uint8, "
                     f"{low} to {high}, "
                     + ", ".join(f"{n:,} rows for {policy}" for policy, n in ready.items())
                     + ("; all as written" if full else ""))
    if problems:
        raise UserError("\n".join(problems))
    return lines


def _range(stores: dict[str, Store], size: int) -> tuple[int, int]:
    """The smallest and the largest pixel of up to 200 images of either view, spread over the arrays."""
    ends = []
    for store in stores.values():
        rows = np.flatnonzero(usable(store.rows["status"]) & (store.rows["name"] != b""))   # no name: the black one
        if len(rows):
            some = store.pixels()[rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)]]
            ends += [int(some.min()), int(some.max())]
    return min(ends, default=0), max(ends, default=0)


def _wrong(store: Store) -> int:
    if not len(store.rows):     # a preparation was killed before its first image
        return 0
    pixels, rows = store.pixels(), store.rows
    return sum(zlib.crc32(pixels[row]) != rows["check"][row] for row in np.flatnonzero(usable(rows["status"])))
