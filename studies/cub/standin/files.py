"""A stand-in for CUB: painted birds with captions and attributes, written to disk in the official layout.

`simulate` writes, `studies.cub.data.load` reads it like the original. The set has the original's oddities too: one
grey image, a few malformed attribute rows, images of different sizes. The same arguments give the same set on one
machine; another version of Pillow may differ by a grey level here and there.
"""

import json
import os
import shutil
from pathlib import Path
from random import Random

from PIL import Image

from mmvm.errors import UserError
from mmvm.paths import data_root, home
from studies.cub.attributes import NAMES
from studies.cub.standin.captions import area_by_colour, captions, visible
from studies.cub.standin.paint import Picture, paint
from studies.cub.standin.species import GREYS, Bird, Species, draw_bird, draw_species

VERSION = 1                 # of the painter and the grammar: sets of another version are not mistaken for this one's
SETTINGS = "standin.json"   # written last, so a set that has it is complete
PRIMARY_SHARE = 0.18        # of the bird's visible area that makes a colour a primary one
FAMILIES = {"cone": ("Finch", "Sparrow", "Grosbeak"), "short": ("Warbler", "Swallow", "Vireo"),
            "long": ("Kingfisher", "Woodpecker", "Tern"), "curved": ("Thrasher", "Cuckoo", "Wren"),
            "hooked": ("Gull", "Shrike", "Jay")}
BILL_SHAPES = {"cone": "cone", "short": "all-purpose", "long": "dagger", "curved": "curved_(up_or_down)",
               "hooked": "hooked"}
# attribute group -> the part whose colour it names
COLOURED = {"wing": "wings", "upperparts": "back", "underparts": "belly", "back": "back", "upper_tail": "tail",
            "under_tail": "tail", "breast": "breast", "throat": "throat", "eye": "eye", "forehead": "crown",
            "nape": "head", "belly": "belly", "leg": "legs", "bill": "beak", "crown": "crown"}


def simulate(root: str | os.PathLike | None = None, n_images: int = 3_000, n_species: int | None = None,
             seed: int = 0) -> Path:
    """Writes `n_images` painted birds of `n_species` classes to `root` (which must not exist) and returns it.

    root       by default data/cub/standin-<n_images>-<seed>
    n_species  by default 200 as in CUB, or half as many as images if those are fewer than 400

    root/CUB_200_2011 has images.txt, train_test_split.txt, image_class_labels.txt, classes.txt, images/ and
    attributes/image_attribute_labels.txt (312 rows an image); root/attributes.txt the names; root/text_c10 ten captions
    an image. A complete set of the same arguments is left as it is. About 10 ms an image on one core. Raises
    `UserError` for numbers that make no set and where `root` holds something else.
    """
    root = data_root() / "cub" / f"standin-{n_images}-{seed}" if root is None else home(root)
    n_species = min(200, n_images // 2) if n_species is None else n_species
    settings = {"version": VERSION, "n_images": n_images, "n_species": n_species, "seed": seed}
    if not 4 <= n_species <= 999 or n_images < 2 * n_species:
        raise UserError(f"n_images={n_images} of n_species={n_species}: give 4 to 999 species and at least two images "
                        "of each")
    if _settings(root) == settings:
        return root
    if root.exists():
        raise UserError(f"{root} exists and is no stand-in of these settings ({settings}): name another folder, or "
                        "delete it")
    root.parent.mkdir(parents=True, exist_ok=True)
    part = root.with_name(f".{root.name}.{os.getpid()}")
    try:
        _write(part, n_images, n_species, seed)
        (part / SETTINGS).write_text(json.dumps(settings))
        os.rename(part, root)
    except OSError:
        if not (root / SETTINGS).is_file():     # no other process has made it meanwhile
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def _settings(root: Path) -> dict | None:
    """Those that a set was made with; None where it does not say, also in a file that is cut."""
    try:
        return json.loads((root / SETTINGS).read_text())
    except (OSError, ValueError):
        return None


def _write(root: Path, n_images: int, n_species: int, seed: int) -> None:
    base, lists = root / "CUB_200_2011", {"images": [], "split": [], "classes": [], "labels": []}
    (base / "attributes").mkdir(parents=True)
    with open(base / "attributes" / "image_attribute_labels.txt", "w") as attributes:
        number = 0
        for c in range(n_species):
            species = _species(c, seed)
            name = f"{c + 1:03d}.{_name(species, Random(f'{seed}/name/{c}'))}"
            lists["classes"].append(f"{c + 1} {name}")
            for folder in (base / "images" / name, root / "text_c10" / name):
                folder.mkdir(parents=True)
            count = n_images * (c + 1) // n_species - n_images * c // n_species
            for k in range(count):
                number += 1
                draw = Random(f"{seed}/image/{c}/{k}")
                bird = draw_bird(draw, species)
                if c == 0 and k == 0:   # the first species has no colours: every set has a grey picture
                    bird = Bird(species, species.colours, bird.pose, grey=True)
                picture = paint(bird, draw)
                stem = f"{name}/{name[4:]}_{k + 1:04d}_{number}"
                image = Image.fromarray(picture.image)
                (image.convert("L") if bird.grey else image).save(base / "images" / f"{stem}.jpg", quality=92)
                (root / "text_c10" / f"{stem}.txt").write_text("\n".join(captions(bird, picture, draw)) + "\n")
                attributes.write(_attribute_rows(number, bird, picture, malformed=number in (2, 5)))
                lists["images"].append(f"{number} {stem}.jpg")
                lists["labels"].append(f"{number} {c + 1}")
                lists["split"].append(f"{number} {(k + c) % 2}")
    for file, lines in (("images.txt", "images"), ("train_test_split.txt", "split"), ("classes.txt", "classes"),
                        ("image_class_labels.txt", "labels")):
        (base / file).write_text("\n".join(lists[lines]) + "\n")
    (root / "attributes.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(NAMES, 1)))


def _species(c: int, seed: int) -> Species:
    draw = Random(f"{seed}/species/{c}")
    species = draw_species(draw)
    while c == 0 and not set(species.colours.values()) <= set(GREYS):
        species = draw_species(draw)
    return species


def _name(species: Species, draw: Random) -> str:
    part, word = draw.choice((("crown", "crowned"), ("beak", "billed"), ("wings", "winged"), ("breast", "breasted")))
    return f"{species.colours[part].capitalize()}_{word}_{draw.choice(FAMILIES[species.beak])}"


def _attribute_rows(number: int, bird: Bird, picture: Picture, malformed: bool) -> str:
    """312 rows "image attribute is_present certainty seconds"; malformed ones have a field too many or too few."""
    present, s = {}, bird.species
    seen = visible(picture)
    for group, part in COLOURED.items():
        if part in seen:
            present[f"has_{group}_color::{bird.colours[part]}"] = 4 if picture.shares[part] > 0.04 else 3
    for colour, share in area_by_colour(bird, picture).items():
        if share >= PRIMARY_SHARE:
            present[f"has_primary_color::{colour}"] = 4 if share > 0.3 else 3
    if "beak" in seen:
        present[f"has_bill_shape::{BILL_SHAPES[s.beak]}"] = 3
    if "breast" in seen:
        present[f"has_breast_pattern::{s.pattern}"] = 3
    if "wings" in seen:
        present[f"has_wing_pattern::{'striped' if s.wing_bars else 'solid'}"] = 3
    if s.crest:
        present["has_head_pattern::crested"] = 4
    rows = []
    for i, name in enumerate(NAMES, 1):
        certainty = present.get(name)
        rows.append(f"{number} {i} {int(certainty is not None)} {certainty or 1} {1 + (number * i) % 97 / 8:.3f}\n")
    if malformed:
        rows[9] = f"{number} 10 0 1 0 {1.5 + number % 7:.3f}\n"
        rows[253] = f"{number} 254\n" if number == 5 else rows[253]
    return "".join(rows)
