"""CUB-200-2011 with captions: an image and a sentence of 32 tokens (paper section 4.3, appendix B.6.1).

Files, as the archives unpack, under one root:

    CUB_200_2011/images.txt, image_class_labels.txt, train_test_split.txt, images/<class>/<name>.jpg, and for
        labels="attributes" attributes/image_attribute_labels.txt
    text_c10/<class>/<name>.txt      the captions of Reed et al. (2016), one a line, ten an image
    trainvalclasses.txt, testclasses.txt     (in the root or in text_c10) the class split of Reed et al.

Every caption makes a row with its image: the paper's 88,550 + 29,330 pairs of 8,855 + 2,933 images. A split is of
images or of whole classes, so no image is in both. `simulate` writes painted birds in this layout, `check` verifies a
copy of the files.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmvm.data import Modality, MultimodalData, Repeated
from mmvm.errors import UserError
from mmvm.likelihoods import Categorical, Laplace
from mmvm.paths import home
from studies.cub import attributes as cub_attributes
from studies.cub.cache import cached, fingerprint
from studies.cub.captions import COLOUR_GROUPS, PAD, Vocabulary, colour_groups, tokenise
from studies.cub.check import has_attributes, verify
from studies.cub.index import SPLITS, Index, default_root, present, read_index, split_of
from studies.cub.standin.files import simulate

SIDE = 64               # pixels of an image's edge
LENGTH = 32             # tokens of a caption, <eos> among them
TEXT_WEIGHT = 128.0     # of the text's log-likelihood in the released loss: 4096 pixels over 32 tokens
MENTIONS = 0.3          # labels="captions": share of an image's captions that must name a colour
LABELS = ("attributes", "captions", "classes")
CROPS = ("squash", "centre")

__all__ = ["CaptionedImages", "Repeated", "check", "load", "read_captions", "read_image", "read_index", "simulate"]


@dataclass(repr=False)
class CaptionedImages(MultimodalData):
    """`MultimodalData` of the modalities "image" and "text", and what only captions have.

    vocabulary   the words behind the token numbers
    label_names  what the columns of `labels` (N, C) mean, or the class names
    report       one line each on what was skipped, repaired or cut while reading
    """

    vocabulary: Vocabulary = Vocabulary(())
    label_names: tuple[str, ...] = ()
    report: tuple[str, ...] = ()


def load(split: str, root: str | os.PathLike | None = None, *, split_by: str = "classes", labels: str = "attributes",
         crop: str = "squash", missing: str = "error", more_than: int = 3, pads_counted: bool = False,
         text_weight: float = TEXT_WEIGHT, captions_per_image: int | None = None) -> CaptionedImages:
    """Modalities "image" (N, 3, 64, 64) uint8 and "text" (N, 32) int16 token numbers, one row per caption.

    split               "train" or "test"
    root                folder of the files; by default data/cub where that holds them, else the stand-in in it
    split_by            "classes": whole classes, as in the paper, by the two class lists; where these are absent every
                        fourth class is for testing (then it is not the paper's split). "official": train_test_split.txt
    labels              "attributes": (N, 6) bool, the paper's six groups of primary colours; "captions": the same
                        groups, present where at least 30 % of an image's own captions name one of its colours;
                        "classes": (N,) class numbers from 0
    crop                "squash" the whole image to 64 x 64, as in the paper, or take its "centre" square first
    missing             "error", or "skip" images without a file or captions; `report` counts them
    more_than           words of the vocabulary occur more often than this in the training captions
    pads_counted        True: padding counts in the likelihood, as in the released code; False: it is masked
    text_weight         w of the text in the loss; released code: 128, see `TEXT_WEIGHT`
    captions_per_image  the first so many captions of each image; None: all

    Raises `UserError` for unknown options and absent or inconsistent files, with file, row and cure. Decoded images,
    tokens and attributes are cached beside the data.
    """
    _check_choices(split=(split, ("train", "test")), split_by=(split_by, SPLITS), labels=(labels, LABELS),
                   crop=(crop, CROPS), missing=(missing, ("error", "skip")))
    if captions_per_image is not None and captions_per_image < 1:
        raise UserError(f"captions_per_image must be at least 1, or None for all, got {captions_per_image}")
    root = default_root() if root is None else home(root)
    index = read_index(root)
    is_train, how = split_of(index, split_by)
    index, is_train, skipped = present(index, is_train, missing)
    report = [how, *skipped]

    images = _images(index, crop)
    tokens, image_of, mentions, facts = _texts(index, is_train, more_than)
    report += facts["report"]
    vocabulary = Vocabulary(tuple(facts["words"]))
    kept = np.flatnonzero((is_train if split == "train" else ~is_train)[image_of])
    if captions_per_image is not None:
        kept = kept[_rank(image_of[kept]) < captions_per_image]
    if not len(kept):
        raise UserError(f"{root}: no image is left for the {split} split ({how}): use another split_by, or add images")
    rows = torch.from_numpy(image_of[kept].astype(np.int64))

    label_names, n_classes = tuple(COLOUR_GROUPS), None
    if labels == "attributes":
        colours, line = _attributes(index)
        report.append(line)
        values = torch.from_numpy(cub_attributes.merged(colours))
    elif labels == "captions":
        values = torch.from_numpy(np.asarray(mentions) >= MENTIONS)
    else:
        values, label_names = torch.from_numpy(index.classes - 1), index.class_names
        n_classes = len(label_names)
    pixels = torch.from_numpy(images)
    specs = (Modality("image", (3, SIDE, SIDE), Laplace(0.75), scale=1 / 255),
             Modality("text", (LENGTH,), Categorical(None if pads_counted else PAD), weight=text_weight))
    ids = [f"{index.names[image]}#{n}" for image, n in zip(image_of[kept], _rank(image_of[kept]))]
    return CaptionedImages({"image": Repeated(pixels, rows), "text": torch.from_numpy(np.asarray(tokens[kept]))}, specs,
                           values[rows], ids=ids, n_classes=n_classes, vocabulary=vocabulary, label_names=label_names,
                           report=tuple(report))


def check(root: str | os.PathLike | None = None, *, split_by: str = "classes", labels: str | None = None,
          crop: str = "squash", missing: str = "error", more_than: int = 3, pads_counted: bool = False,
          text_weight: float = TEXT_WEIGHT, captions_per_image: int | None = None) -> list[str]:
    """A report on the files, see `verify`, and on what `load` makes of them with the same options; labels: by default
    "attributes" where their file is there, else "captions". `UserError` with all problems."""
    _check_choices(split_by=(split_by, SPLITS), labels=(labels or LABELS[0], LABELS), crop=(crop, CROPS),
                   missing=(missing, ("error", "skip")))
    root = default_root() if root is None else home(root)
    labels = labels or ("attributes" if has_attributes(read_index(root)) else "captions")
    report = verify(root, split_by=split_by, missing=missing, attributes=labels == "attributes")
    for split in ("train", "test"):
        data = load(split, root, split_by=split_by, labels=labels, crop=crop, missing=missing, more_than=more_than,
                    pads_counted=pads_counted, text_weight=text_weight, captions_per_image=captions_per_image)
        images = [name.split("#")[0] for name in data.ids]
        report += data.inventory(split, images=images, classes=[name.split("/")[0] for name in images])
    return [*report, *data.report[1:]]


def _check_choices(**options: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, choices) in options.items():
        if value not in choices:
            raise UserError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _rank(image_of: np.ndarray) -> np.ndarray:
    """The place of each row among those of its image, from 0; rows of an image are neighbours."""
    starts = np.flatnonzero(np.r_[True, image_of[1:] != image_of[:-1]]) if len(image_of) else np.array([], int)
    return np.arange(len(image_of)) - np.repeat(starts, np.diff(np.r_[starts, len(image_of)]))


# the arrays, cached --------------------------------------------------------------------------------------------------

def _images(index: Index, crop: str) -> np.ndarray:
    """(n, 3, 64, 64) uint8."""
    def make():
        pixels = np.empty((len(index.names), 3, SIDE, SIDE), np.uint8)
        for i in range(len(index.names)):
            pixels[i] = read_image(index.image(i), crop).transpose(2, 0, 1)
        return {"pixels": pixels}, {}

    files = [index.image(i) for i in range(len(index.names))]
    arrays, _ = cached(index.base.parent, f"images-{crop}", fingerprint([1, SIDE, index.names], files), make)
    return arrays["pixels"]


def read_image(path: Path, crop: str = "squash") -> np.ndarray:
    """An image as (64, 64, 3) uint8, whatever Pillow reads; grey ones get three equal channels."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
            if crop == "centre":
                edge = min(image.size)
                left, top = (image.width - edge) // 2, (image.height - edge) // 2
                image = image.crop((left, top, left + edge, top + edge))
            return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"the image {path} cannot be read ({error}): unpack CUB_200_2011.tgz again, or delete the "
                        "file and use missing='skip'") from None


def read_captions(path: Path) -> list[list[str]]:
    """The captions of one image, tokenised, without empty lines. Bytes that are no UTF-8 become one token."""
    captions = [tokenise(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    captions = [tokens for tokens in captions if tokens]
    if not captions:
        raise UserError(f"{path} holds no caption: restore it from cvpr2016_cub.tar.gz, or delete it and use "
                        "missing='skip'")
    return captions


def _texts(index: Index, is_train: np.ndarray, more_than: int):
    """Token numbers (R, 32) int16, the image of each row (R,), the share of an image's captions that name a colour
    group (n, 6), and facts: the vocabulary's words and lines for the report."""
    def make():
        captions = [read_captions(index.caption(i)) for i in range(len(index.names))]
        vocabulary = Vocabulary.of((c for i in np.flatnonzero(is_train) for c in captions[i]), more_than)
        image_of = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
        tokens = np.stack([vocabulary.encode(c, LENGTH) for own in captions for c in own]).astype(np.int16)
        mentions = np.array([[np.mean([g in groups for groups in map(colour_groups, own)])
                              for g in range(len(COLOUR_GROUPS))] for own in captions])
        cut = sum(len(c) > LENGTH - 1 for own in captions for c in own)
        unusual = sum(len(own) != 10 for own in captions)
        lines = [f"{len(tokens):,} captions, {cut:,} of them cut to {LENGTH - 1} tokens; {len(vocabulary):,} words"]
        lines += [f"{unusual} images with other than ten captions"] if unusual else []
        return ({"tokens": tokens, "image_of": image_of, "mentions": mentions},
                {"words": list(vocabulary.words), "report": lines})

    files = [index.caption(i) for i in range(len(index.names))]
    key = fingerprint([1, LENGTH, more_than, index.names, is_train.tolist()], files)
    name = f"captions-{fingerprint([more_than, is_train.tolist()], [])[:8]}"
    arrays, facts = cached(index.base.parent, name, key, make)
    return arrays["tokens"], arrays["image_of"], arrays["mentions"], facts


def _attributes(index: Index) -> tuple[np.ndarray, str]:
    """Primary colours (n, 15) bool, and a line for the report."""
    path = index.base / "attributes" / "image_attribute_labels.txt"

    def make():
        rows = cub_attributes.read(path)
        absent = [i for i, number in enumerate(index.numbers) if int(number) not in rows.colours]
        if absent:
            raise UserError(f"{path} has no row for {len(absent)} images, the first is image "
                            f"{index.numbers[absent[0]]} ({index.names[absent[0]]}): unpack CUB_200_2011.tgz again, or "
                            "use labels='captions'")
        return {"colours": np.stack([rows.colours[int(number)] for number in index.numbers])}, {"report": rows.report()}

    key = fingerprint([1, index.numbers.tolist()], [path] if path.is_file() else [])
    arrays, facts = cached(index.base.parent, "attributes", key, make)
    return arrays["colours"], facts["report"]
