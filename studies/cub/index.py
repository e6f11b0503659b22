"""CUB's lists: images, their classes, and who is for training; checked before any image is read."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmvm.errors import UserError
from mmvm.paths import data_root

SPLITS = ("classes", "official")
MOST_CLASSES = 1_000  # the release has 200; a copy of one's own may have more
CLASS_LISTS = {"train": "trainvalclasses.txt", "test": "testclasses.txt"}
WHERE = ("CUB_200_2011.tgz (1.1 GB, MD5 97eceeb196236b17998738112f37df78) from "
         "https://www.vision.caltech.edu/datasets/cub_200_2011/ and the folder text_c10 of cvpr2016_cub.tar.gz, which "
         "https://github.com/reedscot/cvpr2016 links to")


def default_root() -> Path:
    """data/cub where the official files were put there, else the stand-in that `simulate` writes by default."""
    root = data_root() / "cub"
    return root if (root / "CUB_200_2011").is_dir() else root / "standin-3000-0"


@dataclass(frozen=True)
class Index:
    """The images of a copy of CUB, by their numbers in images.txt."""

    base: Path                  # CUB_200_2011
    texts: Path                 # text_c10
    numbers: np.ndarray         # (n,)
    names: tuple[str, ...]      # <class>/<name>.jpg
    classes: np.ndarray         # (n,) from 1
    is_train: np.ndarray | None  # (n,) the official split, where it is there
    class_names: tuple[str, ...]

    def image(self, i: int) -> Path:
        return self.base / "images" / self.names[i]

    def caption(self, i: int) -> Path:
        return self.texts / Path(self.names[i]).with_suffix(".txt")

    def subset(self, kept: np.ndarray) -> "Index":
        official = None if self.is_train is None else self.is_train[kept]
        return Index(self.base, self.texts, self.numbers[kept], tuple(self.names[i] for i in kept), self.classes[kept],
                     official, self.class_names)


def read_index(root: Path) -> Index:
    """The lists of images, classes and the official split. Raises `UserError` where one is absent or inconsistent."""
    base = next((folder for folder in (root / "CUB_200_2011", root) if (folder / "images.txt").is_file()), None)
    if base is None:
        raise UserError(f"{root} holds no CUB_200_2011/images.txt. Paint the stand-in with `python -m mmvm data cub "
                        f"--root {shlex.quote(str(root))} --simulate`, or unpack there {WHERE}")
    texts = next((folder / "text_c10" for folder in (root, base, base.parent) if (folder / "text_c10").is_dir()), None)
    if texts is None:
        raise UserError(f"{root} holds no text_c10, the folder of captions: copy it there from cvpr2016_cub.tar.gz, "
                        "which https://github.com/reedscot/cvpr2016 links to")
    images = _pairs(base / "images.txt")
    numbers, names = list(images), tuple(images.values())
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{base / 'images.txt'} names {name} twice: restore the file")
    classes = _numbers(base / "image_class_labels.txt", images, 1, MOST_CLASSES)
    path = base / "train_test_split.txt"
    official = _numbers(path, images, 0, 1).astype(bool) if path.is_file() else None
    path = base / "classes.txt"
    listed = {int(number): name for number, name in _pairs(path).items()} if path.is_file() else {}
    if max(listed, default=0) > MOST_CLASSES:
        raise UserError(f"{path} names class {max(listed)}, at most {MOST_CLASSES} were expected: correct it, or "
                        "restore the file from CUB_200_2011.tgz")
    listed |= {int(c): name.split("/")[0] for c, name in zip(classes, names)}
    class_names = tuple(listed.get(c, f"{c:03d}") for c in range(1, max(listed) + 1))
    return Index(base, texts, np.array(numbers), names, classes, official, class_names)


def _whole(text: str) -> bool:
    """Whether this is a whole number as the release writes them: `str.isdigit` takes what `int` refuses."""
    return text.isascii() and text.isdigit() and len(text) < 10


def _pairs(path: Path) -> dict[int, str]:
    """Lines of a number and a word; every number once."""
    if not path.is_file():
        raise UserError(f"{path} is missing: it comes with CUB_200_2011.tgz, unpack it again")
    found: dict[int, str] = {}
    for row, line in enumerate(_text(path).splitlines(), 1):
        number, _, word = line.strip().partition(" ")
        if not line.strip():
            continue
        if not _whole(number) or not word or int(number) in found:
            what = "a number that came before" if _whole(number) and int(number) in found else "not 'number value'"
            raise UserError(f"{path}, row {row}: {line!r} is {what}: restore the file from CUB_200_2011.tgz")
        found[int(number)] = word.strip()
    if not found:
        raise UserError(f"{path} is empty: restore the file from CUB_200_2011.tgz")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8, or restore it from "
                        "CUB_200_2011.tgz") from None


def _class_list(path: Path) -> set[int]:
    """The class numbers of a list of class names, one a line."""
    found = set()
    for row, line in enumerate(_text(path).splitlines(), 1):
        number = line.strip().split(".")[0]
        if line.strip() and not _whole(number):
            raise UserError(f"{path}, row {row}: {line!r} is no class such as 001.Laysan: correct it, or "
                            "restore the file from cvpr2016_cub.tar.gz")
        found |= {int(number)} if line.strip() else set()
    return found


def _numbers(path: Path, images: dict[int, str], low: int, high: int) -> np.ndarray:
    """The number that `path` gives each image, (n,)."""
    values = _pairs(path)
    for number in images:
        value = values.get(number, "")
        if not _whole(value) or not low <= int(value) <= high:
            what = f"gives image {number} the value {value!r}" if value else f"has no row for image {number}"
            raise UserError(f"{path} {what} ({images[number]}), a number from {low} to {high} was expected: restore "
                            "the file from CUB_200_2011.tgz")
    return np.array([int(values[number]) for number in images])


def split_of(index: Index, split_by: str) -> tuple[np.ndarray, str]:
    """(n,) True for training, and one sentence on where that comes from."""
    if split_by == "official":
        if index.is_train is None:
            raise UserError(f"{index.base / 'train_test_split.txt'} is missing: restore it from CUB_200_2011.tgz, or "
                            "use split_by='classes'")
        return index.is_train, "split: train_test_split.txt"
    present = sorted(set(index.classes.tolist()))
    folder = next((folder for folder in (index.base.parent, index.texts, index.base)
                   if all((folder / name).is_file() for name in CLASS_LISTS.values())), None)
    if folder is None:
        test = set(present[3::4])
        return ~np.isin(index.classes, list(test)), (
            f"split: every fourth of {len(present)} classes for testing, because {' and '.join(CLASS_LISTS.values())} "
            "are absent")
    sides = {split: _class_list(folder / name) for split, name in CLASS_LISTS.items()}
    both, neither = sides["train"] & sides["test"], set(present) - sides["train"] - sides["test"]
    if both or neither:
        raise UserError(f"{folder}: class {min(both or neither)} is in {'both' if both else 'neither'} of "
                        f"{' and '.join(CLASS_LISTS.values())}: restore the files, or delete both for another split")
    return np.isin(index.classes, list(sides["train"])), f"split: {' and '.join(CLASS_LISTS.values())}"


def present(index: Index, is_train: np.ndarray, missing: str) -> tuple[Index, np.ndarray, list[str]]:
    """The images that have a file and captions, and sentences on those that have not."""
    no_image = [i for i in range(len(index.names)) if not _there(index.image(i))]
    no_caption = [i for i in range(len(index.names)) if not _there(index.caption(i))]
    if missing == "skip":   # an image that lacks both is one image
        no_caption = sorted(set(no_caption) - set(no_image))
    lacks = {"image file": no_image, "caption file": no_caption}
    lines = []
    for what, wanting in lacks.items():
        if not wanting:
            continue
        path = (index.image if what == "image file" else index.caption)(wanting[0])
        if missing == "error":
            raise UserError(f"{len(wanting)} of {len(index.names)} images have no {what}, the first is {path} (image "
                            f"{index.numbers[wanting[0]]}): unpack the archives again, or use missing='skip'")
        lines.append(f"{len(wanting)} images without {what} skipped, the first is {index.names[wanting[0]]}")
    kept = np.setdiff1d(np.arange(len(index.names)), lacks["image file"] + lacks["caption file"])
    if not len(kept):
        raise UserError(f"none of {len(index.names)} images of {index.base} has both an image file and captions: "
                        "unpack the archives again")
    return index.subset(kept), is_train[kept], lines


def _there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
