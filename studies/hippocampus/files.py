"""The recordings' files: a folder per animal in the layout of the release."""

import os
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmvm import paths
from mmvm.errors import UserError
from mmvm.files import read_array

LETTERS = string.ascii_uppercase    # names of classes 0, 1, ...; the release has A to E
SAMPLES_PER_BIN = 10                # the release's values are means of ten 1-ms samples
# first bin of the 250 ms that the paper cuts into windows: 250 or 500 ms after port entry, which is bin 200
STARTS = {"Barat": 225, "Buchanan": 225, "Mitt": 250, "Stella": 250, "SuperChris": 225}
LENGTH = 25                         # bins that the paper cuts windows from
BINS, ENTRY = 400, 200              # of the release's trials: 10 ms each, port entry at bin 200
SPIKES, INFO = "_spike_data_binned.npy", "_trial_info.npy"


@dataclass(frozen=True)
class Session:
    """One animal's recording, aligned to an event.

    spikes       (trials, units, bins) spikes per bin, of any number type; other amounts that are not negative (calcium
                 events) work too. Arrays, lists and tensors
    odor         (trials,) class numbers from 0
    correct      (trials,) bool, or 1 and 0, or None
    in_sequence  (trials,) likewise
    position     (trials,) place of the trial in its sequence, finite, or None
    start        first bin of the first window
    source       folder of the files, for who reads them
    entry        bin of the event, for figures; None: not known, and time is counted in bins
    bin_ms       milliseconds of a bin, for figures with an `entry`
    """

    spikes: np.ndarray
    odor: np.ndarray
    correct: np.ndarray | None = None
    in_sequence: np.ndarray | None = None
    start: int = 0
    source: str = ""
    entry: int | None = None
    bin_ms: float = 10
    position: np.ndarray | None = None

    def __post_init__(self):
        for name in ("spikes", "odor", "correct", "in_sequence", "position"):
            object.__setattr__(self, name, _array(getattr(self, name), name))  # the class is frozen


def _array(values, name: str) -> np.ndarray | None:
    if values is None:
        return None
    try:
        values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except ValueError:
        raise UserError(f"the {name} of a session are of unequal lengths: give one array, "
                        + ("(trials, units, bins)" if name == "spikes" else "(trials,)")) from None
    whole = name == "odor" and values.dtype.kind == "f" and (values == np.rint(values)).all()
    return values.astype(int) if whole else values


def check_session(session: Session, name: str, source: str | None = None) -> None:
    """`UserError` for a session that cannot be used; `source` names its file."""
    where, spikes, odor = source or f"the spikes of {name}", session.spikes, session.odor
    if spikes.ndim != 3 or spikes.dtype.kind not in "fiu" or not spikes.size:
        raise UserError(f"{where}: {spikes.dtype} of shape {spikes.shape}, expected numbers of shape (trials, units, "
                        "bins): correct the array")
    if odor.ndim != 1 or odor.dtype.kind not in "iu" or not ((odor >= 0) & (odor < len(LETTERS))).all():
        raise UserError(f"{where}: odor must be (trials,) class numbers from 0 to {len(LETTERS) - 1}, got {odor.dtype} "
                        f"of shape {odor.shape}: number the classes")
    if len(odor) != len(spikes):
        raise UserError(f"{where}: {len(spikes)} trials, but {len(odor)} labels: both must be of the same session")
    for what, wrong in (("NaN or infinite", ~np.isfinite(spikes)), ("negative", spikes < 0)):
        if wrong.any():
            trial, unit, at = np.argwhere(wrong)[0]
            raise UserError(f"{where}: the value of trial {trial}, unit {unit}, bin {at} is {what} "
                            f"({int(wrong.sum())} such values), spike counts are not: leave out that trial or unit")
    for what in ("correct", "in_sequence", "position"):
        values = getattr(session, what)
        if values is None:
            continue
        if values.ndim != 1 or len(values) != len(spikes):
            raise UserError(f"{where}: {len(spikes)} trials, but {values.size} entries of `{what}`: give one per trial")
        known = np.isfinite if what == "position" else lambda x: (x == 0) | (x == 1)
        wrong = ~known(values) if values.dtype.kind in "biuf" else np.ones(len(values), dtype=bool)
        if wrong.any():  # as truth values the text "False" and NaN would count as true
            cure = "a number" if what == "position" else "true or false, or 1 or 0,"
            raise UserError(f"{where}: `{what}` of trial {wrong.argmax()} is {values[wrong.argmax()]}: give {cure} for "
                            "every trial, or leave it out")
    if not isinstance(session.start, int | np.integer) or not 0 <= session.start < spikes.shape[2]:
        raise UserError(f"{where}: start={session.start} is no bin of {spikes.shape[2]}: correct it")


def default_root() -> Path:
    """data/hippocampus: ignored by git; the simulator's place."""
    return paths.data_root() / "hippocampus"


def read(root: str | os.PathLike | None = None, *, animals: Sequence[str] | str | None = None,
         starts: Mapping[str, int] | int | None = None) -> dict[str, Session]:
    """The sessions of a folder in the release's layout; arguments as in `load`."""
    root = paths.home(root) if root else default_root()
    folders = {_composed(path.name): path for path in root.iterdir() if _find(path, SPIKES)} if root.is_dir() else {}
    found = sorted(folders)
    if not found:
        raise UserError(f"{root} holds no folders <Animal>/<animal>{SPIKES}: simulate five rats with `python -m mmvm "
                        "data hippocampus --simulate`, or unpack the release (Dryad doi:10.7280/D14X30) and name its "
                        "folder")
    animals = found if animals is None else [animals] if isinstance(animals, str) else list(animals)
    animals = [_composed(str(name)) for name in animals]
    if not isinstance(starts, Mapping | None):
        starts = dict.fromkeys(animals, starts)
    starts = {_composed(name): start for name, start in (starts or {}).items()}
    for what, names in (("animals", animals), ("starts", starts)):
        unknown = [name for name in names if name not in found]
        if unknown or (what == "animals" and len(set(names)) < max(len(names), 1)):
            raise UserError(f"{what} names {', '.join(unknown or names) or 'nobody'}, expected each at most once of "
                            f"what {root} holds: {', '.join(found)}")
    return {name: _read_session(folders[name], name, {**STARTS, **starts}) for name in animals}


def _composed(name: str) -> str:
    """The name with one character for an umlaut: macOS archives have two, and a keyboard types one."""
    return unicodedata.normalize("NFC", name)


def _read_session(folder: Path, name: str, starts: Mapping[str, int]) -> Session:
    path, info_path = _find(folder, SPIKES), _find(folder, INFO)
    if info_path is None:
        raise UserError(f"{folder} has {path.name}, but no {folder.name.lower()}{INFO}: copy it there, it says which "
                        "odor each trial had")
    spikes, info = read_array(path), read_array(info_path)
    if info.ndim != 2 or info.shape[1] != 4:
        raise UserError(f"{info_path} is of shape {info.shape}, expected (trials, 4): correct, in-sequence, position, "
                        "odor")
    if not spikes.ndim:
        raise UserError(f"{path} holds one number, expected (trials, neurons, bins): replace it")
    if len(info) != len(spikes):
        raise UserError(f"{path} has {len(spikes)} trials, {info_path.name} {len(info)} rows: both must be of the same "
                        "session, replace the wrong one")
    n_odors = 5 if name in STARTS else len(LETTERS)
    wrong = np.argwhere(~np.isin(info[:, 3], range(1, n_odors + 1)))
    if len(wrong):
        raise UserError(f"{info_path}, row {wrong[0, 0]}: the odor is {info[wrong[0, 0], 3]}, expected 1 to "
                        f"{n_odors} (A to {LETTERS[n_odors - 1]}): correct the row, or leave the trial out "
                        "of both files")
    session = Session(spikes, info[:, 3].astype(int) - 1, info[:, 0] == 1, info[:, 1] == 1, source=str(folder),
                      position=info[:, 2] if np.isfinite(info[:, 2]).all() else None)
    check_session(session, name, str(path))
    bins, start = spikes.shape[2], starts.get(name)
    if start is None and bins <= LENGTH:
        start = 0
    if not isinstance(start, int | np.integer) or not 0 <= start < bins:
        why = "is not known" if start is None else f"is bin {start}"
        raise UserError(f"{path} has {bins} bins, and where the windows start {why}: give starts={{'{name}': <bin>}} "
                        "or one bin for all (the release: 225, that is 250 ms after port entry)")
    entry = ENTRY if name in STARTS and bins == BINS else None
    return replace(session, spikes=_per_bin(spikes), start=int(start), entry=entry)


def _per_bin(means: np.ndarray) -> np.ndarray:
    """Mean of ten samples -> sum; of counts exactly, also from half precision, which stores 0.1 as 0.09998."""
    sums = means.astype(np.float32) * SAMPLES_PER_BIN
    amounts = sums[sums > 0]  # few, so this costs less than comparing all
    return np.rint(sums) if np.abs(amounts - np.rint(amounts)).max(initial=0) < 0.02 else sums


def stored_counts(spikes: np.ndarray) -> np.ndarray:
    """Whole numbers below 256 as uint8, everything else as float32."""
    if spikes.dtype == np.uint8:
        return spikes
    amounts = spikes[spikes > 0]
    whole = amounts.max(initial=0) < 256 and (amounts == np.rint(amounts)).all()
    return spikes.astype(np.uint8 if whole else np.float32)


def _find(folder: Path, suffix: str) -> Path | None:
    """The file that is named as its folder, or the only one, so that a folder may be renamed or linked to."""
    wanted = _composed(folder.name.lower()) + suffix
    there = {_composed(path.name.lower()): path for path in (folder.iterdir() if folder.is_dir() else ())
             if path.name.lower().endswith((suffix, f"{suffix}.gz")) and path.name[0] != "." and path.is_file()}
    return there.get(wanted) or there.get(f"{wanted}.gz") or (next(iter(there.values())) if len(there) == 1 else None)
