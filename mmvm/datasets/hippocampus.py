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

import gzip
import os
import string
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmvm import paths
from mmvm.datasets import hippocampus_simulator
from mmvm.datasets.base import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.likelihoods import Normal, Poisson

ODORS = "ABCDE"                     # of the release; arrays may have up to 26 classes
LETTERS = string.ascii_uppercase    # names of classes 0, 1, ...
SAMPLES_PER_BIN = 10                # the release's values are means of ten 1-ms samples
# first bin of the 250 ms that the paper cuts into windows: 250 or 500 ms after port entry, which is bin 200
STARTS = {"Barat": 225, "Buchanan": 225, "Mitt": 250, "Stella": 250, "SuperChris": 225}
SPLITS = ("train", "test", "in_sample")
PAIRINGS = ("seeded", "index")
UNEQUAL = ("min", "missing")
LIKELIHOODS = ("squared_error", "poisson")
LENGTH = 25                         # bins that the paper cuts windows from
SPIKES, INFO = "_spike_data_binned.npy", "_trial_info.npy"


@dataclass(frozen=True)
class Session:
    """One animal's recording, aligned to an event.

    spikes       (trials, units, bins) spikes per bin, of any number type; other amounts that are not negative (calcium
                 events) work too
    odor         (trials,) class numbers from 0
    correct      (trials,) bool or None
    in_sequence  (trials,) bool or None
    start        first bin of the first window
    source       folder of the files, for who reads them
    """

    spikes: np.ndarray
    odor: np.ndarray
    correct: np.ndarray | None = None
    in_sequence: np.ndarray | None = None
    start: int = 0
    source: str = ""


@dataclass
class Windows(MultimodalData):
    """`MultimodalData` that remembers where its samples come from.

    trials   (M, N) row of each animal's session, -1 where the animal has no trial in the tuple
    window   (N,)   number of the window in its trial
    sources  folder of each session's files, empty for arrays
    """

    trials: Tensor | None = None
    window: Tensor | None = None
    sources: tuple[str, ...] = ()

    def subset(self, index) -> "Windows":
        index = torch.arange(len(self))[index]
        return replace(super().subset(index), trials=self.trials[:, index], window=self.window[index])


def load(split: str, root: str | os.PathLike | None = None, *, animals: Sequence[str] | None = None,
         starts: Mapping[str, int] | int | None = None, **options) -> Windows:
    """Windows of the animals in `root`, default data/hippocampus, which `simulate` makes.

    animals   names of folders; None: all, sorted
    starts    first bin of the first window, per animal or for all; None: the paper's for its five rats (`STARTS`), 0
              for recordings of at most 25 bins
    options   see `from_sessions`

    Raises `UserError` where a file is missing, cut, of another shape, or holds NaN or negative values.
    """
    return from_sessions(read(root, animals=animals, starts=starts), split, **options)


def from_sessions(sessions: Mapping[str, Session], split: str, *, window: int = 10, stride: int = 1,
                  length: int = LENGTH, odors: str | Sequence[int] = "ABCD", correct_only: bool = False,
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

    Stored are spikes per bin, (N, units, window), as uint8 where they are whole numbers below 256.
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
    classes = [LETTERS.index(odor) if odor in tuple(LETTERS) else odor for odor in odors]
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
        chosen = chosen.reshape(-1, *chosen.shape[2:])
        whole = chosen.dtype.kind == "u"
        if likelihood == "poisson" and not whole:
            raise UserError(f"{name} holds amounts that are no whole numbers: a Poisson likelihood is of counts, use "
                            "likelihood='squared_error'")
        modalities[name] = torch.from_numpy(np.ascontiguousarray(chosen))
        specs.append(Modality(name, tuple(chosen.shape[1:]), Poisson() if likelihood == "poisson" else Normal(0.5**0.5),
                              scale=1.0 if likelihood == "poisson" else 1 / SAMPLES_PER_BIN))
    per_window = np.repeat(trials, n, axis=1)
    ids = [f"odor {odors[y]}, tuple {t}, window {w}" for t, y in enumerate(labels) for w in range(n)]
    return Windows(modalities, tuple(specs), torch.from_numpy(np.repeat(labels, n)), torch.from_numpy(per_window >= 0),
                   ids, len(classes), trials=torch.from_numpy(per_window), window=torch.arange(n).repeat(len(labels)),
                   sources=tuple(session.source for session in sessions.values()))


def trial_numbers(data: Windows) -> np.ndarray:
    """(N,) numbers that say which samples are windows of one tuple: what may be permuted, and averaged over."""
    _, numbers = np.unique(data.trials.numpy(), axis=1, return_inverse=True)
    return numbers.reshape(-1)


def check_session(session: Session, name: str, source: str | None = None) -> None:
    """`UserError` for a session that cannot be used; `source` names its file."""
    where, spikes, odor = source or f"the spikes of {name}", session.spikes, session.odor
    if spikes.ndim != 3 or spikes.dtype.kind not in "fiu" or not spikes.size:
        raise UserError(f"{where}: {spikes.dtype} of shape {spikes.shape}, expected numbers of shape (trials, units, "
                        "bins): correct the array")
    if len(odor) != len(spikes):
        raise UserError(f"{where}: {len(spikes)} trials, but {len(odor)} labels: both must be of the same session")
    for what, wrong in (("NaN or infinite", ~np.isfinite(spikes)), ("negative", spikes < 0)):
        if wrong.any():
            trial, unit, at = np.argwhere(wrong)[0]
            raise UserError(f"{where}: the value of trial {trial}, unit {unit}, bin {at} is {what} "
                            f"({int(wrong.sum())} such values), spike counts are not: leave out that trial or unit")
    for what, values in (("correct", session.correct), ("in_sequence", session.in_sequence)):
        if values is not None and len(values) != len(spikes):
            raise UserError(f"{where}: {len(spikes)} trials, but {len(values)} entries of `{what}`: give one per trial")
    if not 0 <= session.start < spikes.shape[2]:
        raise UserError(f"{where}: start={session.start} is no bin of {spikes.shape[2]}: correct it")


# files ---------------------------------------------------------------------------------------------------------------

def default_root() -> Path:
    """data/hippocampus: ignored by git; the simulator's place."""
    return paths.data_root() / "hippocampus"


def simulate(root: str | os.PathLike | None = None, seed: int = 0) -> Path:
    """Writes five simulated rats in the release's layout (seconds; 5 MB). `UserError` where `root` holds anything."""
    return hippocampus_simulator.write(root or default_root(), seed)


def read(root: str | os.PathLike | None = None, *, animals: Sequence[str] | None = None,
         starts: Mapping[str, int] | int | None = None) -> dict[str, Session]:
    """The sessions of a folder in the release's layout; arguments as in `load`."""
    root = Path(root) if root else default_root()
    found = sorted(path.name for path in root.iterdir() if _find(path, SPIKES)) if root.is_dir() else []
    if not found:
        raise UserError(f"{root} holds no folders <Animal>/<animal>{SPIKES}: simulate five rats with `python -m mmvm "
                        "data hippocampus --simulate`, or unpack the release (Dryad doi:10.7280/D14X30) and name its "
                        "folder")
    animals = found if animals is None else list(animals)
    if isinstance(starts, int):
        starts = dict.fromkeys(animals, starts)
    for what, names in (("animals", animals), ("starts", starts or ())):
        unknown = [name for name in names if name not in found]
        if unknown:
            raise UserError(f"{what} names {', '.join(unknown)}; {root} holds {', '.join(found)}")
    return {name: _read_session(root / name, {**STARTS, **(starts or {})}) for name in animals}


def _read_session(folder: Path, starts: Mapping[str, int]) -> Session:
    path, info_path = _find(folder, SPIKES), _find(folder, INFO)
    if info_path is None:
        raise UserError(f"{folder} has {path.name}, but no {folder.name.lower()}{INFO}: copy it there, it says which "
                        "odor each trial had")
    spikes, info = _load(path), _load(info_path)
    if info.ndim != 2 or info.shape[1] != 4:
        raise UserError(f"{info_path} is of shape {info.shape}, expected (trials, 4): correct, in-sequence, position, "
                        "odor")
    if len(info) != len(spikes):
        raise UserError(f"{path} has {len(spikes)} trials, {info_path.name} {len(info)} rows: both must be of the same "
                        "session, replace the wrong one")
    wrong = np.argwhere(~np.isin(info[:, 3], range(1, len(ODORS) + 1)))
    if len(wrong):
        raise UserError(f"{info_path}, row {wrong[0, 0]}: the odor is {info[wrong[0, 0], 3]}, expected 1 to "
                        f"{len(ODORS)} (A to E): correct the row, or leave the trial out of both files")
    session = Session(spikes, info[:, 3].astype(int) - 1, info[:, 0] == 1, info[:, 1] == 1, source=str(folder))
    check_session(session, folder.name, str(path))
    bins, start = spikes.shape[2], starts.get(folder.name)
    if start is None and bins <= LENGTH:
        start = 0
    if start is None or not 0 <= start < bins:
        why = "is not known" if start is None else f"is bin {start}"
        raise UserError(f"{path} has {bins} bins, and where the windows start {why}: give starts={{'{folder.name}': "
                        "<bin>} (the release: 225, that is 250 ms after port entry)")
    return replace(session, spikes=_per_bin(spikes), start=start)


def _per_bin(means: np.ndarray) -> np.ndarray:
    """Mean of ten samples -> sum; of counts exactly, also from half precision, which stores 0.1 as 0.09998."""
    sums = means.astype(np.float32) * SAMPLES_PER_BIN
    amounts = sums[sums > 0]  # few, so this costs less than comparing all
    return np.rint(sums) if np.abs(amounts - np.rint(amounts)).max(initial=0) < 0.02 else sums


def _stored(spikes: np.ndarray) -> np.ndarray:
    """Whole numbers below 256 as uint8, everything else as float32."""
    if spikes.dtype == np.uint8:
        return spikes
    amounts = spikes[spikes > 0]
    whole = amounts.max(initial=0) < 256 and (amounts == np.rint(amounts)).all()
    return spikes.astype(np.uint8 if whole else np.float32)


def _find(folder: Path, suffix: str) -> Path | None:
    for name in (f"{folder.name.lower()}{suffix}", f"{folder.name.lower()}{suffix}.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


def _load(path: Path) -> np.ndarray:
    try:
        with (gzip.open(path) if path.suffix == ".gz" else open(path, "rb")) as file:
            return np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as a numpy array ({error}): copy or download it again") from None


def check(root: str | os.PathLike | None = None) -> list[str]:
    """Lines that describe every animal's files; `UserError` at the first that cannot be used."""
    root = Path(root) if root else default_root()
    sessions = read(root, starts=None)
    report = []
    for name, session in sessions.items():
        trials, units, bins = session.spikes.shape
        odors = ", ".join(f"{ODORS[odor]} {n}" for odor, n in enumerate(np.bincount(session.odor, minlength=5)) if n)
        whole = "counts" if _stored(session.spikes).dtype == np.uint8 else "amounts, no counts"
        report.append(f"{name}: {trials} trials, {units} units, {bins} bins, {whole}, {session.spikes.mean():.4f} per "
                      f"bin; odors {odors}; {int(session.correct.sum())} correct, {int(session.in_sequence.sum())} in "
                      "sequence")
    return report


# trials, pairs, folds ------------------------------------------------------------------------------------------------

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
            name = LETTERS[odor] if odor < len(LETTERS) else odor
            raise UserError(f"odor {name} has {counts[fewest]} trials in {fewest} and {n} tuples, {n_folds} folds need "
                            "at least as many: leave the odor or the animal out, or lower n_folds")
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
    stretch = _stored(session.spikes[:, :, session.start:session.start + length])
    if stretch.shape[2] < window:
        raise UserError(f"{name} has {stretch.shape[2]} bins from bin {session.start} on, a window needs {window}: "
                        "move its start, or shorten the window")
    views = np.lib.stride_tricks.sliding_window_view(stretch, window, axis=2)[:, :, ::stride]
    return views.transpose(0, 2, 1, 3)


def _check(value: str, choices: tuple[str, ...], name: str) -> None:
    if value not in choices:
        raise UserError(f"unknown {name} {value!r}: use one of {', '.join(map(repr, choices))}")
