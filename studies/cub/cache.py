"""Arrays that take a while to make, kept as .npy files beside the data and mapped into memory when read again.

An entry is a folder with one file per array and `entry.json`, written last, which holds the key (a hash of the inputs),
every file's bytes and CRC-32, and one of all that it says. An entry of another key, or that was changed, is made anew.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from mmvm import paths
from mmvm.files import read_array
from mmvm.training.lock import in_turn

ENTRY = "entry.json"


def cached(root: Path, name: str, key: str, make: Callable[[], tuple[dict[str, np.ndarray], dict]]) \
        -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and facts (JSON) of the entry `name`, as `make` returned them when the inputs had this `key`.

    The arrays are memory-mapped copy-on-write: what one writes to them stays in this process.
    """
    folder = _folder(root)
    with in_turn(folder / f"{name}.lock"):
        found = _read(folder / name, key)
        if found is None:
            _write(folder / name, key, *make())
            found = _read(folder / name, key)
    return found


def fingerprint(what, files: Iterable[Path]) -> str:
    """A hash of `what` (JSON) and of every file's name, size and time of change."""
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    for path in files:
        status = os.stat(path)
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _folder(root: Path) -> Path:
    """`root`/.mmvm-cache; where that cannot be written, a folder under runs/ that is the root's own."""
    folder = root / ".mmvm-cache"
    try:
        folder.mkdir(exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = paths.runs_root() / "cache" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _read(folder: Path, key: str) -> tuple[dict[str, np.ndarray], dict] | None:
    try:
        if not (folder / ENTRY).is_file():
            return None
        entry = json.loads((folder / ENTRY).read_text())
        said = entry.pop("check")
        if entry["key"] != key or said != zlib.crc32(json.dumps(entry).encode()) or any(
                _check(folder / name) != check for name, check in entry["files"].items()):
            return None
        return {Path(name).stem: read_array(folder / name, mmap_mode="c") for name in entry["files"]}, entry["facts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _check(path: Path) -> list[int]:
    """Bytes and CRC-32 of a file."""
    if not path.is_file():
        raise OSError("no file")  # a pipe would be waited for
    check, size = 0, 0
    with open(path, "rb") as file:
        while part := file.read(2**22):
            check, size = zlib.crc32(part, check), size + len(part)
    return [size, check]


def _write(folder: Path, key: str, arrays: dict[str, np.ndarray], facts: dict) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name, array in arrays.items():
        np.save(part / f"{name}.npy", array)
    checks = {f"{name}.npy": _check(part / f"{name}.npy") for name in arrays}
    entry = json.loads(json.dumps({"key": key, "files": checks, "facts": facts}))
    (part / ENTRY).write_text(json.dumps({**entry, "check": zlib.crc32(json.dumps(entry).encode())}))
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    os.rename(part, folder)
