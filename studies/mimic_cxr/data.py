"""MIMIC-CXR-JPG: a frontal and a lateral chest X-ray with fourteen labels (paper section 4.5).

Files, as PhysioNet has them (credentialed access; nothing of it may be passed on), under one root:

    mimic-cxr-2.0.0-metadata.csv[.gz]    dicom_id, subject_id, study_id, ViewPosition, ...: 377,110 images
    mimic-cxr-2.0.0-chexpert.csv[.gz]    subject_id, study_id and the 14 labels, 1, 0, -1 (uncertain) or empty:
                                         227,827 studies
    mimic-cxr-2.0.0-split.csv[.gz]       dicom_id, study_id, subject_id, split; only for split_by="official"
    files/pXX/p<subject>/s<study>/<dicom>.jpg      XX: the first two digits of the subject's number

Frontal views are AP and PA, lateral ones LATERAL and LL. Every frontal x lateral pair of a study makes a row: the
paper's 128,212 pairs. `prepare` makes small images of the files, once; `load` maps those into memory. `simulate` writes
a stand-in in this layout, `check` says what a copy has and lacks.

Nothing printed, raised or returned here holds a subject, study or dicom id: images go by keyed hashes, which only
`locate` undoes, with the key in the data's own folder `prepared`.
"""

import os
import shlex
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmvm.data import Modality, MultimodalData, Repeated
from mmvm.errors import UserError
from mmvm.likelihoods import Laplace
from mmvm.paths import home
from studies.mimic_cxr.check import check
from studies.mimic_cxr.index import (
    LABELS,
    POLICIES,
    SPLITS,
    SPLITS_BY,
    UNCERTAIN,
    check_choices,
    default_root,
    pairs,
    read_index,
    split_of,
)
from studies.mimic_cxr.networks import SIZES
from studies.mimic_cxr.phantom.files import simulate
from studies.mimic_cxr.prepare import check_options, estimate, locate, needed, prepare, summary
from studies.mimic_cxr.store import VIEWS, Store, folder_of, names_of, skipped, statuses, usable, variant

UNASKED = 5_000     # so many images are prepared by `load` itself; more only on command

__all__ = ["LABELS", "POLICIES", "SPLITS", "SPLITS_BY", "UNCERTAIN", "ChestXrays", "check", "load", "locate",
           "prepare", "read_index", "simulate"]


@dataclass(repr=False)
class ChestXrays(MultimodalData):
    """`MultimodalData` of the modalities "frontal" and "lateral", and what X-rays need beside.

    label_names  of the columns of `labels` (N, 14): 0, 1, and NaN where a label is not known
    subject      (N,) int64, running number of the subject: for assertions and clustered statistics, not to be written
                 out, because it follows the order of the ids
    report       one line each on what was read and left out; numbers of the whole, nothing of single patients
    standin      simulated: its images may be shown
    """

    label_names: tuple[str, ...] = LABELS
    subject: Tensor | None = None
    report: tuple[str, ...] = ()
    standin: bool = False

    def __repr__(self) -> str:
        return f"ChestXrays({len(self):,} rows of {', '.join(self.names)})"     # no label or pixel of a patient

    def subset(self, index) -> "ChestXrays":
        """The samples of `index` (integers, a slice or a bool mask). Images stay in their files, nothing is read."""
        index = torch.arange(len(self))[index]
        there = index.to(self.device)
        return replace(
            self, modalities={name: x.select(there) if isinstance(x, Repeated) else x.index_select(0, there)
                              for name, x in self.modalities.items()},
            files=self.files if all(isinstance(x, Repeated) for x in self.modalities.values()) else (),
            labels=None if self.labels is None else self.labels.index_select(0, there),
            observed=self.observed.index_select(1, there),
            ids=None if self.ids is None else [self.ids[i] for i in index.tolist()],
            trust=None if self.trust is None else self.trust.index_select(1, there),
            subject=None if self.subject is None else self.subject[index])


def load(split: str, root: str | os.PathLike | None = None, *, policy: str = "all_pairs", split_by: str = "subject",
         uncertain: str = "zero", size: int = 224, equalise: bool = False, split_seed: int = 0) -> ChestXrays:
    """Modalities "frontal" and "lateral" (N, 1, size, size) uint8, memory-mapped; labels (N, 14) float32.

    split       "train", "validate" or "test"
    root        folder of the files; by default data/mimic_cxr where that holds them, else the stand-in in it
    policy      "all_pairs": every frontal x lateral pair of a study, as in the paper; "one_pair": of each study the
                first of either view; "missing": all pairs, and every image of a study with one view, the other view not
                observed (a black image)
    split_by    "subject": 80/10/10 % of the subjects drawn with `split_seed`, as in the paper; "official": split.csv
    uncertain   labels of -1 are 0 as in the paper ("zero"), 1 ("one"), or not known ("ignore": NaN); empty is 0 always
    size        pixels of the edge; paper: 224
    equalise    images with a flat histogram, as in the released code

    Images that are missing or damaged make no rows; `report` counts them. Up to 5,000 images (and any stand-in) are
    prepared here at the first call. Raises `UserError` for unknown options, wrong files, and images that are not
    prepared, with the command that does it. No subject is in two splits.
    """
    check_choices(split=(split, SPLITS), split_by=(split_by, SPLITS_BY), uncertain=(uncertain, UNCERTAIN))
    check_options(size, policy)
    if split_seed < 0:
        raise UserError(f"split_seed must be 0 or more, got {split_seed}")
    root = default_root() if root is None else home(root)
    index = read_index(root)
    sides, how = split_of(index, split_by, split_seed)
    wanted = needed(index, policy)
    names, stores, status = _prepared(index, root, wanted, policy, size, equalise)

    rows = pairs(index, wanted & usable(status), policy)
    image = np.where(rows[:, 0] >= 0, rows[:, 0], rows[:, 1])       # one that is there: for subject, study, split
    counts = [int((sides[image] == i).sum()) for i in range(len(SPLITS))]
    report = [*index.report(), how, *summary(index, status, wanted, policy),
              "rows: " + ", ".join(f"{n:,} {name}" for n, name in zip(counts, SPLITS))]
    kept = sides[image] == SPLITS.index(split)
    if not kept.any():
        raise UserError(f"{root}: no row is left for the {split} split ({'; '.join(report[-3:])}): use another policy "
                        "or split_by, or add images")
    if np.intersect1d(index.subject[image[kept]], index.subject[image[~kept]]).size:
        raise AssertionError("a subject is in two splits")
    rows, image = rows[kept], image[kept]

    modalities, files, observed = {}, [], rows.T >= 0
    for view, own, store in zip(VIEWS, rows.T, stores.values()):
        place = np.where(own >= 0, store.find(names)[own], 0)       # row 0 is black
        pixels = store.pixels()
        modalities[view] = Repeated(_tensor(pixels), torch.from_numpy(place))
        files.append(pixels)
    values = index.labels[index.study[image]]
    values = np.where(values == -1, {"zero": 0.0, "one": 1.0, "ignore": np.nan}[uncertain], np.nan_to_num(values))
    text = np.append(np.char.decode(names), "-")
    specs = tuple(Modality(view, (1, size, size), Laplace(0.75), scale=1 / 255) for view in VIEWS)
    return ChestXrays(modalities, specs, torch.from_numpy(values.astype(np.float32)), torch.from_numpy(observed),
                      ids=[f"{frontal}+{lateral}" for frontal, lateral in text[rows].tolist()], files=tuple(files),
                      subject=torch.from_numpy(index.subject[image].astype(np.int64)), report=tuple(report),
                      standin=index.standin)


def _prepared(index, root: Path, wanted: np.ndarray, policy: str, size: int, equalise: bool):
    """Names (I,), one `Store` per view and the status of every image (I,), after preparing what few are not ready."""
    for attempt in range(2):
        folder = variant(index.base, size, equalise)
        if (folder_of(index.base) / "key").is_file():
            names, stores = names_of(index), {view: Store(folder, view, size) for view in VIEWS}
            status = statuses(index, names, stores)
            n = int((wanted & ~usable(status) & ~skipped(status)).sum())
            if not n and all(len(store.rows) for store in stores.values()):
                return names, stores, status
        else:
            n = int(wanted.sum())
        if n > UNASKED and not index.standin:
            plan = estimate(index, wanted, size, equalise, os.cpu_count() or 1)
            options = f"--size {size}{' --equalise' if equalise else ''}"
            options += f" --policy {policy}" if policy == "missing" else ""
            options += "" if size in SIZES else " --set any_size=true"
            place = shlex.quote(str(root))
            raise UserError(f"{n:,} images of {root} are not prepared for size={size}, equalise={equalise}. Run "
                            f"`python -m mmvm data mimic-cxr --root {place} --prepare {options}` once; "
                            + "; ".join(plan.lines(policy, os.cpu_count() or 1)[1:]))
        if not attempt:
            prepare(root, size=size, equalise=equalise, policy=policy, any_size=True)
    raise UserError(f"{folder} is being changed by another process: wait for its preparation, then load again")


def _tensor(pixels: np.memmap) -> Tensor:
    """A tensor over mapped pixels; it shares the mapping, and one that is read-only must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(pixels)
