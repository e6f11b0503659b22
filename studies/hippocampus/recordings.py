"""Spike times of one's own, of pynapple or an NWB file, as the sessions that windows are cut from."""

import importlib
import os
from collections.abc import Mapping, Sequence

import numpy as np

from mmvm.errors import UserError
from studies.hippocampus.files import LETTERS, Session, check_session


def from_spike_times(units: Mapping, times: Sequence[float], odor: Sequence, *, before: float = 0.0,
                     after: float = 0.25, bin_ms: float = 10, name: str = "the recording",
                     classes: Sequence[str] = (), **fields) -> Session:
    """One animal's spikes around events, counted in bins, as `from_sessions` of `studies.hippocampus.data` takes them.

    units   unit -> spike times in seconds, ascending: a pynapple `TsGroup`, or a mapping to `Ts` or arrays
    times   (trials,) seconds of the event, on the same clock
    odor    (trials,) classes, numbers from 0 or names
    classes names of classes 0, 1, ..., the same for all animals; without them names are the letters A, B, ..., large or
            small
    before, after   seconds around the event that are cut out; whole bins of `bin_ms`
    fields  correct, in_sequence, position, start, source of `Session`; start, by default the event, is where windows
            begin

    Raises `UserError`.
    """
    odor, times = np.asarray(odor), np.asarray(times, dtype=float)
    if odor.dtype.kind in "OUST":
        known = [str(name) for name in classes] or list(LETTERS)
        told = [str(name).upper() if not classes and len(str(name)) == 1 else str(name) for name in odor.tolist()]
        strange = sorted(set(told) - set(known))
        if strange:  # numbered in each session by itself, they would be paired wrongly without a word
            raise UserError(f"{name}: odor {strange[0]!r} is none of {', '.join(known)}: name all classes of all "
                            "animals, in one order, in classes=[...]")
        odor = np.array([known.index(one) for one in told])
    if not (np.isfinite([before, after, bin_ms]).all() and bin_ms > 0):
        raise UserError(f"{name}: before={before} and after={after} s in bins of {bin_ms} ms: give numbers, and bins "
                        "of more than 0 ms")
    first, last = (int(round(seconds * 1000 / bin_ms, 6)) for seconds in (before, after))
    if first < 0 or first + last < 1 or not len(units) or times.ndim != 1 or not np.isfinite(times).all():
        raise UserError(f"{name}: {len(units)} units, {times.size} events, before={before} and after={after} s in bins "
                        f"of {bin_ms} ms: give at least one unit, a finite time per trial, and at least one bin")
    edges = times[:, None] + np.arange(-first, last + 1) * (bin_ms / 1000)                       # (trials, bins + 1)
    spikes = []
    for unit in units:
        train = np.asarray(getattr(units[unit], "t", units[unit]), dtype=float)
        if train.ndim != 1 or not np.isfinite(train).all() or (np.diff(train) < 0).any():
            raise UserError(f"{name}, unit {unit}: spike times must be one ascending row of seconds: sort them, and "
                            "leave out NaN")
        spikes.append(np.diff(np.searchsorted(train, edges), axis=1))
    session = Session(np.stack(spikes, 1), odor, **{"start": first, "entry": first, "bin_ms": bin_ms, **fields})
    check_session(session, name)
    return session


def from_nwb(path: str | os.PathLike, event: str = "start_time", odor: str = "odor", **options) -> Session:
    """The units of an NWB file around its trials' times `event`, of classes in the trials' column `odor`; `options` as
    of `from_spike_times`. Raises `UserError`, also where pynapple is not installed."""
    try:
        pynapple = importlib.import_module("pynapple")
    except ImportError as error:
        raise UserError(f"NWB files are read by pynapple, which cannot be imported ({error}): install it with "
                        "pip install 'mmvm[spikes]'") from None
    file = pynapple.load_file(os.path.expanduser(path))
    missing = [name for name in ("units", "trials") if name not in file.keys()]
    if missing:
        raise UserError(f"{path} has no {missing[0]}; it has {', '.join(file.keys())}: name the units and trials so")
    trials = file["trials"].as_dataframe().rename(columns={"start": "start_time", "end": "stop_time"})
    for column in (event, odor):
        if column not in trials:
            raise UserError(f"the trials of {path} have no column {column!r}: choose from {', '.join(trials)}")
    return from_spike_times(file["units"], trials[event], trials[odor], **{"name": str(path), "source": str(path),
                                                                           **options})
