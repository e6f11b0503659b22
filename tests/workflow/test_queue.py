"""Lists of runs and the queue that works through them. The mechanics run a stand-in of the train command, which takes
no time; one list of tiny runs is really trained."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from mmvm import training
from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.objectives import METHODS
from mmvm.paths import REPOSITORY
from mmvm.study import results
from mmvm.study.registry import STUDIES
from tools import note_settings
from workflow import lists, queue

TINY = {"profile": "tiny", "n_modalities": 2, "n_train": 64, "n_test": 60, "network": "conv:channels=2",
        "latent_dim": 4, "batch_size": 32, "epochs": 2, "n_probe": 60, "classifier_epochs": 1, "device": "cpu"}
# An epoch takes 0.1 s and a checkpoint is the number of epochs. The file `plan` says by folder: the run's hash, its
# epochs, and how many calls fail; `calls` grows by one line a call.
FAKE = '''
import csv, json, os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
folder, here = Path(sys.argv[-1]), Path(__file__).parent
plan = json.loads((here / "plan").read_text())[sys.argv[-1]]
with open(here / "calls", "a") as file:
    file.write(f"start {sys.argv[-1]} {os.environ['OMP_NUM_THREADS']} {os.environ['MKL_NUM_THREADS']} {os.getpid()}\\n")
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
print("started", flush=True)
failed = folder / "failed"
failures = int(failed.read_text()) if failed.exists() else 0
if failures < plan["failures"]:
    failed.write_text(str(failures + 1))
    sys.exit("epoch 1\\repoch 2\\rmmvm: the disk is full\\n")
history = folder / "history.jsonl"
epoch = len(history.read_text().splitlines()) if history.exists() else 0
while epoch < plan["epochs"]:
    time.sleep(0.1)
    epoch += 1
    with open(history, "a") as file:
        file.write(json.dumps({"epoch": epoch, "seconds": 0.1 * epoch}) + "\\n")
    if stop and not plan["deaf"]:
        with open(here / "calls", "a") as file:
            file.write(f"stopped {sys.argv[-1]}\\n")
        sys.exit(130)
with open(folder / "results.csv", "w", newline="") as file:
    csv.writer(file).writerows(plan["table"])
with open(here / "calls", "a") as file:
    file.write(f"end {sys.argv[-1]}\\n")
'''
ROW = {"experiment": "polymnist", "method": "mmvm", "beta": 1.0, "seed": 0, "profile": "tiny", "metric": "probe",
       "source": "", "target": "mean", "value": 0.5, "n_train": 64, "epochs": 1, "updates": 2, "device": "cpu",
       "seconds": 1.0, "torch": "2", "commit": "0", "date": "2026-01-01", "run": "0", "note": ""}


class Desk:
    """A list of `betas` in a folder of its own, with the stand-in of the train command."""

    def __init__(self, folder: Path, betas: list[float], epochs: int = 1, failures: dict | None = None,
                 deaf: bool = False):
        self.root, self.path, self.table = folder, folder / "list.yaml", folder / "table.csv"
        profile = folder / "tiny.yaml"
        profile.write_text(yaml.safe_dump({**TINY, "epochs": epochs}))
        write(self.path, study="polymnist", profile=str(profile), results=str(self.table),
              runs=[{"betas": betas, "seeds": [0]}])
        self.runs = list(lists.read(self.path).values())
        plan = {}
        for run in self.runs:
            p = run.parameters
            row = {**ROW, "beta": p.beta, "run": p.run_hash()}
            plan[p.out] = {"epochs": epochs, "failures": (failures or {}).get(p.beta, 0), "deaf": deaf,
                           "table": [list(results.COLUMNS), [row.get(name, "") for name in results.COLUMNS]]}
        (folder / "plan").write_text(json.dumps(plan))
        (folder / "fake.py").write_text(FAKE)
        self.command = [sys.executable, "-S", str(folder / "fake.py")]

    def work(self, workers: int = 1, **keywords) -> int:
        return queue.work(self.runs, workers, command=self.command, **keywords)

    def start(self, workers: int = 1) -> subprocess.Popen:
        """A queue in a process of its own."""
        code = (f"import sys; from workflow import lists, queue; sys.exit(queue.work(list(lists.read("
                f"{str(self.path)!r}).values()), {workers}, command={self.command!r}))")
        return subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE)

    def calls(self, kind: str = "start") -> list[str]:
        """Names of the folders, in the order of the calls."""
        file = self.root / "calls"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [Path(words[1]).name for words in lines if words[0] == kind]

    def pids(self) -> list[int]:
        lines = (self.root / "calls").read_text().splitlines()
        return [int(line.split()[-1]) for line in lines if line.startswith("start")]

    def epochs(self, i: int = 0) -> int:
        return len(training.read_history(self.folder(i)))

    def folder(self, i: int = 0) -> Path:
        return REPOSITORY / self.runs[i].parameters.out

    def betas_in_table(self) -> set[float]:
        return set(results.read(self.table)["beta"]) if self.table.exists() else set()


def write(path: Path, **content) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def wait_for(what, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def signalled(number: int, when):
    """Sends a signal to this process as soon as `when()`."""
    def send():
        wait_for(when, 60)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(queue, "POLL", 0.02)
    return lambda *arguments, **keywords: Desk(tmp_path, *arguments, **keywords)


# lists ---------------------------------------------------------------------------------------------------------------

def names(*entries: dict, **content) -> list[str]:
    found = lists.expand({"study": "polymnist", "profile": "smoke", "runs": list(entries), **content}, "list x")
    return ["/".join(Path(folder).parts[-3:]) for folder in found]


def test_all_betas_of_the_first_seed_come_first():
    assert names({"betas": [1, 0.25], "seeds": [1, 0]}) == [
        f"polymnist/smoke/mmvm-b{beta}-s{seed}" for seed in (1, 0) for beta in ("1", "0.25")]


def test_lower_priorities_come_earlier_and_equal_ones_as_listed():
    entries = [{"betas": [beta], "seeds": [0], "priority": priority} for beta, priority in ((1, 2), (2, 0), (3, -1))]
    assert [name[-4:-3] for name in names(*entries, {"betas": [4, 5], "seeds": [0]})] == ["3", "2", "4", "5", "1"]


def test_each_seed_may_have_its_own_priority():
    entries = [{"betas": [beta], "seeds": [0, 1], "priority": [1, 2]} for beta in (1, 2)]
    assert [name[-5:] for name in names(*entries)] == ["b1-s0", "b2-s0", "b1-s1", "b2-s1"]


def test_a_run_named_twice_is_made_once_at_its_earliest_place():
    entries = [{"betas": [1, 2, 3], "seeds": [0]}, {"betas": [3], "seeds": [0], "priority": -1},
               {"betas": [2], "seeds": [0], "priority": 1}]
    assert [name[-4:-3] for name in names(*entries)] == ["3", "1", "2"]


def test_a_run_spelled_in_two_ways_is_made_once():
    spelled = [{"settings": {"learning_rate": text}, "betas": [1], "seeds": [0]} for text in ("2e-3", 0.002)]
    assert len(names(*spelled)) == 1
    assert names({**spelled[1], "priority": -1}, {"betas": [2], "seeds": [0], "priority": -2}, spelled[0]) == [
        "polymnist/smoke/mmvm-b2-s0", "polymnist/smoke/mmvm-learning_rate=0.002-b1-s0"]


def test_an_entry_may_name_another_study_and_profile():
    found = list(lists.expand({"study": "polymnist", "profile": "smoke", "runs": [
        {"betas": [1], "seeds": [0]},
        {"betas": [1], "seeds": [0], "study": "cub", "profile": "laptop"}]}, "list x").values())
    assert [(run.parameters.name, run.profile, run.table.name) for run in found] == [
        ("polymnist", "smoke", "polymnist.csv"), ("cub", "laptop", "cub.csv")]
    assert found[1].train_words()[:3] == ["cub", "--profile", "laptop"]


def test_files_are_seen_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, = lists.expand({"study": "polymnist", "profile": "book/params/polymnist-laptop.yaml",
                         "results": "runs/mine.csv", "runs": [{"betas": [1], "seeds": [0]}]}, "list x").values()
    assert run.table == REPOSITORY / "runs" / "mine.csv" and run.parameters.n_train == 60000
    assert not Path(run.parameters.out).is_absolute()


ENTRY = {"betas": [1], "seeds": [0]}


@pytest.mark.parametrize("content, sentence", [
    ({"betas": [1]}, "unknown key betas; a list has: study, profile, results, runs"),
    ({"runs": []}, "runs must be a list of entries, got []: write lines of"),
    ({"results": "x.txt"}, "results must be a csv file, got 'x.txt': correct it, or leave it out"),
    ({"study": "mnist"}, "entry 1: there is no study 'mnist'; there are: cub, hippocampus"),
    ({"profile": "huge"}, "entry 1: there is no profile"),
    ({"profile": None}, "entry 1: profile must be a name in book/params or a YAML file, got None"),
    ({"runs": [ENTRY, 7]}, "entry 2 must hold names and values, got 7; an entry has: settings, betas, seeds, priority"),
    ({"runs": [{**ENTRY, "beta": 1}]}, "entry 1: unknown key beta; an entry has: settings"),
    ({"runs": [{**ENTRY, "betas": 1}]}, "entry 1: betas must be a list, got 1: write betas: [1]"),
    ({"runs": [{**ENTRY, "seeds": []}]}, "entry 1: seeds must be a list, got []"),
    ({"runs": [{**ENTRY, "seeds": [0.5]}]}, "entry 1: seed must be an integer, got '0.5'"),
    ({"runs": [{**ENTRY, "priority": "high"}]}, "entry 1: priority must be an integer, the lower the earlier, or a"),
    ({"runs": [{**ENTRY, "priority": [1, 2]}]},
     "entry 1: priority must be an integer, the lower the earlier, or a list of one for each of the 1 seeds, got [1"),
    ({"runs": [{**ENTRY, "settings": ["a"]}]}, "entry 1: settings must hold names and values, got ['a']"),
    ({"runs": [{**ENTRY, "settings": {"epochs": [1, 2]}}]}, "entry 1: the setting epochs must be one number, text"),
    ({"runs": [{**ENTRY, "settings": {"bta": 1}}]}, "entry 1: unknown parameter bta; PolyMNIST has: profile"),
    ({"runs": [{**ENTRY, "settings": {"seed": 1}}]}, "entry 1: seed is no setting of an entry: it comes from seeds"),
])
def test_a_mistake_in_a_list_is_one_line(content, sentence, tmp_path, capsys):
    path = write(tmp_path / "x.yaml", **{"study": "polymnist", "profile": "smoke", "runs": [ENTRY], **content})
    assert main(["queue", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mmvm: list {path}") and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize("text, sentence", [("a: [1\nb: 2", "line 2, is not YAML"), ("7", "must hold names and values"),
                                            (None, "there is no list")])
def test_a_file_that_is_no_list_is_named(text, sentence, tmp_path):
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=sentence) as error:
        lists.read(path)
    assert str(path) in str(error.value)


@pytest.mark.slow
def test_every_committed_list_names_runs():
    for path in (REPOSITORY / "workflow" / "lists").glob("*.yaml"):
        for folder, run in lists.read(path).items():
            assert run.parameters.out == folder and run.parameters.name in STUDIES


@pytest.mark.slow
def test_the_rows_that_choose_betas_are_of_the_listed_runs():
    """One more run of a method and beta would be averaged with the first."""
    listed = {(run.parameters.name, run.parameters.run_hash())
              for run in lists.read("workflow/lists/validation.yaml").values()}
    assert set(results.read("validation")[["experiment", "run"]].itertuples(index=False, name=None)) <= listed


def test_noting_the_settings_loses_no_row_that_has_them(tmp_path, monkeypatch):
    there = results.read("errata_birds")
    there = there[there["run"] == there["run"].iloc[0]].head(6)
    table = tmp_path / "table.csv"
    results.append(there.assign(note=["", *["epochs=3"] * (len(there) - 1)]), table)
    run = SimpleNamespace(table=table, settings=["epochs=3"], parameters=SimpleNamespace(
        out="", profile=there["profile"].iloc[0], run_hash=lambda: there["run"].iloc[0]))
    monkeypatch.setattr(note_settings.lists, "read", lambda path: {"run": run})
    note_settings.main("a list")
    found = results.read(table)
    assert len(found) == len(there) == 6 and set(found["note"]) == {"epochs=3"}


def test_the_smoke_list_has_every_method():
    runs = lists.read("workflow/lists/smoke.yaml").values()
    assert {run.parameters.objective.partition(":")[0] for run in runs} == set(METHODS)


@pytest.mark.parametrize("words, sentence", [(["--workers", "0"], "--workers must be at least 1, got 0"),
                                             (["--threads", "0"], "--threads must be at least 1, got 0"),
                                             (["--minutes", "0"], "--minutes must be positive, got 0"),
                                             (["--notice", "0"], "--notice must be positive, got 0")])
def test_a_wrong_number_is_named(words, sentence, capsys):
    assert main(["queue", "workflow/lists/smoke.yaml", *words]) == 2
    assert sentence in capsys.readouterr().err


# the queue -----------------------------------------------------------------------------------------------------------

def test_runs_are_made_in_order_and_a_second_call_makes_none(desk, capsys):
    desk = desk([4, 1, 2])
    assert desk.work(threads=3) == queue.DONE
    assert desk.calls() == ["mmvm-b4-s0", "mmvm-b1-s0", "mmvm-b2-s0"]
    assert desk.betas_in_table() == {1, 2, 4}
    assert " 3 3 " in (desk.root / "calls").read_text(), "threads of both libraries"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "3 runs, 0 done; 3 left, training time unknown: nothing like them was measured yet"
    assert said[1].endswith("mmvm-b4-s0; 2 left, training time about 0 s") and said[-1] == "all 3 runs are done"

    assert desk.work() == queue.DONE and len(desk.calls()) == 3
    assert capsys.readouterr().out.splitlines()[0] == "3 runs, 3 done; nothing is left"


def test_rows_of_another_profile_or_hash_are_no_sign_that_a_run_is_done(desk):
    desk = desk([1])
    results.append([{**ROW, "run": desk.runs[0].parameters.run_hash(), "profile": "other"}, ROW], desk.table)
    assert desk.work() == queue.DONE and len(desk.calls()) == 1
    assert len(results.read(desk.table)) == 3


def test_finished_rows_that_are_not_in_the_table_yet_are_put_there(desk):
    desk = desk([1, 2])
    desk.work()
    desk.table.unlink()  # as after a kill between a run's last step and the queue's
    assert desk.work() == queue.DONE and len(desk.calls()) == 2 and desk.betas_in_table() == {1, 2}


def test_broken_rows_in_a_folder_stop_that_run_alone(desk):
    desk = desk([1, 2])
    desk.folder().mkdir(parents=True)
    (desk.folder() / "results.csv").write_text("cut")
    assert desk.work() == queue.DONE and desk.betas_in_table() == {1, 2}


def test_workers_run_side_by_side(desk):
    desk = desk([1, 2, 3], epochs=4)
    desk.work(workers=3)
    kinds = [line.split()[0] for line in (desk.root / "calls").read_text().splitlines()]
    assert kinds == ["start"] * 3 + ["end"] * 3


def test_a_dry_run_tells_and_touches_nothing(desk, capsys):
    desk = desk([1, 2])
    before = sorted(desk.root.rglob("*"))
    assert main(["queue", str(desk.path), "--dry-run"]) == 0
    assert sorted(desk.root.rglob("*")) == before
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("mmvm-b1-s0: left, unknown") and len(said) == 3


@pytest.mark.slow
def test_it_stops_before_the_time_is_over_and_goes_on_from_there(desk, capsys):
    desk = desk([1, 2], epochs=25)
    begin = time.monotonic()
    assert desk.work(minutes=2 / 60) == queue.LEFT
    assert time.monotonic() - begin < 2
    assert 1 <= (before := desk.epochs()) < 25 and desk.calls() == desk.calls("stopped") == ["mmvm-b1-s0"]
    said = capsys.readouterr().out
    assert re.search(r"time is over; 2 left, training time about \d s. The same command continues", said)
    assert desk.betas_in_table() == set()
    assert desk.work(workers=2) == queue.DONE
    assert desk.epochs() == 25, f"continued after {before}"
    assert sorted(desk.calls()) == ["mmvm-b1-s0", "mmvm-b1-s0", "mmvm-b2-s0"]


def test_a_run_that_does_not_stop_is_killed_in_time(desk, monkeypatch):
    monkeypatch.setattr(queue, "LAST", 0.2)
    desk = desk([1], epochs=100, deaf=True)
    begin = time.monotonic()
    assert desk.work(minutes=1 / 60) == queue.LEFT
    assert time.monotonic() - begin < 1


def test_with_a_short_notice_a_run_goes_on_for_longer(desk, monkeypatch):
    desk = desk([1], epochs=100)
    begin = time.monotonic()
    assert desk.work(minutes=1 / 60, notice=0.1) == queue.LEFT
    assert time.monotonic() - begin > 0.85  # with the default it is told after 0.75

    told = []
    monkeypatch.setattr(queue, "work", lambda *arguments, notice: told.append(notice))
    for words in ([], ["--notice", "5"]):
        main(["queue", str(desk.path), *words])
    assert told == [queue.NOTICE, 5]


def test_a_failing_run_is_told_put_at_the_end_and_tried_once_more(desk, capsys):
    desk = desk([1, 2, 3], failures={1: 9, 2: 1})
    assert desk.work() == queue.FAILED
    assert [name[6] for name in desk.calls()] == ["1", "2", "3", "1", "2"]
    assert desk.betas_in_table() == {2, 3}
    said = capsys.readouterr().out
    assert re.search(r"failed \(exit status 1, tried again at the end\) \S*mmvm-b1-s0: mmvm: the disk is full\n", said)
    assert re.search(r"failed 2 times: \S*mmvm-b1-s0: mmvm: the disk is full\n$", said)


def test_a_run_without_rows_has_failed(desk, capsys):
    desk = desk([1])
    assert queue.work(desk.runs, 1, command=[sys.executable, "-S", "-c", "print('nothing to do')"]) == queue.FAILED
    assert "failed 2 times" in (said := capsys.readouterr().out) and "nothing to do" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_runs_and_says_how_to_go_on(number, desk, capsys, monkeypatch):
    """No event is set in the thread that the signal interrupts: it may hold the event's lock."""
    real = threading.Event.set
    monkeypatch.setattr(threading.Event, "set", lambda event: pytest.fail("an event of the main thread")
                        if threading.get_ident() == threading.main_thread().ident else real(event))
    desk = desk([1, 2], epochs=100)
    with signalled(number, lambda: len(desk.calls()) == 2 and desk.epochs(0) and desk.epochs(1)):
        assert desk.work(workers=2) == queue.STOPPED
    said = capsys.readouterr().out
    assert "stopped; 2 left, training time about" in said and "The same command continues" in said
    for pid in desk.pids():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
def test_everything_killed_goes_on_from_the_folders(desk):
    desk = desk([1, 2], epochs=8)
    process = desk.start(workers=2)
    wait_for(lambda: len(desk.calls()) == 2 and desk.epochs(0) > 2 and desk.epochs(1) > 2)
    process.kill()
    for pid in desk.pids():
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert desk.betas_in_table() == set()
    assert desk.work(workers=2) == queue.DONE
    assert len(desk.calls()) == 4 and desk.betas_in_table() == {1, 2}
    assert [desk.epochs(i) for i in (0, 1)] == [8, 8], "no epoch was made again"


@pytest.mark.slow
def test_a_run_whose_queue_was_killed_is_waited_for(desk, capsys):
    desk = desk([1], epochs=20)
    process = desk.start()
    wait_for(lambda: desk.epochs() > 1)
    process.kill()
    process.communicate()
    assert desk.work() == queue.DONE
    assert desk.calls() == ["mmvm-b1-s0"] and desk.betas_in_table() == {1}
    assert "another queue is at the last 1: waiting for it" in capsys.readouterr().out


@pytest.mark.slow
def test_two_queues_share_a_list_and_make_no_run_twice(desk, capsys):
    desk = desk([1, 2, 3, 4], epochs=5)
    process = desk.start()
    wait_for(desk.calls)
    assert desk.work() == queue.DONE
    said = [process.communicate()[0], capsys.readouterr().out]
    assert process.returncode == queue.DONE
    assert sorted(desk.calls()) == [f"mmvm-b{beta}-s0" for beta in (1, 2, 3, 4)]
    assert desk.betas_in_table() == {1, 2, 3, 4}
    assert all("all 4 runs are done" in words and "done " in words for words in said)


def test_no_absolute_path_is_kept_in_a_folder(desk):
    desk = desk([1])
    desk.work()
    kept = {path.name: path.read_text() for path in desk.folder().iterdir() if path.name != queue.LOG}
    assert queue.LOCK in kept and not any(str(desk.root) in text for text in kept.values())


# how long ------------------------------------------------------------------------------------------------------------

def test_the_time_left_is_measured(desk):
    desk = desk([1, 2, 3], epochs=10)
    poe = lists.expand({"study": "polymnist", "profile": str(desk.root / "tiny.yaml"), "runs": [
        {"settings": {"objective": "poe"}, "betas": [1], "seeds": [5]},
        {"settings": {"n_train": 60}, "betas": [1], "seeds": [0]}]}, "list x")
    runs = [*desk.runs, *poe.values()]

    def trained(i: int, epochs: int, seconds: float) -> None:
        folder = REPOSITORY / runs[i].parameters.out
        folder.mkdir(parents=True, exist_ok=True)
        (folder / training.HISTORY).write_text(json.dumps({"epoch": epochs, "seconds": seconds}) + "\n")

    assert queue.seconds_left(runs, runs) == [None] * 5
    trained(3, 10, 100.0)  # of another method, where there is nothing better
    assert queue.seconds_left(runs, runs) == [100, 100, 100, 0, None]
    trained(0, 5, 100.0)   # of the same method
    assert queue.seconds_left(runs, runs) == [100, 200, 200, 0, None]
    trained(1, 1, 40.0)    # its own, and the mean of both for the third
    assert queue.seconds_left(runs, runs) == [100, 360, 300, 0, None]
    assert queue.left(runs[:1], runs, 2) == "1 left, training time about 2 min"
    assert queue.left(runs[:3], runs, 2) == "3 left, training time about 6 min"
    assert queue.left(runs, runs, 1) == "5 left, training time about 13 min, and unknown for 1 of them"
    assert queue.left([], runs, 1) == "nothing is left"


@pytest.mark.parametrize("seconds, text", [(None, "unknown"), (4.2, "about 4 s"), (600, "about 10 min"),
                                           (7200, "about 2.0 h")])
def test_durations_are_words(seconds, text):
    assert queue.duration(seconds) == text


# really trained ------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_tiny_runs_are_really_trained_stopped_and_continued(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMVM_RUNS", str(tmp_path / "runs"))
    profile = write(tmp_path / "tiny.yaml", **{**TINY, "epochs": 80})
    path = write(tmp_path / "list.yaml", study="polymnist", profile=str(profile), results=str(tmp_path / "t.csv"),
                 runs=[{"settings": {"objective": "independent"}, "betas": [1], "seeds": [0]}])
    run, = lists.read(path).values()
    folder = REPOSITORY / run.parameters.out
    with signalled(signal.SIGTERM, lambda: len(training.read_history(folder)) > 2):
        assert main(["queue", str(path)]) == 130
    epochs = len(training.read_history(folder))
    assert 2 < epochs < 80 and "mmvm: stopped after update" in queue.last_line(run)
    assert main(["queue", str(path)]) == 0, queue.last_line(run)
    assert "all 1 runs are done" in capsys.readouterr().out
    table = results.read(tmp_path / "t.csv")
    assert set(table["run"]) == {run.parameters.run_hash()} and set(table["updates"]) == {160}
    assert math.isclose(table["seconds"].iloc[0], training.read_history(folder)[-1]["seconds"], abs_tol=0.1)
    assert list(csv.DictReader(open(tmp_path / "t.csv"))) == list(csv.DictReader(open(folder / "results.csv")))


def test_a_damaged_history_does_not_stop_the_others(desk, capsys):
    desk = desk([1, 2])
    folder = desk.folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / training.HISTORY).write_text('{"epoch": 1, "seconds": 1}\nno epoch\n{"epoch": 3, "seconds": 3}\n')
    assert queue.dry_run(desk.runs, 1) == 0
    assert "2 left" in capsys.readouterr().out
