"""The folder `prepared` beside the data: small images as memory-mapped arrays, found by keyed hashes of their ids.

    prepared/key                        64 random hexadecimal digits, made once; who has no key cannot undo a hash
    prepared/<size>[-equalised]/        frontal.npy, lateral.npy      (rows, 1, size, size) uint8; row 0 is black and
                                                                      stands for an absent view
                                        frontal-rows.npy, ...         `ROW` of each: name, CRC-32 of its pixels, status
                                        skipped.csv                   names of what is missing or cannot be read

A name is the first 24 digits of HMAC-SHA-256 of the dicom id under the key. Rows are only ever added, so an array that
was made for one choice of images serves the next one too. A row's status is written after its pixels, so a kill leaves
at most rows "to do"; pixels that a power failure may have lost are recognised by their CRC.
"""

import hmac
import os
import re
import secrets
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np

from mmvm import paths
from mmvm.errors import UserError
from mmvm.files import read_array
from studies.mimic_cxr.image import DONE, MISSING, UNREADABLE
from studies.mimic_cxr.index import Index

ROW = np.dtype([("name", "S24"), ("check", "<u4"), ("status", "u1"), ("unused", "V3")])
TO_DO, SYNCED = 0, 5        # beside the worker's DONE (written, perhaps not yet on the disk), MISSING, UNREADABLE
VIEWS = ("frontal", "lateral")
HEADER = 128                # bytes before the pixels
KEY = "key"


def folder_of(base: Path) -> Path:
    """`base`/prepared; where that cannot be written and is not there, a folder under runs/ that is the data's own."""
    beside = base / "prepared"
    other = paths.runs_root() / "cache" / sha256(str(base.resolve()).encode()).hexdigest()[:16]
    for folder in (beside, other):
        if (folder / KEY).is_file():
            return folder
    return beside if os.access(beside if beside.is_dir() else base, os.W_OK) else other


def variant(base: Path, size: int, equalise: bool) -> Path:
    return folder_of(base) / f"{size}{'-equalised' if equalise else ''}"


def key_of(base: Path) -> bytes:
    """The data's own random key, made at the first call."""
    folder = folder_of(base)
    path = folder / KEY
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        if folder.parent != base:
            folder.chmod(0o700)     # the data's own access rights do not reach here
        part = folder / f".{KEY}.{os.getpid()}"
        part.write_text(secrets.token_hex(32))
        try:
            os.link(part, path)     # of two processes that start at once one is first
        except FileExistsError:
            pass
        except OSError:             # no hard links here (exFAT, some shares)
            if not path.is_file():
                os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        (folder / ".gitignore").write_text("*\n")
    key = path.read_bytes().strip() if path.is_file() else b""  # a pipe would be waited for
    if not re.fullmatch(rb"[0-9a-f]{64}", key):
        raise UserError(f"{path} holds no key of 64 digits: delete the folder {folder}, it can be made again")
    return bytes.fromhex(key.decode())


def names_of(index: Index) -> np.ndarray:
    """The names (I,) of the images of an index, as bytes of 24 digits."""
    key = key_of(index.base)
    return np.array([hmac.digest(key, dicom, "sha256").hex()[:24] for dicom in index.dicoms.tolist()], "S24")


class Store:
    """One view's array and the table of its rows."""

    def __init__(self, folder: Path, view: str, size: int):
        self.path, self.rows_path = folder / f"{view}.npy", folder / f"{view}-rows.npy"
        self.size, self.n_bytes = size, size * size
        self.rows = np.zeros(0, ROW)
        if self.rows_path.is_file():
            try:
                self.rows = read_array(self.rows_path)
                whole = self.rows.dtype == ROW and os.stat(self.path).st_size >= HEADER + len(self.rows) * self.n_bytes
            except (OSError, UserError):
                whole = False
            if not whole:
                raise UserError(f"{self.path} and {self.rows_path.name} do not belong together or are cut: delete the "
                                f"folder {folder} and prepare again")

    def find(self, names: np.ndarray) -> np.ndarray:
        """The row of each name, -1 where there is none."""
        if not len(self.rows):
            return np.full(len(names), -1)
        order = np.argsort(self.rows["name"])
        place = order[np.searchsorted(self.rows["name"], names, sorter=order).clip(max=len(order) - 1)]
        return np.where(self.rows["name"][place] == names, place, -1)

    def status(self, names: np.ndarray) -> np.ndarray:
        place = self.find(names)
        return np.where(place < 0, TO_DO, self.rows["status"][place]) if len(self.rows) else np.zeros(len(names), int)

    def pixels(self) -> np.memmap:
        """(rows, 1, size, size) uint8. Copy-on-write; read-only where the system does not allow as much, which it
        counts against the memory."""
        try:
            found = read_array(self.path, mmap_mode="c")
        except UserError:
            found = read_array(self.path, mmap_mode="r")
        shape = (1, self.size, self.size)
        if found.dtype != np.uint8 or found.shape[1:] != shape or len(found) < len(self.rows):
            raise UserError(f"{self.path} holds {found.dtype} of shape {found.shape}, its rows are {len(self.rows)}: "
                            f"delete the folder {self.path.parent} and prepare again")
        return found[:len(self.rows)]  # room for more where a kill came before the table that names it, in `extend`

    # writing, under the lock -----------------------------------------------------------------------------------------

    def extend(self, names: np.ndarray) -> None:
        """Room for the names that have no row yet; takes no space on the disk before it is filled."""
        black = np.zeros(0 if len(self.rows) else 1, ROW)
        black["status"], black["check"] = SYNCED, zlib.crc32(bytes(self.n_bytes))
        absent = names[self.find(names) < 0]
        new = np.zeros(len(absent), ROW)
        new["name"] = absent
        rows = np.concatenate([self.rows, black, new])
        if len(rows) == len(self.rows):
            return
        self.close()
        with open(self.path, "r+b" if self.path.is_file() else "w+b") as file:
            file.truncate(HEADER + len(rows) * self.n_bytes)
            shape = repr({"descr": "|u1", "fortran_order": False, "shape": (len(rows), 1, self.size, self.size)})
            file.write(b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
                       + shape.ljust(HEADER - 11).encode() + b"\n")
        self.rows = rows
        part = self.rows_path.with_name(f".{self.rows_path.name}")
        with open(part, "wb") as file:
            np.save(file, rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.rows_path)

    def distrust(self) -> int:
        """Back to "to do" for rows whose pixels were not known to be on the disk and are not there; how many."""
        unsure = np.flatnonzero(self.rows["status"] == DONE)
        pixels = self.pixels() if len(unsure) else None
        lost = [row for row in unsure if zlib.crc32(pixels[row]) != self.rows["check"][row]]
        for row in lost:
            self.mark(row, TO_DO, 0)
        return len(lost)

    def mark(self, row: int, status: int, check: int) -> None:
        """Says in memory and in the file what became of a row."""
        self.rows["status"][row], self.rows["check"][row] = status, check
        if not hasattr(self, "_file"):
            self._file = open(self.rows_path, "r+b", buffering=0)
            self._start = os.stat(self.rows_path).st_size - len(self.rows) * ROW.itemsize
        os.pwrite(self._file.fileno(), self.rows[row].tobytes(), self._start + row * ROW.itemsize)

    def sync(self) -> None:
        """What is done so far is on the disk afterwards, and its rows say so."""
        done = np.flatnonzero(self.rows["status"] == DONE)
        if len(done):
            with open(self.path, "r+b") as file:
                os.fsync(file.fileno())
            for row in done:
                self.mark(row, SYNCED, self.rows["check"][row])
        if hasattr(self, "_file"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
            del self._file


def usable(status: np.ndarray) -> np.ndarray:
    return (status == DONE) | (status == SYNCED)


def skipped(status: np.ndarray) -> np.ndarray:
    return (status == MISSING) | (status == UNREADABLE)


def statuses(index: Index, names: np.ndarray, stores: dict[str, Store]) -> np.ndarray:
    """The status (I,) of every image of an index."""
    found = np.zeros(len(names), int)
    for view, store in stores.items():
        own = index.lateral == (view == "lateral")
        found[own] = store.status(names[own])
    return found
