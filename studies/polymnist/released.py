"""The layout of the released set: a PNG per picture, `<split>/m<m>/<row>.<digit>.png`."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from mmvm.errors import UserError
from studies.polymnist.mnist import FILES, SIDE


def is_released(root: Path) -> bool:
    return any((root / split / "m0").is_dir() for split in FILES)


def released_table(root: Path, split: str, n_modalities: int) -> tuple[list[int], list[dict[int, Path]]]:
    """The row numbers in order, and per modality the file of each row; digits equal over the modalities."""
    if not (root / split).is_dir():
        raise UserError(f"{root / split / 'm0'} is missing: a set has the folders train and test, "
                        f"unpack or add the whole of {split}")
    tables = [_list_released(root / split / f"m{m}", n_modalities) for m in range(n_modalities)]
    rows = sorted(set().union(*tables))
    for row in rows:
        for m, table in enumerate(tables):
            if row not in table:
                other = next(table[row] for table in tables if row in table)
                raise UserError(f"row {row} is missing in {root / split / f'm{m}'}, but {other} exists: "
                                "every modality needs every row, restore it or remove the others")
            first, here = tables[0][row], table[row]
            if digit_of(here) != digit_of(first):
                raise UserError(f"row {row} is the digit {digit_of(first)} in {first} and {digit_of(here)} in "
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


def digit_of(path: Path) -> int:
    return int(path.name.split(".")[1])


def read_released(path: Path, row: int) -> np.ndarray:
    try:
        if not path.is_file():
            raise OSError("it is no file")
        with Image.open(path) as image:
            mode, picture = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} (row {row}) cannot be read ({error}): unpack the set again") from error
    if mode != "RGB" or picture.shape != (SIDE, SIDE, 3):
        raise UserError(f"{path} (row {row}) is a picture of {picture.shape[1]} x {picture.shape[0]} pixels "
                        f"in mode {mode}, PolyMNIST has {SIDE} x {SIDE} in RGB: unpack the set again, "
                        "or bring pictures of your own to that")
    return picture.transpose(2, 0, 1)
