"""Verifying the files that PolyMNIST is made of."""

import hashlib
import re
from pathlib import Path

import numpy as np

from mmvm.errors import UserError
from mmvm.paths import data_root, home
from studies.polymnist.mnist import FILES, LABEL_COUNTS, MD5, N_CLASSES, find_mnist, read_mnist, unpack
from studies.polymnist.pictures import photo_folder, photo_paths, read_photo
from studies.polymnist.released import is_released, released_table


def check(root=None, backgrounds=None) -> list[str]:
    """Verify the files under `root` (by default those that ship) and return a report, one line per file.

    SHA-256 of everything that `SHA256SUMS` lists, MD5 of the unpacked MNIST files, label counts and photos;
    of a folder in the released layout the names and pairs of all files. Raises one `UserError` that names all
    problems.
    """
    root = data_root() / "polymnist" if root is None else home(root)
    report, problems = [], []

    def attempt(step, *arguments):
        try:
            report.extend(step(*arguments))
        except UserError as error:
            problems.append(str(error))

    if is_released(root):
        for split in FILES:
            attempt(_report_released, root, split)
    else:
        attempt(_report_sums, root)
        for split in FILES:
            attempt(_report_mnist, root, split)
        attempt(_report_photos, root, backgrounds)
    if problems:
        raise UserError(f"{root} is not as it should be:\n" + "\n".join(problems))
    return report


def _report_sums(root: Path) -> list[str]:
    report, problems = [], []
    for expected, name in read_sums(root):
        path = root / name
        if not path.is_file():
            problems.append(f"{path} is missing: restore it (git checkout -- {path})")
            continue
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            problems.append(f"{path} ({len(content):,} bytes) has SHA-256 {found[:16]}..., SHA256SUMS says "
                            f"{expected[:16]}...: it is cut or changed, restore it (git checkout -- {path})")
        report.append(f"{name}: {len(content):,} bytes, SHA-256 as recorded")
    if problems:
        raise UserError("\n".join(problems))
    return report or [f"{root} has no SHA256SUMS: the packed files were not compared, the unpacked ones were"]


def read_sums(root: Path) -> list[tuple[str, str]]:
    """(SHA-256, name) per line of `SHA256SUMS`; empty where a folder has none (a download)."""
    path = root / "SHA256SUMS"
    lines = path.read_text().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(r"[0-9a-f]{64}  \S.*", line):
            raise UserError(f"{path}, line {number}: {line!r} is not a SHA-256, two spaces and a name: "
                            f"restore the file (git checkout -- {path})")
    return [tuple(line.split("  ", 1)) for line in lines]


def _report_mnist(root: Path, split: str) -> list[str]:
    _, labels = read_mnist(root, split, download=False)
    for name in FILES[split]:
        path = find_mnist(root, name)
        found = hashlib.md5(unpack(path), usedforsecurity=False).hexdigest()
        if found != MD5[name]:
            raise UserError(f"{path} has MD5 {found} unpacked, MNIST's is {MD5[name]}: replace the file by "
                            "MNIST's own")
    counts = tuple(np.bincount(labels, minlength=N_CLASSES).tolist())
    if counts != LABEL_COUNTS[split]:
        raise UserError(f"the {split} labels count {counts} digits of 0 to 9, MNIST has "
                        f"{LABEL_COUNTS[split]}: replace the file by MNIST's own")
    return [f"MNIST {split}: {len(labels):,} digits, MD5 of the unpacked files and label counts as published"]


def _report_photos(root: Path, backgrounds) -> list[str]:
    folder = photo_folder(root, backgrounds)
    paths = photo_paths(folder)
    if not paths:
        raise UserError(f"{folder} holds no photos: restore them, or pass `backgrounds` when loading")
    report = []
    for m, path in enumerate(paths):
        photo = read_photo(path)
        report.append(f"photo of m{m}: {path.name}, {photo.shape[1]} x {photo.shape[0]} pixels")
    return report


def n_folders(root: Path, split: str) -> int:
    return sum(bool(re.fullmatch(r"m[0-9]+", path.name)) for path in (root / split).glob("m*"))


def _report_released(root: Path, split: str) -> list[str]:
    n_modalities = n_folders(root, split)
    if not n_modalities:
        raise UserError(f"{root / split} has no folders m0, m1, ...: unpack the set again")
    rows, _ = released_table(root, split, n_modalities)
    return [f"{split}: {len(rows):,} rows in each of {n_modalities} modalities, digits equal"]
