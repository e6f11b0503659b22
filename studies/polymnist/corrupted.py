"""Tuples of which one picture lies: exactly one modality of each, another one from tuple to tuple, known to nobody."""

from dataclasses import replace

import numpy as np
import torch

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.options import Option
from studies.polymnist.pictures import below, stream_of

TOLD = (Option("known", False, "tell the training which picture lies: it counts as missing there"),
        Option("trust", False, "tell the objective which picture lies, here and in tests: mmvm:weights=given takes it"))
KINDS: dict[str, tuple[Option, ...]] = {"none": (), "noise": TOLD, "swap": TOLD, "blank": TOLD}
WHICH, BYTES = 1_001, 1_002  # numbers of the random streams, beyond those of the modalities


def corrupted_modality(data: MultimodalData, seed: int) -> np.ndarray:
    """The number of the modality that lies, (N,) in 0 to M - 1: drawn per tuple from its id and the seed alone, so that
    a subset, another order and another kind of corruption have the same."""
    split, rows = _rows(data)
    raw = stream_of(seed, split, WHICH).random_raw(int(rows.max()) + 1)[rows]
    return below(raw, len(data.specs))


def corrupt(data: MultimodalData, kind: str, seed: int) -> MultimodalData:
    """`data` with the picture of `corrupted_modality` in each tuple replaced, by kind:

    noise  every byte drawn alike often, anew for each tuple
    swap   the picture of this modality in another of the N tuples, of whichever digit
    blank  black

    Raises `UserError` where a tuple has one picture: nothing would be left of it.
    """
    if kind == "none":
        return data
    if len(data.specs) < 2:
        raise UserError("of one modality none is left to trust: set n_modalities to 2 or more, or leave corrupted out")
    if kind == "swap" and len(data) < 2:
        raise UserError("a swap needs another tuple: give more tuples, or use noise or blank")
    split, rows = _rows(data)
    which, modalities = corrupted_modality(data, seed), {}
    other = np.arange(len(data)) + 1 + below(stream_of(seed, split, BYTES).random_raw(len(data)), len(data) - 1)
    for m, (name, x) in enumerate(data.modalities.items()):
        own = np.flatnonzero(which == m)
        new = np.zeros((len(own), *x.shape[1:]), np.uint8)
        if kind == "swap":
            new = x.numpy()[other[own] % len(data)]
        elif kind == "noise":
            n = -(-new[:1].size // 8)
            for i, row in enumerate(rows[own]):
                raw = stream_of(seed, split, BYTES, int(row)).random_raw(n).astype("<u8")
                new[i] = raw.view(np.uint8)[:new[i].size].reshape(new[i].shape)
        modalities[name] = x.clone()
        modalities[name][torch.from_numpy(own)] = torch.from_numpy(new)
    return replace(data, modalities=modalities)


def clean(data: MultimodalData, seed: int) -> MultimodalData:
    """`data` without the pictures that lie, which count as missing: what is measured on the others."""
    return replace(data, observed=data.observed & _credible(data, seed))


def trusted(data: MultimodalData, seed: int) -> MultimodalData:
    """`data` with 0 as the trust in the pictures that lie, 1 in all others: an oracle's."""
    return replace(data, trust=_credible(data, seed).float())


def _credible(data: MultimodalData, seed: int) -> torch.Tensor:
    """What does not lie, (M, N) bool; and what lies where all else is missing: there it is all there is."""
    which = torch.from_numpy(corrupted_modality(data, seed))
    honest = which != torch.arange(len(data.specs))[:, None]
    return honest | ~(data.observed & honest).any(0)


def _rows(data: MultimodalData) -> tuple[str, np.ndarray]:
    """The split and the numbers of the rows that the ids name, as in "train/123"."""
    ids = data.ids or []
    return ids[0].partition("/")[0], np.array([int(name.rpartition("/")[2]) for name in ids])
