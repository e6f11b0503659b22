"""PolyMNIST: five pictures of the same digit, each on its own photo (paper section 4.1, appendix B.4.1).

The set is built from the four MNIST files and one photo per modality each time it is loaded; nothing but
those inputs is stored. For tuple i of label y, modality m shows

1. another MNIST digit of class y: a random permutation inside each class, one per modality;
2. binarised at 128; in the translated set scaled to 75 % (21 x 21) first and put at a random place, 0 to 7
   pixels from the left and from the top (the released code draws 0 to 20, which leaves the canvas);
3. on a random 28 x 28 crop of photo m, whose colours are inverted (255 - value) where the digit is.

The same arguments give the same bytes on every machine and under every version of NumPy: all randomness is
raw 64-bit output of PCG64, turned into integers here (NumPy promises the raw stream, not the derived integers),
and the digits are resized with integer weights.
"""

import gzip
import hashlib
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmvm.datasets.base import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.likelihoods import Laplace
from mmvm.paths import REPOSITORY, data_root

SIDE = 28                       # pixels of a picture's edge
THRESHOLD = 128                 # a digit is where MNIST is brighter than this
N_CLASSES = 10
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


def load(split, root=None, *, n_modalities=5, translated=True, scale=0.75, backgrounds=None, seed=0, n=None,
         held_out=False, download=False) -> MultimodalData:
    """PolyMNIST as modalities m0, m1, ..., each (N, 3, 28, 28) uint8, with labels (N,) int64.

    split         "train" (60,000 tuples), "test" (10,000), or "validation" (5,000, made of the last digits of the
                  training files alone)
    root          folder with `mnist/` and `backgrounds/`, by default the one that ships; in the absence of
                  `backgrounds/` the photos that ship are used. A folder of the released layout
                  (`train/m0/<i>.<digit>.png`, ...) is read as it is: rows pair by the number i, in numeric
                  order; `translated`, `scale` and `seed` (but for the choice of `n` rows) have no effect
    n_modalities  1 up to the number of photos; the first three of five equal a set of three
    translated    True: scaled digits at random places (paper section 4.1); False: MNIST's own size and place,
                  the same instances on the same crops
    scale         edge of a translated digit over the picture's edge, in (0, 1]; not used if `translated` is
                  False
    backgrounds   folder of other photos, one per modality in the order of their names, each at least 28 x 28
    seed          whole number >= 0; modality m depends on (seed, split, m) and on nothing else
    n             only this many tuples: rows drawn at random with the same seed, in random order, so that
                  n = 200 begins with n = 100 and all are rows of the full set, which is in MNIST's own order.
                  `ids` ("train/123") name the rows
    held_out      True: "train" without the digits of "validation" (55,000 tuples)
    download      True: fetch MNIST with torchvision into `root/mnist` where it is absent

    Raises `UserError` for unknown options and for absent, cut or inconsistent files, with file, row and cure.
    """
    root = data_root() / "polymnist" if root is None else Path(root)
    _check_options(split, n_modalities, scale, seed)
    if _is_released(root):
        if backgrounds is not None:
            raise UserError(f"{root} holds finished PolyMNIST pictures, which have their photos already: "
                            "drop `backgrounds`, or point `root` to a folder with the MNIST files")
        return _load_released(root, split, n_modalities, seed, n, held_out)

    photos = _read_photos(_photo_folder(root, backgrounds), n_modalities)
    digits, labels = _read_mnist(root, "test" if split == "test" else "train", download)
    own = _part(len(labels), split, held_out)
    digits, labels = digits[own], labels[own]
    rows = _select(len(labels), split, seed, n)
    modalities = {}
    for m, photo in enumerate(photos):
        stream = _stream(seed, split, m + 1)
        pictures = _build(digits, labels, photo, rows, stream, scale if translated else None)
        modalities[f"m{m}"] = torch.from_numpy(pictures)
    return _assemble(modalities, labels[rows], [f"{split}/{i}" for i in rows])


def check(root=None) -> list[str]:
    """Verify the files under `root` (by default those that ship) and return a report, one line per file.

    SHA-256 of everything that `SHA256SUMS` lists, MD5 of the unpacked MNIST files, label counts and photos;
    of a folder in the released layout the names and pairs of all files. Raises one `UserError` that names all
    problems.
    """
    root = data_root() / "polymnist" if root is None else Path(root)
    report, problems = [], []

    def attempt(step, *arguments):
        try:
            report.extend(step(*arguments))
        except UserError as error:
            problems.append(str(error))

    if _is_released(root):
        for split in FILES:
            attempt(_report_released, root, split)
    else:
        attempt(_report_sums, root)
        for split in FILES:
            attempt(_report_mnist, root, split)
        attempt(_report_photos, root)
    if problems:
        raise UserError(f"{root} is not as it should be:\n" + "\n".join(problems))
    return report


# Building a modality ---------------------------------------------------------------------------------------

def _stream(seed: int, split: str, number: int) -> np.random.PCG64:
    """The random stream of modality `number` - 1, or of the choice of rows (`number` 0)."""
    return np.random.PCG64(np.random.SeedSequence([seed, SPLITS[split], number]))


def _below(raw: np.ndarray, bound: int) -> np.ndarray:
    """Raw 64-bit numbers as integers in 0 .. bound - 1 (off uniform by less than bound / 2**32)."""
    return (((raw >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def _part(n_rows: int, split: str, held_out: bool) -> slice:
    """The rows of a file that belong to a split."""
    if split == "validation":
        return slice(max(n_rows - HELD_OUT, 0), None)
    return slice(0, n_rows - HELD_OUT) if held_out and split == "train" else slice(None)


def _select(n_rows: int, split: str, seed: int, n: int | None) -> np.ndarray:
    if n is None:
        return np.arange(n_rows)
    if not _is_whole(n) or not 1 <= n <= n_rows:
        raise UserError(f"n={n!r} tuples asked for, the {split} split has {n_rows}: give 1 to {n_rows}, or "
                        "None for all")
    return np.argsort(_stream(seed, split, 0).random_raw(n_rows), kind="stable")[:n]


def _build(digits, labels, photo, rows, stream, scale) -> np.ndarray:
    """One modality: digits (N, 28, 28) and photo (H, W, 3) to pictures (len(rows), 3, 28, 28), all uint8.

    Every row's numbers are drawn whether or not the row is wanted, and the digits' places whether or not they
    move, so that a subset and the untranslated set show the same instances on the same crops.
    """
    order, top, left, down, right = stream.random_raw(5 * len(labels)).reshape(5, -1)
    instance = np.empty(len(labels), dtype=np.int64)
    for digit in range(N_CLASSES):
        members = np.flatnonzero(labels == digit)
        instance[members] = members[np.argsort(order[members], kind="stable")]

    channels_first = np.ascontiguousarray(photo.transpose(2, 0, 1))
    crops = np.lib.stride_tricks.sliding_window_view(channels_first, (SIDE, SIDE), axis=(1, 2))
    crops = crops.transpose(1, 2, 0, 3, 4)          # (H - 27, W - 27, 3, 28, 28)
    pictures = crops[_below(top[rows], crops.shape[0]), _below(left[rows], crops.shape[1])]

    if scale is None:
        mask = digits[instance[rows]] > THRESHOLD
    else:
        small = _resize(digits[instance[rows]], round(SIDE * scale))
        room = SIDE - small.shape[1] + 1
        mask = _place(small, _below(down[rows], room), _below(right[rows], room))
    pictures ^= mask[:, None].view(np.uint8) * np.uint8(255)        # b XOR 255 = 255 - b
    return pictures


def _resize(digits: np.ndarray, side: int) -> np.ndarray:
    """Digits (N, 28, 28) as bool masks (N, side, side): antialiased triangle filter, then the threshold.

    The filter's weights are whole multiples of 2**-14, so that all sums are integers below 2**53: float64 holds
    them exactly, in whatever order the machine's BLAS adds them up.
    """
    small, large = 2 * np.arange(side)[:, None] + 1, 2 * np.arange(SIDE)[None] + 1    # twice the centres
    weight = np.maximum(0, 2 * SIDE - np.abs(side * large - SIDE * small))
    total = weight.sum(1, keepdims=True)
    weight = ((2 * weight * 2 ** 14 + total) // (2 * total)).astype(np.float64)         # (side, 28), rounded
    masks = np.empty((len(digits), side, side), dtype=bool)
    for start in range(0, len(digits), 5000):       # bounds the memory
        chunk = digits[start:start + 5000].astype(np.float64)
        np.greater(weight @ (chunk @ weight.T), THRESHOLD * 2.0 ** 28, out=masks[start:start + 5000])
    return masks


def _place(small: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Masks (N, side, side) on empty canvases (N, 28, 28), `down` and `right` pixels from the corner."""
    side = small.shape[1]
    canvas = np.zeros((len(small), SIDE, SIDE), dtype=bool)
    for i in range(SIDE - side + 1):
        for j in range(SIDE - side + 1):
            here = np.flatnonzero((down == i) & (right == j))
            canvas[here, i:i + side, j:j + side] = small[here]
    return canvas


def _assemble(modalities, labels, ids) -> MultimodalData:
    specs = tuple(Modality(name, (3, SIDE, SIDE), Laplace(0.75), scale=1 / 255) for name in modalities)
    labels = torch.from_numpy(labels.astype(np.int64))
    return MultimodalData(modalities, specs, labels, ids=ids, n_classes=N_CLASSES)


def _is_whole(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_options(split, n_modalities, scale, seed) -> None:
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: PolyMNIST has 'train', 'test' and 'validation'")
    if not _is_whole(n_modalities) or n_modalities < 1:
        raise UserError(f"n_modalities={n_modalities!r}: give a whole number from 1 to the number of photos "
                        "(5 ship)")
    if not 0 < scale <= 1 or round(SIDE * scale) < 1:
        raise UserError(f"scale={scale!r}: give the digit's edge over the picture's, above 0 (at least one "
                        f"of {SIDE} pixels) and at most 1")
    if not _is_whole(seed) or seed < 0:
        raise UserError(f"seed={seed!r}: give a whole number that is not negative")


# The MNIST files -------------------------------------------------------------------------------------------

def _read_mnist(root: Path, split: str, download: bool) -> tuple[np.ndarray, np.ndarray]:
    """Digits (N, 28, 28) uint8 and labels (N,) uint8."""
    paths = [_find_mnist(root, name) for name in FILES[split]]
    if None in paths:
        missing = FILES[split][paths.index(None)]
        if not download:
            raise UserError(f"MNIST file {missing}.gz is not in {root / 'mnist'}: pass download=True to "
                            "fetch MNIST with torchvision (11 MB), or copy its four idx files there, packed "
                            "(.gz) or unpacked")
        _download(root)
        paths = [_find_mnist(root, name) for name in FILES[split]]
    images_path, labels_path = paths
    digits = _parse_idx(images_path, _unpack(images_path), ndim=3)
    labels = _parse_idx(labels_path, _unpack(labels_path), ndim=1)
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


def _find_mnist(root: Path, name: str) -> Path | None:
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


def _unpack(path: Path) -> bytes:
    packed = path.read_bytes()
    if path.suffix != ".gz":
        return packed
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} ({len(packed):,} bytes) is cut or damaged ({error}), a complete gzip file "
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


# The photos ------------------------------------------------------------------------------------------------

def _photo_folder(root: Path, backgrounds) -> Path:
    if backgrounds is not None:
        folder = Path(backgrounds)
        if not folder.is_dir():
            raise UserError(f"backgrounds={str(folder)!r} is not a folder: give one that holds a photo per "
                            "modality")
        return folder
    shipped = REPOSITORY / "data" / "polymnist" / "backgrounds"
    for folder in (root / "backgrounds", shipped):
        if folder.is_dir():
            return folder
    raise UserError(f"no photos: neither {root / 'backgrounds'} nor {shipped} is there, pass `backgrounds`, "
                    "a folder with one photo per modality")


def _photo_paths(folder: Path) -> list[Path]:
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    paths = [path for path in folder.iterdir()
             if path.suffix.lower() in readable and not path.name.startswith(".")]
    return sorted(paths, key=lambda path: path.name)


def _read_photos(folder: Path, n_modalities: int) -> list[np.ndarray]:
    paths = _photo_paths(folder)
    if len(paths) < n_modalities:
        raise UserError(f"{folder} holds {len(paths)} photos, {n_modalities} modalities need one each: add "
                        f"photos, or lower n_modalities to {len(paths)}")
    return [_read_photo(path) for path in paths[:n_modalities]]


def _read_photo(path: Path) -> np.ndarray:
    """A photo as (H, W, 3) uint8."""
    try:
        with Image.open(path) as image:
            mode, photo = image.mode, np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"the photo {path} cannot be read ({error}): replace it by a picture that Pillow "
                        "opens (PNG, JPEG, ...)") from error
    if mode[0] in "IF":
        raise UserError(f"the photo {path} has more than 8 bits per channel (mode {mode}): save it with 8")
    if min(photo.shape[:2]) < SIDE:
        raise UserError(f"the photo {path} has {photo.shape[1]} x {photo.shape[0]} pixels, crops need at "
                        f"least {SIDE} x {SIDE}: give a larger one")
    return photo


# The released layout ---------------------------------------------------------------------------------------

def _is_released(root: Path) -> bool:
    return any((root / split / "m0").is_dir() for split in FILES)


def _load_released(root, split, n_modalities, seed, n, held_out) -> MultimodalData:
    folder = "test" if split == "test" else "train"
    rows, tables = _released_table(root, folder, n_modalities)
    rows = rows[_part(len(rows), split, held_out)]
    rows = [rows[i] for i in _select(len(rows), split, seed, n)]
    modalities = {}
    for m, table in enumerate(tables):
        pictures = np.empty((len(rows), 3, SIDE, SIDE), dtype=np.uint8)
        for i, row in enumerate(rows):
            pictures[i] = _read_released(table[row], row)
        modalities[f"m{m}"] = torch.from_numpy(pictures)
    labels = np.array([_digit(tables[0][row]) for row in rows])
    return _assemble(modalities, labels, [f"{folder}/{row}" for row in rows])


def _released_table(root: Path, split: str, n_modalities: int) -> tuple[list[int], list[dict[int, Path]]]:
    """The row numbers in order, and per modality the file of each row; digits equal over the modalities."""
    tables = [_list_released(root / split / f"m{m}", n_modalities) for m in range(n_modalities)]
    rows = sorted(set().union(*tables))
    for row in rows:
        for m, table in enumerate(tables):
            if row not in table:
                other = next(table[row] for table in tables if row in table)
                raise UserError(f"row {row} is missing in {root / split / f'm{m}'}, but {other} exists: "
                                "every modality needs every row, restore it or remove the others")
            first, here = tables[0][row], table[row]
            if _digit(here) != _digit(first):
                raise UserError(f"row {row} is the digit {_digit(first)} in {first} and {_digit(here)} in "
                                f"{here}: a row must be one digit, unpack the set again")
    return rows, tables


def _list_released(folder: Path, n_modalities: int) -> dict[int, Path]:
    if not folder.is_dir():
        raise UserError(f"folder {folder} is missing, {n_modalities} modalities need m0 to "
                        f"m{n_modalities - 1}: unpack it there, or lower n_modalities")
    table = {}
    for path in folder.iterdir():
        if path.suffix.lower() != ".png" or path.name.startswith("."):
            continue
        if not re.fullmatch(r"[0-9]+\.[0-9]\.png", path.name.lower()):
            raise UserError(f"{path} is not named <row>.<digit>.png, as in 17.4.png: rename or remove it")
        row = int(path.name.split(".")[0])
        if row in table:
            raise UserError(f"row {row} of {folder} has two files, {table[row].name} and {path.name}: remove "
                            "the wrong one")
        table[row] = path
    if not table:
        raise UserError(f"{folder} holds no pictures named <row>.<digit>.png: unpack the set again")
    return table


def _digit(path: Path) -> int:
    return int(path.name.split(".")[1])


def _read_released(path: Path, row: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            mode, picture = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} (row {row}) cannot be read ({error}): unpack the set again") from error
    if mode != "RGB" or picture.shape != (SIDE, SIDE, 3):
        raise UserError(f"{path} (row {row}) is a picture of {picture.shape[1]} x {picture.shape[0]} pixels "
                        f"in mode {mode}, PolyMNIST has {SIDE} x {SIDE} in RGB: unpack the set again")
    return picture.transpose(2, 0, 1)


# Verifying -------------------------------------------------------------------------------------------------

def _report_sums(root: Path) -> list[str]:
    report, problems = [], []
    for expected, name in _read_sums(root):
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


def _read_sums(root: Path) -> list[tuple[str, str]]:
    """(SHA-256, name) per line of `SHA256SUMS`; empty where a folder has none (a download)."""
    path = root / "SHA256SUMS"
    lines = path.read_text().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(r"[0-9a-f]{64}  \S.*", line):
            raise UserError(f"{path}, line {number}: {line!r} is not a SHA-256, two spaces and a name: "
                            f"restore the file (git checkout -- {path})")
    return [tuple(line.split("  ", 1)) for line in lines]


def _report_mnist(root: Path, split: str) -> list[str]:
    _, labels = _read_mnist(root, split, download=False)
    for name in FILES[split]:
        path = _find_mnist(root, name)
        found = hashlib.md5(_unpack(path), usedforsecurity=False).hexdigest()
        if found != MD5[name]:
            raise UserError(f"{path} has MD5 {found} unpacked, MNIST's is {MD5[name]}: replace the file by "
                            "MNIST's own")
    counts = tuple(np.bincount(labels, minlength=N_CLASSES).tolist())
    if counts != LABEL_COUNTS[split]:
        raise UserError(f"the {split} labels count {counts} digits of 0 to 9, MNIST has "
                        f"{LABEL_COUNTS[split]}: replace the file by MNIST's own")
    return [f"MNIST {split}: {len(labels):,} digits, MD5 of the unpacked files and label counts as published"]


def _report_photos(root: Path) -> list[str]:
    folder = _photo_folder(root, None)
    paths = _photo_paths(folder)
    if not paths:
        raise UserError(f"{folder} holds no photos: restore them, or pass `backgrounds` when loading")
    report = []
    for m, path in enumerate(paths):
        photo = _read_photo(path)
        report.append(f"photo of m{m}: {path.name}, {photo.shape[1]} x {photo.shape[0]} pixels")
    return report


def _report_released(root: Path, split: str) -> list[str]:
    n_modalities = sum(bool(re.fullmatch(r"m[0-9]+", path.name)) for path in (root / split).glob("m*"))
    if not n_modalities:
        raise UserError(f"{root / split} has no folders m0, m1, ...: unpack the set again")
    rows, _ = _released_table(root, split, n_modalities)
    return [f"{split}: {len(rows):,} rows in each of {n_modalities} modalities, digits equal"]
