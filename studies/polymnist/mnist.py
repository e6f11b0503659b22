"""The four MNIST files: found, unpacked, checked."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from mmvm.errors import UserError

SIDE = 28                       # pixels of a picture's edge
N_CLASSES = 10
MOST_BYTES = 2**28              # of an unpacked file; MNIST's largest has 47 million
SPLITS = {"train": 0, "test": 1, "validation": 2}    # the number enters the seed
FILES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
         "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
HELD_OUT = 5_000                # digits of "train" that make "validation"
MD5 = {"train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",       # of the unpacked files
       "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
       "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
       "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637"}
LABEL_COUNTS = {"train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
                "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)}


def is_whole(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def read_mnist(root: Path, split: str, download: bool) -> tuple[np.ndarray, np.ndarray]:
    """Digits (N, 28, 28) uint8 and labels (N,) uint8."""
    paths = [find_mnist(root, name) for name in FILES[split]]
    if None in paths:
        missing = FILES[split][paths.index(None)]
        if not download:
            raise UserError(f"MNIST file {missing}.gz is not in {root / 'mnist'}: pass download=True to "
                            "fetch MNIST with torchvision (11 MB), or copy its four idx files there, packed "
                            "(.gz) or unpacked")
        _download(root)
        paths = [find_mnist(root, name) for name in FILES[split]]
    images_path, labels_path = paths
    digits = _parse_idx(images_path, unpack(images_path), ndim=3)
    labels = _parse_idx(labels_path, unpack(labels_path), ndim=1)
    if digits.shape[1:] != (SIDE, SIDE):
        raise UserError(f"{images_path} holds pictures of {digits.shape[1]} x {digits.shape[2]} pixels, "
                        f"MNIST has {SIDE} x {SIDE}: replace the file by MNIST's own")
    if len(digits) != len(labels):
        raise UserError(f"{images_path} holds {len(digits)} digits, {labels_path.name} {len(labels)} labels: "
                        "both must come from the same split of MNIST, replace the wrong one")
    if labels.max() >= N_CLASSES:
        row = int(np.argmax(labels >= N_CLASSES))
        raise UserError(f"{labels_path} has the label {labels[row]} in row {row}, digits are 0 to 9: replace "
                        "the file by MNIST's own")
    return digits, labels


def find_mnist(root: Path, name: str) -> Path | None:
    for folder in (root / "mnist", root / "mnist" / "MNIST" / "raw"):       # the second is torchvision's
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    return None


def _download(root: Path) -> None:
    from torchvision.datasets import MNIST

    try:
        MNIST(root / "mnist", download=True)        # compares the files' MD5 with its own list
    except Exception as error:                      # network, proxy, disk: torchvision lets all kinds through
        raise UserError(f"MNIST could not be downloaded to {root / 'mnist'} ({type(error).__name__}: "
                        f"{error}): check the connection, or copy its four idx files there") from error


def unpack(path: Path) -> bytes:
    """What an idx file holds, and not much more than it says of itself, whatever a packed one would unpack to."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            head = file.read(16)
            ndim = min(head[3], 3) if len(head) > 3 else 0
            stated = int(np.prod(np.frombuffer(head[4:4 + 4 * ndim].ljust(4 * ndim, b"\0"), ">u4"), dtype=object))
            return head + file.read(min(stated, MOST_BYTES) + 16)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} ({path.stat().st_size:,} bytes) is cut or damaged ({error}), a complete gzip file "
                        "was expected: delete it and copy or download it again") from error


def _parse_idx(path: Path, content: bytes, ndim: int) -> np.ndarray:
    """An idx file of bytes: 00 00 08 ndim, the dimensions as big-endian 32-bit numbers, the values."""
    magic = bytes((0, 0, 8, ndim))
    if content[:4] != magic:
        raise UserError(f"{path} begins with {content[:4].hex(' ') or 'nothing'}, an idx file of "
                        f"{'images' if ndim == 3 else 'labels'} with {magic.hex(' ')}: it is another file "
                        "under this name, replace it by MNIST's own")
    header = 4 + 4 * ndim
    shape = np.frombuffer(content[4:header].ljust(4 * ndim, b"\0"), dtype=">u4").tolist()
    expected = header + int(np.prod(shape, dtype=object))
    if len(content) != expected or shape[0] == 0:
        raise UserError(f"{path} holds {len(content):,} bytes unpacked, its header says "
                        f"{' x '.join(map(str, shape))} values and asks for {expected:,}: it is cut or "
                        "empty, copy or download it again")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
