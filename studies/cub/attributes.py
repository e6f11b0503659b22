"""CUB's 312 attributes: their names, the primary colours among them, and the file with one row per image and attribute.

The official file, `attributes/image_attribute_labels.txt`, has 3,677,856 rows "image attribute is_present certainty
seconds", a few of them with extra fields. What counts here are the first three: a row in which they make sense is read,
however it goes on, and any other is left out; both are counted.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmvm.errors import UserError
from studies.cub.captions import COLOUR_GROUPS

COLOURS = ("blue", "brown", "iridescent", "purple", "rufous", "grey", "yellow", "olive", "green", "pink", "orange",
           "black", "white", "red", "buff")
EYE_COLOURS = tuple(colour for colour in COLOURS if colour != "iridescent")
PATTERNS = ("solid", "spotted", "striped", "multi-colored")
SHAPES = ("upright-perching_water-like", "chicken-like-marsh", "long-legged-like", "duck-like", "owl-like", "gull-like",
          "hummingbird-like", "pigeon-like", "tree-clinging-like", "hawk-like", "sandpiper-like", "upland-ground-like",
          "swallow-like", "perching-like")
GROUPS = {
    "bill_shape": ("curved_(up_or_down)", "dagger", "hooked", "needle", "hooked_seabird", "spatulate", "all-purpose",
                   "cone", "specialized"),
    "wing_color": COLOURS, "upperparts_color": COLOURS, "underparts_color": COLOURS, "breast_pattern": PATTERNS,
    "back_color": COLOURS,
    "tail_shape": ("forked_tail", "rounded_tail", "notched_tail", "fan-shaped_tail", "pointed_tail", "squared_tail"),
    "upper_tail_color": COLOURS,
    "head_pattern": ("spotted", "malar", "crested", "masked", "unique_pattern", "eyebrow", "eyering", "plain",
                     "eyeline", "striped", "capped"),
    "breast_color": COLOURS, "throat_color": COLOURS, "eye_color": EYE_COLOURS,
    "bill_length": ("about_the_same_as_head", "longer_than_head", "shorter_than_head"),
    "forehead_color": COLOURS, "under_tail_color": COLOURS, "nape_color": COLOURS, "belly_color": COLOURS,
    "wing_shape": ("rounded-wings", "pointed-wings", "broad-wings", "tapered-wings", "long-wings"),
    "size": ("large_(16_-_32_in)", "small_(5_-_9_in)", "very_large_(32_-_72_in)", "medium_(9_-_16_in)",
             "very_small_(3_-_5_in)"),
    "shape": SHAPES, "back_pattern": PATTERNS, "tail_pattern": PATTERNS, "belly_pattern": PATTERNS,
    "primary_color": COLOURS, "leg_color": COLOURS, "bill_color": COLOURS, "crown_color": COLOURS,
    "wing_pattern": PATTERNS,
}
NAMES = tuple(f"has_{group}::{value}" for group, values in GROUPS.items() for value in values)
PRIMARY = tuple(NAMES.index(f"has_primary_color::{colour}") + 1 for colour in COLOURS)    # 249 to 263, from 1
ROWS = 3_677_856            # of the official file


@dataclass(frozen=True)
class AttributeRows:
    """`colours[image]` (15,) bool for the image numbers of the file; `report` says what was odd."""

    colours: dict[int, np.ndarray]
    n_rows: int
    n_repaired: int         # rows with extra fields
    n_skipped: int          # rows that make no sense

    def report(self) -> str:
        return (f"{self.n_rows:,} attribute rows of {len(self.colours):,} images; {self.n_repaired} with other than "
                f"five fields read by their first three, {self.n_skipped} left out")


def read(path: Path) -> AttributeRows:
    """The primary colours of every image in an `image_attribute_labels.txt`. Raises `UserError` for an absent file, one
    that holds no such rows, or one in which most rows make no sense."""
    if not path.is_file():
        raise UserError(f"{path} is missing: it comes with CUB_200_2011.tgz. Without it use labels='captions' "
                        "(from the colour words of an image's own captions) or labels='classes'")
    try:
        table = pd.read_csv(path, sep=r"\s+", header=None, names=range(12), dtype=str, engine="c", na_filter=True,
                            encoding_errors="replace")
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path} cannot be read ({str(error).strip()}): rows of five fields, 'image attribute "
                        "is_present certainty seconds', were expected; unpack CUB_200_2011.tgz again") from None
    numbers = table[[0, 1, 2]].apply(pd.to_numeric, errors="coerce")
    sound = (numbers[0] % 1 == 0) & (numbers[0] > 0) & numbers[1].between(1, len(NAMES)) & numbers[2].isin((0, 1))
    if not sound.any() or sound.mean() < 0.5:
        raise UserError(f"{path}: {int((~sound).sum()):,} of {len(table):,} rows are not 'image attribute is_present "
                        "certainty seconds': it is another file under this name, unpack CUB_200_2011.tgz again")
    odd = table[4].isna() | table[5].notna()
    kept = numbers[sound].astype(int)
    colours = kept[kept[1].isin(PRIMARY)]
    images, row = np.unique(kept[0], return_inverse=True)
    found = np.zeros((len(images), len(COLOURS)), bool)
    own = row[kept[1].isin(PRIMARY).to_numpy()]
    np.logical_or.at(found, (own, colours[1].to_numpy() - PRIMARY[0]), colours[2].to_numpy() == 1)
    return AttributeRows(dict(zip(images.tolist(), found)), len(table), int((odd & sound).sum()), int((~sound).sum()))


def merged(colours: np.ndarray) -> np.ndarray:
    """Fifteen primary colours (..., 15) to the paper's six groups (..., 6): a group is present if one of its is."""
    groups = [[COLOURS.index(name) for name in names] for names in COLOUR_GROUPS.values()]
    return np.stack([np.asarray(colours)[..., group].any(-1) for group in groups], -1)
