"""Is a copy of CUB complete? Counts, missing files, splits, attribute rows; and what to download where it is not."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from mmvm.errors import UserError
from studies.cub import attributes as cub_attributes
from studies.cub.index import SPLITS, WHERE, Index, present, read_index, split_of

# the complete set, and the paper's class split of it
FULL = {"images": 11_788, "classes": 200, "official train": 5_994, "official test": 5_794, "class train": 8_855,
        "class test": 2_933}


def verify(root: Path, *, split_by: str, missing: str, attributes: bool) -> list[str]:
    """A report on the files under `root`, one line each: lists, images, captions, splits, attributes.

    Every image is opened and every caption file read, without a cache. What these options of `load` can do without may
    be absent, and is named with what needs it. Raises one `UserError` that names all problems, and where the files
    come from.
    """
    listed = read_index(root)
    index, _, skipped = present(listed, np.ones(len(listed.names), bool), missing) if missing == "skip" else (
        listed, None, [])
    report, problems = [_count(listed), *skipped], []
    for step in (_images, _captions, _attributes if attributes else _no_attributes):
        try:
            report += step(index)
        except UserError as error:
            problems.append(str(error))
    for by in SPLITS:
        try:
            is_train, how = split_of(listed, by)
            is_train = present(listed, is_train, "skip")[1] if missing == "skip" else is_train
            sizes = int(is_train.sum()), int((~is_train).sum())
            kind = "official" if by == "official" else "class"
            full = sizes == (FULL[f"{kind} train"], FULL[f"{kind} test"])
            report.append(f"{kind} {how}; {sizes[0]:,} images for training, {sizes[1]:,} for testing"
                          + (" (the paper's numbers)" if full and kind == "class" else " (complete)" if full else ""))
        except UserError as error:
            if by == split_by:
                problems.append(str(error))
            else:
                report.append(f"split_by={by!r} cannot be used: {error}")
    if problems:
        raise UserError(f"{root} is not as it should be:\n" + "\n".join(problems) + f"\nThe files: {WHERE}")
    return report


def _count(index: Index) -> str:
    n_images, n_classes = len(index.names), len(set(index.classes.tolist()))
    complete = n_images == FULL["images"] and n_classes == FULL["classes"]
    return (f"{n_images:,} images of {n_classes} classes: "
            + ("complete" if complete else f"CUB-200-2011 has {FULL['images']:,} of {FULL['classes']}, so this is a "
               "subset or a stand-in"))


def _images(index: Index) -> list[str]:
    modes, sides, missing, broken = Counter(), [], [], []
    for i in range(len(index.names)):
        path = index.image(i)
        if not path.is_file():
            missing.append(path)
            continue
        try:
            with Image.open(path) as image:
                image.verify()
                modes[image.mode] += 1
                sides.append(min(image.size))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            broken.append(path)
    _refuse(missing, "image files are missing", len(index.names))
    _refuse(broken, "image files cannot be read", len(index.names))
    grey = sum(n for mode, n in modes.items() if mode in ("L", "LA", "1", "I;16"))
    return [f"images: all {len(sides):,} are there and open; {grey} grey; shorter sides {min(sides)} to {max(sides)} "
            "pixels"]


def _captions(index: Index) -> list[str]:
    missing, counts = [], Counter()
    for i in range(len(index.names)):
        path = index.caption(i)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        lines = sum(bool(line.strip()) for line in lines)
        counts[lines] += 1
        if not lines:
            missing.append(path)
    _refuse(missing, "caption files are missing or empty", len(index.names))
    other = sum(n for lines, n in counts.items() if lines != 10)
    return [f"captions: {sum(lines * n for lines, n in counts.items()):,}, ten for each image"
            + (f" but {other}" if other else "")]


def _no_attributes(index: Index) -> list[str]:
    """Nothing asks for them."""
    return [] if has_attributes(index) else _attributes(index)


def has_attributes(index: Index) -> bool:
    return (index.base / "attributes" / "image_attribute_labels.txt").is_file()


def _attributes(index: Index) -> list[str]:
    path = index.base / "attributes" / "image_attribute_labels.txt"
    if not path.is_file():
        return [f"attributes: {path.relative_to(index.base.parent)} is absent; labels='attributes' needs it, "
                "labels='captions' does not"]
    rows = cub_attributes.read(path)
    absent = np.setdiff1d(index.numbers, np.fromiter(rows.colours, int))
    if len(absent):
        raise UserError(f"{path} has no row for {len(absent)} of {len(index.numbers)} images, the first is image "
                        f"{absent[0]}")
    full = len(index.names) != FULL["images"] or rows.n_rows == cub_attributes.ROWS
    return [f"attributes: {rows.report()}" + ("" if full else f"; the official file has {cub_attributes.ROWS:,} rows")]


def _refuse(paths: list[Path], what: str, total: int) -> None:
    if paths:
        raise UserError(f"{len(paths)} of {total} {what}, the first is {paths[0]}")
