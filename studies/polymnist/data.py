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

import os

import numpy as np
import torch

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.likelihoods import Laplace
from mmvm.paths import data_root, home
from studies.polymnist.check import check as verify, n_folders
from studies.polymnist.mnist import HELD_OUT, N_CLASSES, SIDE, SPLITS, is_whole, read_mnist
from studies.polymnist.pictures import (
    THRESHOLD,
    build_modality,
    draw,
    photo_folder,
    photo_paths,
    read_photos,
    stream_of,
)
from studies.polymnist.released import digit_of, is_released, read_released, released_table

__all__ = ["check", "factors", "load"]

SHARED = ("validation tuples of this layout are other tuples, but not of other handwriting: nearly all their digits "
          "are in training tuples too, and no file says which. Only what is built from the MNIST files keeps them "
          "apart; test tuples are of other digits in both layouts")


def load(split, root=None, *, n_modalities=5, translated=True, scale=0.75, shift=1.0, backgrounds=None, seed=0,
         n=None, held_out=False, download=False) -> MultimodalData:
    """PolyMNIST as modalities m0, m1, ..., each (N, 3, 28, 28) uint8, with labels (N,) int64.

    split         "train" (60,000 tuples), "test" (10,000), or "validation" (5,000, made of the last digits of the
                  training files alone; of the released layout the last 5,000 training tuples, see `SHARED`)
    root          folder with `mnist/` and `backgrounds/`, by default the one that ships; in the absence of
                  `backgrounds/` the photos that ship are used. A folder of the released layout
                  (`train/m0/<i>.<digit>.png`, ...) is read as it is: rows pair by the number i, in numeric
                  order; `translated`, `scale`, `shift` and `seed` (but for the choice of `n` rows) have no effect
    n_modalities  1 up to the number of photos; the first three of five equal a set of three
    translated    True: scaled digits at random places (paper section 4.1); False: MNIST's own size and place,
                  the same instances on the same crops
    scale         edge of a translated digit over the picture's edge, in (0, 1]; not used if `translated` is
                  False
    shift         of the room that a translated digit has left and right of the middle, and above and below, the share
                  that it uses, 0 to 1: at 0 scaled digits stand still in the middle
    backgrounds   folder of other photos, one per modality in the order of their names, each at least 28 x 28
    seed          whole number >= 0; modality m depends on (seed, split, m) and on nothing else
    n             only this many tuples: rows drawn at random with the same seed, in random order, so that
                  n = 200 begins with n = 100 and all are rows of the full set, which is in MNIST's own order.
                  `ids` ("train/123") name the rows
    held_out      True: "train" without the digits of "validation" (55,000 tuples); of the released layout without its
                  tuples, whose handwritten digits other training tuples show too
    download      True: fetch MNIST with torchvision into `root/mnist` where it is absent

    Raises `UserError` for unknown options and for absent, cut or inconsistent files, with file, row and cure.
    """
    root = data_root() / "polymnist" if root is None else home(root)
    _check_options(split, n_modalities, scale, shift, seed)
    if is_released(root):
        if backgrounds is not None:
            raise UserError(f"{root} holds finished PolyMNIST pictures, which have their photos already: "
                            "drop `backgrounds`, or point `root` to a folder with the MNIST files")
        return _load_released(root, split, n_modalities, seed, n, held_out)

    scale = scale if translated else None
    digits, labels, rows, photos, drawn = _drawn(root, split, n_modalities, scale, shift, backgrounds, seed, n,
                                                 held_out, download)
    modalities = {f"m{m}": torch.from_numpy(build_modality(digits, photo, own, scale))
                  for m, (photo, own) in enumerate(zip(photos, drawn))}
    return _assemble(modalities, labels, [f"{split}/{i}" for i in rows])


def factors(split, root=None, *, n_modalities=5, translated=True, scale=0.75, shift=1.0, backgrounds=None, seed=0,
            n=None, held_out=False) -> dict[str, np.ndarray]:
    """What `load` with the same arguments has drawn: "digit" (N,), which the modalities of a tuple share, and of each
    modality its own, (M, N):

    instance        number of the handwritten digit among those of the split's files
    ink, slant      of that digit as MNIST has it: its pixels above 128, and the shear of their cloud, pixels to the
                    left for one down: a number for what is continuous in a handwriting
    crop_y, crop_x  of the background in its photo, pixels from the top and from the left
    y, x            of a translated digit in the picture, likewise

    Raises `UserError` as `load`, and for a folder of the released layout, which does not say.
    """
    root = data_root() / "polymnist" if root is None else home(root)
    _check_options(split, n_modalities, scale, shift, seed)
    if is_released(root):
        raise UserError(f"{root} holds finished PolyMNIST pictures, which do not say what they were made of: point "
                        "`root` to a folder with the MNIST files")
    digits, labels, _, _, drawn = _drawn(root, split, n_modalities, scale if translated else None, shift, backgrounds,
                                         seed, n, held_out, False)
    found = {name: np.stack([own[name] for own in drawn]) for name in drawn[0]}
    found["ink"], found["slant"] = (np.stack(x) for x in zip(*(_strokes(digits[own["instance"]]) for own in drawn)))
    return {"digit": labels.astype(np.int64), **found}


def _drawn(root, split, n_modalities, scale, shift, backgrounds, seed, n, held_out, download) -> tuple:
    """All digits of the split; labels and numbers of the `n` rows; photos; and what each modality's rows show."""
    photos = read_photos(photo_folder(root, backgrounds), n_modalities)
    digits, labels = read_mnist(root, "test" if split == "test" else "train", download)
    own = _part(len(labels), split, held_out)
    digits, labels = digits[own], labels[own]
    rows = _select(len(labels), split, seed, n)
    drawn = [{name: x[rows] for name, x in draw(labels, photo, stream_of(seed, split, m + 1), scale, shift).items()}
             for m, photo in enumerate(photos)]
    return digits, labels[rows], rows, photos, drawn


def _strokes(digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ink and slant (N,) of digits (N, 28, 28)."""
    mask = digits > THRESHOLD
    ink = mask.sum((1, 2))
    y, x = np.arange(SIDE), np.arange(SIDE)
    down, right = mask.sum(2), mask.sum(1)
    n = np.maximum(ink, 1)
    mean_y, mean_x = down @ y / n, right @ x / n
    both = (mask @ x) @ y / n - mean_y * mean_x
    return ink, -both / np.maximum(down @ y**2 / n - mean_y**2, 1e-12)


def check(root: str | os.PathLike | None = None, *, n_modalities: int | None = None, translated: bool = True,
          scale: float = 0.75, shift: float = 1.0, backgrounds: str | None = None, seed: int = 0,
          n: int | None = 1_000, held_out: bool = False) -> list[str]:
    """A report on the files (see `studies.polymnist.check`), and on `n` tuples (None: all) of each split that `load`
    makes of them with the same options. n_modalities: None for as many as there are. Raises `UserError` with all
    problems."""
    root = data_root() / "polymnist" if root is None else home(root)
    released = is_released(root)
    _check_options("train", 1 if n_modalities is None else n_modalities, scale, shift, seed)
    report = verify(root, backgrounds)
    if n_modalities is None:
        n_modalities = n_folders(root, "train") if released else len(photo_paths(photo_folder(root, backgrounds)))
    for split in ("train", "test"):
        whole = len(released_table(root, split, 1)[0] if released else read_mnist(root, split, False)[1])
        whole -= HELD_OUT * (held_out and split == "train")
        data = load(split, root, n_modalities=n_modalities, translated=translated, scale=scale, shift=shift,
                    backgrounds=backgrounds, seed=seed, n=min(n or whole, whole) if whole > 0 else None,
                    held_out=held_out)
        report += data.inventory(split if len(data) == whole else f"{split}, {len(data):,} of {whole:,}")
        report += [SHARED] * (released and split == "train")
    return report


def _part(n_rows: int, split: str, held_out: bool) -> slice:
    """The rows of a file that belong to a split."""
    if split == "validation":
        return slice(max(n_rows - HELD_OUT, 0), None)
    return slice(0, n_rows - HELD_OUT) if held_out and split == "train" else slice(None)


def _select(n_rows: int, split: str, seed: int, n: int | None) -> np.ndarray:
    if not n_rows:
        raise UserError(f"no row is left for the {split} split: the last {HELD_OUT:,} training rows are those of "
                        "validation: leave held_out (in a study: validation) out, or add rows")
    if n is None:
        return np.arange(n_rows)
    if not is_whole(n) or not 1 <= n <= n_rows:
        raise UserError(f"n={n!r} tuples asked for, the {split} split has {n_rows}: give 1 to {n_rows}, or "
                        "None for all (in a study: n_train, n_test)")
    return np.argsort(stream_of(seed, split, 0).random_raw(n_rows), kind="stable")[:n]


def _assemble(modalities, labels, ids) -> MultimodalData:
    specs = tuple(Modality(name, (3, SIDE, SIDE), Laplace(0.75), scale=1 / 255) for name in modalities)
    labels = torch.from_numpy(labels.astype(np.int64))
    return MultimodalData(modalities, specs, labels, ids=ids, n_classes=N_CLASSES)


def _check_options(split, n_modalities, scale, shift, seed) -> None:
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: PolyMNIST has 'train', 'test' and 'validation'")
    if not is_whole(n_modalities) or n_modalities < 1:
        raise UserError(f"n_modalities={n_modalities!r}: give a whole number from 1 to the number of photos "
                        "(5 ship)")
    if not 0 < scale <= 1 or round(SIDE * scale) < 1:
        raise UserError(f"scale={scale!r}: give the digit's edge over the picture's, above 0 (at least one "
                        f"of {SIDE} pixels) and at most 1")
    if not 0 <= shift <= 1:
        raise UserError(f"shift={shift!r}: give the share of its room that a translated digit uses, 0 (it stands in "
                        "the middle) to 1")
    if not is_whole(seed) or seed < 0:
        raise UserError(f"seed={seed!r}: give a whole number that is not negative")


def _load_released(root, split, n_modalities, seed, n, held_out) -> MultimodalData:
    folder = "test" if split == "test" else "train"
    rows, tables = released_table(root, folder, n_modalities)
    rows = rows[_part(len(rows), split, held_out)]
    rows = [rows[i] for i in _select(len(rows), split, seed, n)]
    modalities = {}
    for m, table in enumerate(tables):
        pictures = np.empty((len(rows), 3, SIDE, SIDE), dtype=np.uint8)
        for i, row in enumerate(rows):
            pictures[i] = read_released(table[row], row)
        modalities[f"m{m}"] = torch.from_numpy(pictures)
    labels = np.array([digit_of(tables[0][row]) for row in rows])
    return _assemble(modalities, labels, [f"{folder}/{row}" for row in rows])
