"""Tuples of which one picture lies: exactly one modality of each, another one from tuple to tuple, known to nobody."""

from dataclasses import replace

import numpy as np
import torch

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.options import Option
from studies.polymnist.pictures import below, stream_of

KNOWN = Option("known", False, "tell the training which picture lies: it counts as missing there")
KINDS = {"none": (), "noise": (KNOWN,), "swap": (KNOWN,), "blank": (KNOWN,)}
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
    which = torch.from_numpy(corrupted_modality(data, seed))
    honest = which != torch.arange(len(data.specs))[:, None]
    alone = ~(data.observed & honest).any(0)  # what is there besides is missing: it keeps what lies
    return replace(data, observed=data.observed & (honest | alone))


def _rows(data: MultimodalData) -> tuple[str, np.ndarray]:
    """The split and the numbers of the rows that the ids name, as in "train/123"."""
    ids = data.ids or []
    return ids[0].partition("/")[0], np.array([int(name.rpartition("/")[2]) for name in ids])
