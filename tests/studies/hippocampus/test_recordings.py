"""Spike times become the counts that one would make by hand, and a session from which windows are cut."""

import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from mmvm.errors import UserError
from studies.hippocampus import data
from studies.hippocampus.recordings import from_nwb, from_spike_times

TIMES, ODORS = np.arange(1.0, 11.0), np.array(list("ba" * 5))


def units(n=3):
    rng = np.random.default_rng(0)
    return {f"unit{i}": np.sort(rng.uniform(0, 12, 200)) for i in range(n)}


def test_spikes_are_counted_in_bins_around_the_events():
    found = from_spike_times({"u": np.array([0.985, 1.0, 1.005, 1.0199, 2.02]), "v": np.array([1.019, 1.5])},
                             [1.0, 2.0], [3, 4], before=0.02, after=0.03)
    assert found.spikes[:, 0].tolist() == [[1, 0, 2, 1, 0], [0, 0, 0, 0, 1]]
    assert found.spikes[:, 1].tolist() == [[0, 0, 0, 1, 0], [0] * 5]
    assert found.odor.tolist() == [3, 4] and found.start == found.entry == 2 and found.bin_ms == 10


def test_names_of_odors_are_numbered_and_windows_are_cut():
    sessions = {name: from_spike_times(units(n), TIMES, ODORS, before=0.1) for name, n in (("A", 3), ("B", 2))}
    windows = data.from_sessions(sessions, "train", odors="AB", n_folds=5)
    assert windows.modalities["A"].shape == (8 * 16, 3, 10) and windows.modalities["B"].shape == (8 * 16, 2, 10)
    trial = int(windows.trials[0, 0])
    assert ODORS[trial] == "ab"[windows.labels[0]]
    edges = TIMES[trial] + np.arange(11) * 0.01
    for unit, counts in zip(units().values(), windows.modalities["A"][0].numpy()):
        np.testing.assert_array_equal(counts, np.histogram(unit, edges)[0])


def test_odors_of_one_name_are_one_class_in_every_animal():
    some = np.array(list("cb" * 5))
    assert from_spike_times(units(), TIMES, some, before=0.1).odor.tolist() == [2, 1] * 5
    named = {"odor": np.array(["mint", "rum"] * 5), "classes": ["lemon", "mint", "rum"]}
    assert from_spike_times(units(), TIMES, **named).odor.tolist() == [1, 2] * 5
    with pytest.raises(UserError, match="odor 'mint' is none of .*classes="):
        from_spike_times(units(), TIMES, named["odor"])


@pytest.mark.parametrize("change, message", [
    (dict(units={}), "0 units"), (dict(times=[np.nan] * 10), "finite time"), (dict(after=0.0), "at least one bin"),
    (dict(units={"u": np.array([2.0, 1.0])}), "unit u: spike times must be one ascending row"),
    (dict(units={"u": np.array([1.0, np.nan, 2.0])}), "unit u: spike times .* leave out NaN"),
    (dict(bin_ms=0), "bins of 0 ms: give numbers, and bins of more than 0 ms"),
    (dict(after=np.nan), "after=nan s in bins of 10 ms: give numbers"),
    (dict(odor=[0, 1]), "10 trials, but 2 labels")])
def test_mistakes_are_one_clear_line(change, message):
    with pytest.raises(UserError, match=message):
        from_spike_times(**{"units": units(), "times": TIMES, "odor": ODORS, **change})


def test_absent_pynapple_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynapple", None)
    with pytest.raises(UserError, match=r"pip install 'mmvm\[spikes\]'"):
        from_nwb("a.nwb")


def test_pynapples_units_are_those_of_arrays():
    nap = pytest.importorskip("pynapple")
    group = nap.TsGroup({i: nap.Ts(times) for i, times in enumerate(units().values())})
    np.testing.assert_array_equal(from_spike_times(group, TIMES, ODORS).spikes,
                                  from_spike_times(units(), TIMES, ODORS).spikes)


@pytest.mark.filterwarnings("ignore")
def test_an_nwb_file_is_read(tmp_path):
    pytest.importorskip("pynapple")
    pynwb = pytest.importorskip("pynwb")
    file = pynwb.NWBFile("a test", "a test", datetime(2026, 1, 1, tzinfo=UTC))
    for times in units().values():
        file.add_unit(spike_times=times)
    for name in ("odor", "entry_time"):
        file.add_trial_column(name, name)
    for time, odor in zip(TIMES, ODORS):
        file.add_trial(start_time=time, stop_time=time + 0.5, odor=odor, entry_time=time + 0.1)
    path = tmp_path / "a.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    np.testing.assert_array_equal(from_nwb(path).spikes, from_spike_times(units(), TIMES, ODORS).spikes)
    found = from_nwb(path, event="entry_time", after=0.1)
    np.testing.assert_array_equal(found.spikes, from_spike_times(units(), TIMES + 0.1, ODORS, after=0.1).spikes)
    assert found.odor.tolist() == [1, 0] * 5 and found.source == str(path)
    with pytest.raises(UserError, match="no column 'smell': choose from"):
        from_nwb(path, odor="smell")
