"""Spikes of several animals in the same task: every animal is a modality (paper section 4.4, appendix B.8).

Reads the layout of the rat release (Dryad doi:10.7280/D14X30; Shahbaba et al. 2022), one folder per animal:

    <Animal>/<animal>_spike_data_binned.npy   (trials, units, bins), each the mean of ten 1-ms samples: count / 10
    <Animal>/<animal>_trial_info.npy          (trials, 4): correct 0/1, in-sequence 0/1, position 1-5, odor 1-5 = A-E

plain or gzipped (.npy.gz). The numbers of animals, units, trials and bins come from the files. `from_sessions` takes
arrays of your own in place of files.

No two animals share a trial, only the odor: a *tuple* is one trial of every animal with the same odor, and sample w of
a tuple is the w-th window of each. Tuples, and so trials, are split into folds before windows are cut: neighbouring
windows overlap, and a test window that shares bins with training windows tests nothing. The released code trains and
tests on the same trials; `split="in_sample"` does as it does.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.likelihoods import Normal, Poisson
from studies.hippocampus import simulator as hippocampus_simulator
from studies.hippocampus.files import (
    LENGTH,
    LETTERS,
    SAMPLES_PER_BIN,
    Session,
    check_session,
    default_root,
    read,
    stored_counts,
)

__all__ = ["Windows", "check", "from_sessions", "load", "read", "simulate", "trial_numbers"]

SPLITS = ("train", "test", "in_sample")
PAIRINGS = ("seeded", "index")
UNEQUAL = ("min", "missing")
LIKELIHOODS = ("squared_error", "poisson")


@dataclass(repr=False)
class Windows(MultimodalData):
    """`MultimodalData` that remembers where its samples come from.

    trials   (M, N) row of each animal's session, -1 where the animal has no trial in the tuple
    window   (N,)   number of the window in its trial
    position (M, N) place of each animal's trial in its sequence, 0 where it has none in the tuple; None where not every
             session says it
    sources  folder of each session's files, empty for arrays
    """

    trials: Tensor | None = None
    window: Tensor | None = None
    position: Tensor | None = None
    sources: tuple[str, ...] = ()

    def subset(self, index) -> "Windows":
        index = torch.arange(len(self))[index]
        return replace(super().subset(index), trials=self.trials[:, index], window=self.window[index],
                       position=None if self.position is None else self.position[:, index])


def load(split: str, root: str | os.PathLike | None = None, *, animals: Sequence[str] | str | None = None,
         starts: Mapping[str, int] | int | None = None, **options) -> Windows:
    """Windows of the animals in `root`, default data/hippocampus, which `simulate` makes.

    animals   name or names of folders; None: all, sorted
    starts    first bin of the first window, per animal or for all; None: the paper's for its five rats (`STARTS`), 0
              for recordings of at most 25 bins
    options   see `from_sessions`

    Raises `UserError` where a file is missing, cut, of another shape, or holds NaN or negative values.
    """
    return from_sessions(read(root, animals=animals, starts=starts), split, **options)


def from_sessions(sessions: Mapping[str, Session], split: str, *, window: int = 10, stride: int = 1,
                  length: int = LENGTH, odors: str | int | Sequence[int | str] = "ABCD", correct_only: bool = False,
                  in_sequence_only: bool = False, pairing: str = "seeded", unequal: str = "min",
                  shuffle_odors: bool = False, n_folds: int = 5, fold: int = 0, seed: int = 0,
                  likelihood: str = "squared_error") -> Windows:
    """Trials paired across animals, split, and cut into windows; one modality (units, window) per animal.

    split          "train": all folds but `fold`; "test": `fold`; "in_sample": all trials, for training and testing
                   alike, as in the released code
    window, stride, length   bins of a window, between two windows, and of the stretch that windows are cut from; a
                   recording that ends earlier gives fewer windows. Paper: 10, 1, 25 bins of 10 ms, 16 windows
    odors          the classes that are used, as letters or numbers from 0; they become labels 0, 1, ...
    correct_only, in_sequence_only   leave out the other trials (paper: False)
    pairing        "seeded": a random order of each animal's trials of an odor; "index": the order of the session
                   (released code)
    unequal        an odor has more trials in one animal than in another: "min" drops the excess (paper), "missing"
                   keeps it in tuples in which the other animals are not observed
    shuffle_odors  a control: the odors of each animal are permuted over its trials first, so that pairs and labels
                   mean nothing
    n_folds, fold  every n_folds-th tuple of an odor belongs to the same fold
    likelihood     "squared_error": of count / 10, as in the paper: Normal with variance 1/2, whose -log p is the
                   squared error plus a constant; "poisson": of counts

    Stored are spikes per bin, (N, units, window), uint8 where whole and below 256; 0 where there is no trial.
    """
    _check(split, SPLITS, "split")
    _check(pairing, PAIRINGS, "pairing")
    _check(unequal, UNEQUAL, "unequal")
    _check(likelihood, LIKELIHOODS, "likelihood")
    if not 0 <= fold < n_folds or n_folds < 2:
        raise UserError(f"fold={fold} of n_folds={n_folds}: give at least 2 folds, and a fold from 0 to n_folds - 1")
    if window < 1 or stride < 1 or length < window:
        raise UserError(f"window={window}, stride={stride}, length={length} bins: all at least 1, and length at least "
                        "window")
    if not sessions:
        raise UserError("there is no session: give at least one animal")
    for name, session in sessions.items():
        check_session(session, name)
    classes = _classes(odors)
    labels, trials = _tuples(sessions, classes, correct_only, in_sequence_only, pairing, unequal, shuffle_odors,
                             n_folds, fold, split, seed)
    cut = {name: _cut(session, name, window, stride, length) for name, session in sessions.items()}
    n_windows = {name: x.shape[1] for name, x in cut.items()}
    if len(set(n_windows.values())) > 1:
        raise UserError(f"windows per trial: {', '.join(f'{name} {n}' for name, n in n_windows.items())}. Pairs need "
                        "equally many: shorten `length`, or move `starts`")
    n = next(iter(n_windows.values()))

    modalities, specs = {}, []
    for name, rows in zip(sessions, trials):
        chosen = cut[name][np.maximum(rows, 0)]                                     # (tuples, windows, units, window)
        chosen[rows < 0] = 0  # not row 0 of the session, which may be a test trial
        modalities[name] = torch.from_numpy(np.ascontiguousarray(chosen.reshape(-1, *chosen.shape[2:])))
        specs.append(_modality(name, modalities[name], likelihood))
    per_window = np.repeat(trials, n, axis=1)
    ids = [f"odor {LETTERS[classes[y]]}, {split} tuple {t}, window {w}" for t, y in enumerate(labels) for w in range(n)]
    return Windows(modalities, tuple(specs), torch.from_numpy(np.repeat(labels, n)), torch.from_numpy(per_window >= 0),
                   ids, len(classes), trials=torch.from_numpy(per_window), window=torch.arange(n).repeat(len(labels)),
                   position=_positions([session.position for session in sessions.values()], per_window),
                   sources=tuple(session.source for session in sessions.values()))


def _classes(odors) -> list[int]:
    odors = [odors] if isinstance(odors, int | np.integer) else list(odors)
    wrong = [odor for odor in odors if not (odor in tuple(LETTERS) or (
        isinstance(odor, int | np.integer) and 0 <= odor < len(LETTERS)))]
    classes = [LETTERS.index(odor) if isinstance(odor, str) else int(odor) for odor in odors if odor not in wrong]
    if wrong or not classes or len(set(classes)) < len(classes):
        raise UserError(f"odors must be different letters from A to Z, or numbers from 0 to {len(LETTERS) - 1}, got "
                        f"{', '.join(map(repr, wrong or odors)) or 'none'}: {LETTERS[:3]}... name the classes 0, 1, 2, "
                        "...")
    return classes


def _modality(name: str, counts: torch.Tensor, likelihood: str) -> Modality:
    if likelihood == "squared_error":
        return Modality(name, tuple(counts.shape[1:]), Normal(0.5**0.5), scale=1 / SAMPLES_PER_BIN)
    if counts.is_floating_point() and (counts != counts.round()).any():  # counts from 256 on are stored as floats
        raise UserError(f"{name} holds amounts that are no whole numbers: a Poisson likelihood is of counts, use "
                        "likelihood='squared_error'")
    return Modality(name, tuple(counts.shape[1:]), Poisson())


def trial_numbers(data: Windows) -> np.ndarray:
    """(N,) numbers that say which samples are windows of one tuple: what may be permuted, and averaged over."""
    _, numbers = np.unique(data.trials.numpy(), axis=1, return_inverse=True)
    return numbers.reshape(-1)


def simulate(root: str | os.PathLike | None = None, seed: int = 0) -> Path:
    """Writes five simulated rats in the release's layout (seconds; 5 MB). `UserError` where `root` holds anything."""
    return hippocampus_simulator.write(root or default_root(), seed)


def check(root: str | os.PathLike | None = None, *, animals: Sequence[str] | str | None = None,
          starts: Mapping[str, int] | int | None = None, window: int = 10, stride: int = 1, length: int = LENGTH,
          odors: str | None = None, unequal: str = "min", n_folds: int = 5, fold: int = 0, correct_only: bool = False,
          in_sequence_only: bool = False, pairing: str = "seeded", shuffle_odors: bool = False, seed: int = 0,
          likelihood: str = "squared_error") -> list[str]:
    """Lines that describe every animal's files, and what `load` makes of them with the same options; `UserError` at the
    first that cannot be used. `odors`: by default those of which every animal has `n_folds` trials."""
    sessions = read(root, animals=animals, starts=starts)
    report, counts = [], {name: np.bincount(session.odor, minlength=len(LETTERS)) for name, session in sessions.items()}
    for name, session in sessions.items():
        trials, units, bins = session.spikes.shape
        own = ", ".join(f"{LETTERS[odor]} {n}" for odor, n in enumerate(counts[name]) if n)
        whole = "counts" if (session.spikes == np.rint(session.spikes)).all() else "amounts, no counts"
        report.append(f"{name}: {trials} trials, {units} units, {bins} bins, windows from bin {session.start}; "
                      f"{whole}, {session.spikes.sum():,.0f} in all, {session.spikes.mean():.4f} per bin; odors {own}; "
                      f"{int(session.correct.sum())} correct, {int(session.in_sequence.sum())} in sequence")
    if odors is None:
        fewest = np.min(list(counts.values()), axis=0)
        odors = "".join(letter for letter, n in zip(LETTERS, fewest) if n >= n_folds)
        short = "".join(letter for letter, n in zip(LETTERS, np.max(list(counts.values()), axis=0)) if n).translate(
            {ord(letter): None for letter in odors})
        report += [f"odors {', '.join(short)} left out: not every animal has {n_folds} trials of them"] if short else []
    train, test = (from_sessions(sessions, split, window=window, stride=stride, length=length, odors=odors,
                                 unequal=unequal, n_folds=n_folds, fold=fold, correct_only=correct_only,
                                 in_sequence_only=in_sequence_only, pairing=pairing, shuffle_odors=shuffle_odors,
                                 seed=seed, likelihood=likelihood) for split in ("train", "test"))
    n = len(test.window.unique())
    return [*report, f"odors {odors}: {len(train) // n} tuples for training, {len(test) // n} for testing (fold {fold} "
                     f"of {n_folds}), windows a trial: {n}, of {window} bins",
            *(line for data, split in ((train, "train"), (test, "test"))
              for line in data.inventory(split, tuples=trial_numbers(data).tolist()))]


def _tuples(sessions, classes, correct_only, in_sequence_only, pairing, unequal, shuffle_odors, n_folds, fold, split,
            seed) -> tuple[np.ndarray, np.ndarray]:
    """Labels (tuples,) and trials (M, tuples); a tuple is one trial of each animal, -1 where it has none left."""
    kept = {name: _kept_trials(session, name, correct_only, in_sequence_only, shuffle_odors, seed)
            for name, session in sessions.items()}
    labels, columns = [], []
    for label, odor in enumerate(classes):
        trials = {name: rows[odors == odor] for name, (rows, odors) in kept.items()}
        if pairing == "seeded":
            trials = {name: rows[_order(len(rows), seed, odor, name)] for name, rows in trials.items()}
        counts = {name: len(rows) for name, rows in trials.items()}
        n = min(counts.values()) if unequal == "min" else max(counts.values())
        if n < n_folds or min(counts.values()) == 0:
            fewest = min(counts, key=counts.get)
            raise UserError(f"odor {LETTERS[odor]} has {counts[fewest]} trials in {fewest} and {n} tuples, {n_folds} "
                            "folds need at least as many: leave the odor or the animal out, or lower n_folds")
        table = np.stack([np.pad(rows, (0, max(n - len(rows), 0)), constant_values=-1)[:n] for rows in trials.values()])
        number = np.arange(n) % n_folds
        wanted = {"train": number != fold, "test": number == fold, "in_sample": number >= 0}[split]
        labels.append(np.full(wanted.sum(), label))
        columns.append(table[:, wanted])
    return np.concatenate(labels), np.concatenate(columns, axis=1)


def _kept_trials(session, name, correct_only, in_sequence_only, shuffle_odors, seed) -> tuple[np.ndarray, np.ndarray]:
    """Rows and odors of the trials that the filters leave."""
    kept = np.ones(len(session.odor), dtype=bool)
    for wanted, what, values in ((correct_only, "correct", session.correct),
                                 (in_sequence_only, "in_sequence", session.in_sequence)):
        if wanted and values is None:
            raise UserError(f"{what}_only=True, but the session of {name} does not say which trials are {what}: give "
                            f"its `{what}`, or leave the filter out")
        if wanted:
            kept &= np.asarray(values, dtype=bool)
    rows = np.flatnonzero(kept)
    odors = np.asarray(session.odor)[rows]
    return rows, odors[_order(len(rows), seed, -1, name)] if shuffle_odors else odors


def _order(n: int, seed: int, odor: int, name: str) -> np.ndarray:
    """A permutation that depends on the seed, the odor and the animal's name, not on the other animals; from raw 64-bit
    numbers, so the same under every NumPy."""
    keys = np.random.PCG64(np.random.SeedSequence([seed, odor + 1, zlib.crc32(name.encode())])).random_raw(n)
    return np.argsort(keys, kind="stable")


def _cut(session: Session, name: str, window: int, stride: int, length: int) -> np.ndarray:
    """A view (trials, windows, units, window) of the stretch."""
    stretch = stored_counts(session.spikes[:, :, session.start:session.start + length])
    if stretch.shape[2] < window:
        raise UserError(f"{name} has {stretch.shape[2]} bins from bin {session.start} on, a window needs {window}: "
                        "move its start, or shorten the window")
    views = np.lib.stride_tricks.sliding_window_view(stretch, window, axis=2)[:, :, ::stride]
    return views.transpose(0, 2, 1, 3)


def _positions(places: list, trials: np.ndarray) -> Tensor | None:
    """Places in the sequence (M, N) of the trials (M, N); None where a session does not say them."""
    if any(place is None for place in places):
        return None
    return torch.from_numpy(np.stack([np.where(rows < 0, 0, np.asarray(place)[np.maximum(rows, 0)])
                                      for place, rows in zip(places, trials)]))


def _check(value: str, choices: tuple[str, ...], name: str) -> None:
    if value not in choices:
        raise UserError(f"unknown {name} {value!r}: use one of {', '.join(map(repr, choices))}")
