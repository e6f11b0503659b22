"""Digits on crops of photos: the pictures of one modality."""

from pathlib import Path

import numpy as np
from PIL import Image

from mmvm.errors import UserError
from mmvm.paths import REPOSITORY, home
from studies.polymnist.mnist import N_CLASSES, SIDE, SPLITS

THRESHOLD = 128                 # a digit is where MNIST is brighter than this


def stream_of(seed: int, split: str, *numbers: int) -> np.random.PCG64:
    """The random stream of modality `number` - 1, or of the choice of rows (`number` 0)."""
    return np.random.PCG64(np.random.SeedSequence([seed, SPLITS[split], *numbers]))


def below(raw: np.ndarray, bound: int) -> np.ndarray:
    """Raw 64-bit numbers as integers in 0 .. bound - 1 (off uniform by less than bound / 2**32)."""
    return (((raw >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def draw(labels, photo, stream, scale, shift=1.0) -> dict[str, np.ndarray]:
    """What every row of a modality shows, integers (N,): `instance`, the row of its digit, `crop_y` and `crop_x` of its
    background in the photo, and `y` and `x` of a translated digit, in pixels from the top and from the left, drawn from
    the middle `shift` of the places where it fits.

    Every row's numbers are drawn whether or not the row is wanted, and the digits' places whether or not they
    move, so that a subset and the untranslated set show the same instances on the same crops.
    """
    order, top, left, down, right = stream.random_raw(5 * len(labels)).reshape(5, -1)
    instance = np.empty(len(labels), dtype=np.int64)
    for digit in range(N_CLASSES):
        members = np.flatnonzero(labels == digit)
        instance[members] = members[np.argsort(order[members], kind="stable")]
    drawn = {"instance": instance, "crop_y": below(top, photo.shape[0] - SIDE + 1),
             "crop_x": below(left, photo.shape[1] - SIDE + 1)}
    if scale is not None:
        room = SIDE - round(SIDE * scale)
        used = round(room * shift)
        edge = (room - used) // 2
        drawn.update({"y": edge + below(down, used + 1), "x": edge + below(right, used + 1)})
    return drawn


def build_modality(digits, photo, drawn, scale) -> np.ndarray:
    """One modality: digits (N, 28, 28) and photo (H, W, 3) to pictures (B, 3, 28, 28), all uint8, of B rows of what
    `draw` says."""
    channels_first = np.ascontiguousarray(photo.transpose(2, 0, 1))
    crops = np.lib.stride_tricks.sliding_window_view(channels_first, (SIDE, SIDE), axis=(1, 2))
    crops = crops.transpose(1, 2, 0, 3, 4)          # (H - 27, W - 27, 3, 28, 28)
    pictures = crops[drawn["crop_y"], drawn["crop_x"]]

    if scale is None:
        mask = digits[drawn["instance"]] > THRESHOLD
    else:
        mask = _place(resize(digits[drawn["instance"]], round(SIDE * scale)), drawn["y"], drawn["x"])
    pictures ^= mask[:, None].view(np.uint8) * np.uint8(255)        # b XOR 255 = 255 - b
    return pictures


def resize(digits: np.ndarray, side: int) -> np.ndarray:
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


def photo_folder(root: Path, backgrounds) -> Path:
    if backgrounds is not None:
        folder = home(backgrounds)
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


def photo_paths(folder: Path) -> list[Path]:
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    paths = [path for path in folder.iterdir()
             if path.suffix.lower() in readable and not path.name.startswith(".")]
    return sorted(paths, key=lambda path: path.name)


def read_photos(folder: Path, n_modalities: int) -> list[np.ndarray]:
    paths = photo_paths(folder)
    if len(paths) < n_modalities:
        raise UserError(f"{folder} holds {len(paths)} photos, {n_modalities} modalities need one each: add "
                        f"photos, or lower n_modalities to {len(paths)}")
    return [read_photo(path) for path in paths[:n_modalities]]


def read_photo(path: Path) -> np.ndarray:
    """A photo as (H, W, 3) uint8."""
    try:
        if not path.is_file():
            raise OSError("it is no file")
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
