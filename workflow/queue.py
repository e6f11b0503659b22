"""The queue: works through a list of runs (`lists`) on one machine, so many at a time, each its own process.

All that the queue knows lies in the runs' folders and in the table of results: it can be killed, moved together with
the folders, and called again. Done is what has rows in the table. A run holds a lock in its folder for as long as its
process lives, also where the queue itself was killed, so several queues may share one list.
"""

import argparse
import fcntl
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from mmvm import paths, training
from mmvm.errors import UserError
from mmvm.study import results
from workflow import lists
from workflow.lists import Run

TRAIN = (sys.executable, "-m", "mmvm", "train")
LOCK, LOG = "queue.lock", "train.log"
POLL = 0.2       # seconds between two looks at the processes
NOTICE = 30.0    # seconds before the end at which runs are told to stop; a quarter of the time where that is less
LAST = 1.0       # seconds before the end at which a run that has not stopped is killed
TRIES = 2        # of a run that fails, per call
DONE, FAILED, LEFT, STOPPED = 0, 1, 3, 130


class Child(NamedTuple):
    run: Run
    process: subprocess.Popen
    lock: IO


def work(runs: Sequence[Run], workers: int, minutes: float | None = None, threads: int = 1,
         command: Sequence[str] = TRAIN, notice: float = NOTICE) -> int:
    """Makes the runs that are not done, in their order. Returns the exit status: 0 all done, 1 some failed, 3 the time
    was over before all were done, 130 stopped by a signal. They are told to stop `notice` seconds before the end."""
    end = time.monotonic() + 60 * minutes if minutes else math.inf
    notice = min(notice, 15 * minutes) if minutes else 0.0
    stop_at = end - notice
    waiting = [run for run in runs if not done(run)]
    _say(f"{len(runs)} runs, {len(runs) - len(waiting)} done; {left(waiting, runs, workers)}")
    children: list[Child] = []
    failures: Counter[str] = Counter()
    failed: list[Run] = []
    told = False

    def settle(child: Child, stopping: bool) -> None:
        """What a process that has ended means for its run."""
        with child.lock:
            name, status = child.run.parameters.out, child.process.returncode
            if status == 0 and collect(child.run):
                _say(f"done {name}; {left([*(c.run for c in children), *waiting], runs, workers)}")
            elif stopping and status in (130, -signal.SIGTERM, -signal.SIGKILL):
                waiting.append(child.run)
            else:
                failures[name] += 1
                again = failures[name] < TRIES
                (waiting if again else failed).append(child.run)
                _say(f"failed (exit status {status}{', tried again at the end' if again else ''}) {name}: "
                     f"{last_line(child.run)}")

    with _stop_signals() as stop:
        try:
            while (waiting or children) and not stop and time.monotonic() < stop_at:
                waiting[:] = _start(waiting, children, workers, threads, command)
                if waiting and not children and not told:
                    _say(f"another queue is at the last {len(waiting)}: waiting for it")
                    told = True
                time.sleep(POLL)
                for child in [child for child in children if child.process.poll() is not None]:
                    children.remove(child)
                    settle(child, stopping=False)
        finally:
            for child in _stopped(children, kill_at=end - min(LAST, notice / 3)):
                children.remove(child)
                settle(child, stopping=True)
    return _close(runs, waiting, failed, workers, bool(stop))


def dry_run(runs: Sequence[Run], workers: int) -> int:
    """Says what `work` would do, in its order."""
    waiting = [run for run in runs if not done(run)]
    times = dict(zip((run.parameters.out for run in waiting), seconds_left(waiting, runs)))
    for name in (run.parameters.out for run in runs):
        _say(f"{name}: {'left, ' + duration(times[name]) if name in times else 'done'}")
    _say(f"{len(runs)} runs, {len(runs) - len(waiting)} done; {left(waiting, runs, workers)}")
    return DONE


def _close(runs: Sequence[Run], waiting: list[Run], failed: list[Run], workers: int, stopped: bool) -> int:
    for run in failed:
        _say(f"failed {TRIES} times: {run.parameters.out}: {last_line(run)}")
    if waiting:
        _say(f"{'stopped' if stopped else 'time is over'}; {left(waiting, runs, workers)}. The same command continues "
             "them from their checkpoints")
    elif not failed:
        _say(f"all {len(runs)} runs are done")
    return STOPPED if stopped and waiting else FAILED if failed else LEFT if waiting else DONE


def _say(line: str) -> None:
    print(line, flush=True)


# what is done --------------------------------------------------------------------------------------------------------

def done(run: Run) -> bool:
    """Whether the table has rows of this run."""
    return _name(run) in _runs_in(run.table)


def collect(run: Run) -> bool:
    """Whether the folder has rows of this run; they are put into the table."""
    file = _folder(run) / "results.csv"
    try:
        if _name(run) not in _runs_in(file):
            return False
    except UserError:  # a file that cannot be read stops this run alone: the train command says so
        return False
    rows = results.read(file)
    results.append(rows[(rows["run"] == run.parameters.run_hash()) & (rows["profile"] == run.parameters.profile)],
                   run.table)
    return True


def _name(run: Run) -> tuple[str, str, str]:
    return run.parameters.name, run.parameters.profile, run.parameters.run_hash()


def _runs_in(table: Path) -> set[tuple[str, str, str]]:
    return _read_runs(table, *_version(table)) if table.exists() else set()


@functools.lru_cache(16)
def _read_runs(table: Path, *version: int) -> set[tuple[str, str, str]]:
    rows = results.read(table)
    return set(zip(rows["experiment"], rows["profile"], rows["run"]))


def _version(path: Path) -> tuple[int, int]:
    """Another one after every change of a file: what was read of it is read again only then."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _folder(run: Run) -> Path:
    return paths.REPOSITORY / run.parameters.out


def last_line(run: Run) -> str:
    """The last words of a run; a progress bar is written over itself, so its lines end in a carriage return."""
    path = _folder(run) / LOG
    lines = path.read_text(errors="replace").replace("\r", "\n").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


# processes -----------------------------------------------------------------------------------------------------------

def _start(waiting: Iterable[Run], children: list[Child], workers: int, threads: int,
           command: Sequence[str]) -> list[Run]:
    """Starts the first of `waiting` that no other queue is at, while there are free workers; returns those that go on
    waiting."""
    rest = []
    for run in waiting:
        lock = _locked(run) if len(children) < workers else None
        if lock is None:
            rest.append(run)
        elif done(run) or collect(run):  # by another queue, or by one that was killed before the rows were in the table
            lock.close()
        else:
            children.append(Child(run, _process(run, lock, threads, command), lock))
    return rest


def _locked(run: Run) -> IO | None:
    """The run's lock, or None where another process has it."""
    _folder(run).mkdir(parents=True, exist_ok=True)
    lock = open(_folder(run) / LOCK, "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _process(run: Run, lock: IO, threads: int, command: Sequence[str]) -> subprocess.Popen:
    """A session of its own, so that Ctrl-C reaches the queue alone: a second signal would end the training without its
    checkpoint. The process inherits the lock, which is free when both it and the queue are gone."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
                   "TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"}  # the last line of the log is the last word
    with open(_folder(run) / LOG, "w") as log:
        process = subprocess.Popen([*command, *run.train_words()], cwd=paths.REPOSITORY, env=environment, stdout=log,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                                   pass_fds=[lock.fileno()])
    # Linux shares the processor between sessions first: in a new one the queue's niceness would count for nothing
    group = Path(f"/proc/{process.pid}/autogroup")
    if os.nice(0) and group.exists():
        with suppress(OSError):
            group.write_text(str(os.nice(0)))
    return process


def _stopped(children: Iterable[Child], kill_at: float) -> list[Child]:
    """Every process, after it was told to stop and has ended. One that takes until `kill_at` is killed: what it
    computed after its last checkpoint (a minute at most) is lost."""
    children = list(children)
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(None if kill_at == math.inf else max(0.0, kill_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
    return children


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """While open, Ctrl-C, SIGTERM and the end of the terminal are put into the yielded list; a second one acts at
    once. No event: to set one takes a lock, which the interrupted thread may have."""
    stop: list[int] = []

    def handle(number, frame):
        if stop:
            raise KeyboardInterrupt("stopped at once; runs that still write their checkpoint end by themselves")
        stop.append(number)

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
               if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# how long it will take -----------------------------------------------------------------------------------------------

def left(waiting: Sequence[Run], runs: Sequence[Run], workers: int) -> str:
    """How many runs are left and how long their training takes, from the seconds per epoch that were measured."""
    if not waiting:
        return "nothing is left"
    times = seconds_left(waiting, runs)
    known = [seconds for seconds in times if seconds is not None]
    said = f"{len(waiting)} left, training time "
    if not known:
        return said + "unknown: nothing like them was measured yet"
    # the workers share the runs, and no run is shared
    said += duration(max(sum(known) / workers, *known))
    unknown = len(times) - len(known)
    return said + (f", and unknown for {unknown} of them" if unknown else "")


def seconds_left(waiting: Iterable[Run], runs: Iterable[Run]) -> list[float | None]:
    """Of training, per waiting run: by its own epochs, or else by those of `runs` that differ from it in seed and beta
    alone, or else in the method too; None where there are none."""
    measured: dict[str, list[float]] = {}
    for run in runs:
        epochs, seconds = _trained(run)
        for key in _alike(run) if epochs else ():
            measured.setdefault(key, []).append(seconds / epochs)
    times = []
    for run in waiting:
        epochs, seconds = _trained(run)
        speeds = [seconds / epochs] if epochs else next((measured[key] for key in _alike(run) if key in measured), [])
        times.append(max(0, run.parameters.epochs - epochs) * sum(speeds) / len(speeds) if speeds else None)
    return times


def _trained(run: Run) -> tuple[int, float]:
    """Epochs that the run's folder has, and the seconds that they took."""
    path = _folder(run) / training.HISTORY
    return _last_epoch(path, *_version(path)) if path.exists() else (0, 0.0)


@functools.lru_cache(1024)
def _last_epoch(path: Path, *version: int) -> tuple[int, float]:
    try:
        history = training.read_history(path.parent)
    except UserError:  # the run itself says so; the others go on
        return 0, 0.0
    return (history[-1]["epoch"], history[-1]["seconds"]) if history else (0, 0.0)


@functools.lru_cache(1024)
def _alike(run: Run) -> tuple[str, str]:
    """What runs agree in that differ in seed and beta alone, and what those do that differ in the method too."""
    settings = {name: value for name, value in run.parameters.config().items() if name not in ("seed", "beta")}
    others = {name: value for name, value in settings.items() if name != "objective"}
    return json.dumps(settings, sort_keys=True), json.dumps(others, sort_keys=True)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


# the command ---------------------------------------------------------------------------------------------------------

ABOUT = """Trains the runs of a list, those of the lowest priority number first, each in a process of its own.

Rows are written into the list's table as runs finish; runs that have rows there are skipped. What was stopped or killed
goes on from its checkpoint with the next call, on another machine too if the runs' folders came along. Several queues
may share a list: none takes a run that another is at. On a GPU all workers share the one device, and its memory.

With --minutes the runs are told to stop --notice seconds before the end (a quarter of the time where that is less), to
write their checkpoints; the measurements after a training are not resumed, but made again: where the folders will not
be there for the next call, a short notice lets them end. A run that fails is tried once more after all others; its
folder holds train.log. Times are of training alone, from the epochs measured so far.

Exit status: 0 all runs are done, 1 a run failed twice, 2 a mistake in the call or the list, 3 the time was over before
all were done, 130 stopped by Ctrl-C or SIGTERM, with the checkpoints written."""


def add(commands, asks_for_help: bool) -> None:
    queue = commands.add_parser("queue", help="train a list of runs, several at a time", description=ABOUT,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    queue.add_argument("list", metavar="LIST.yaml", help="the runs (workflow/lists.py says how it is written)")
    queue.add_argument("--workers", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    queue.add_argument("--minutes", type=float, metavar="T", help="be over by then (default: when all runs are done)")
    queue.add_argument("--notice", type=float, default=NOTICE, metavar="S",
                       help="seconds before the end of --minutes at which runs are told to stop (default: %(default)g)")
    queue.add_argument("--threads", type=int, default=1, metavar="K", help="threads of each run (default: 1)")
    queue.add_argument("--dry-run", action="store_true", help="only say what is done, what is left, and its time")


def call(options) -> int:
    """`python -m mmvm queue`."""
    for name in ("workers", "threads"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.minutes is not None and not 0 < options.minutes < math.inf:
        raise UserError(f"--minutes must be positive, got {options.minutes:g}")
    if not 0 < options.notice < math.inf:
        raise UserError(f"--notice must be positive, got {options.notice:g}")
    runs = list(lists.read(options.list).values())
    if options.dry_run:
        return dry_run(runs, options.workers)
    return work(runs, options.workers, options.minutes, options.threads, notice=options.notice)
