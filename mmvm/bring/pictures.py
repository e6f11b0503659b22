"""Folders of pictures, one folder a class, as torchvision's `ImageFolder` reads them: a modality each."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.modality import Modality


def from_folders(roots: Mapping[str, str | os.PathLike], size: int | tuple[int, int] = 64, colour: bool = True,
                 **modalities: Mapping) -> MultimodalData:
    """Pictures ROOT/CLASS/NAME.png (jpg, ...), a root for each modality, as bytes (N, 3 or 1, H, W).

    Pictures of the same CLASS/NAME are one sample, whatever their suffix; one that a root lacks is not observed there.
    The classes are labels, CLASS/NAME are ids. Each is scaled so that its shorter side fits `size` and cut around its
    middle; more than 8 bits a pixel are refused. `modalities` describes them by name,
    photo=dict(likelihood=Normal(0.1)); otherwise it is the paper's Laplace of values from 0 to 1. Raises `UserError`.

    >>> data = mmvm.bring.from_folders({"photo": "photos", "sketch": "sketches"}, size=32)
    >>> data.names, data.specs[0].shape
    (['photo', 'sketch'], (3, 32, 32))
    """
    from torchvision.datasets import ImageFolder  # slow to import

    sides = [size, size] if isinstance(size, int) else list(size)
    if not roots or set(modalities) - set(roots):
        raise UserError(f"modalities {sorted(modalities)} for roots {list(roots)}: give each root a name, no other")
    found = {}
    for name, root in roots.items():
        try:
            folder = ImageFolder(Path(root).expanduser(), allow_empty=True)
        except OSError as error:
            raise UserError(f"{root} is no folder of one folder of pictures a class ({error}): correct it") from None
        paths = {Path(path).relative_to(folder.root).with_suffix("").as_posix(): path for path, _ in folder.samples}
        if len(paths) < len(folder.samples) or not paths:
            raise UserError(f"{root} holds {len(folder.samples)} pictures, of {len(paths)} different names, in folders "
                            "of classes: at least one is needed, and one of each name")
        found[name] = {sample: _read(folder.loader, path, sides, colour) for sample, path in paths.items()}
    ids = sorted(set().union(*found.values()))
    nothing = np.zeros((3 if colour else 1, *sides), np.uint8)
    specs = [Modality.guess(name, nothing[None], None, **{"scale": 1 / 255, **modalities.get(name, {})})
             for name in found]
    x = {name: torch.from_numpy(np.stack([own.get(i, nothing) for i in ids])) for name, own in found.items()}
    observed = {name: np.array([i in own for i in ids]) for name, own in found.items()}
    return MultimodalData(x, tuple(specs), [i.split("/")[0] for i in ids], observed, ids)


def _read(loader: Callable, path: str, size: list[int], colour: bool) -> np.ndarray:
    try:
        with Image.open(path) as file:
            if file.mode[0] in "IF":
                raise UserError(f"{path} has more than 8 bits a pixel (mode {file.mode}): bring its values to bytes, "
                                "or read it yourself and give MultimodalData an array of floats")
        picture = loader(path).convert("RGB" if colour else "L")
    except OSError as error:
        raise UserError(f"{path} cannot be read as a picture ({error}): replace it, or take it away") from None
    fitted = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BILINEAR)
    return np.atleast_3d(np.asarray(fitted)).transpose(2, 0, 1)
