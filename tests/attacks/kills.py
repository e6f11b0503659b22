"""Kills: a writer is ended by SIGKILL at a moment drawn by the seed, and called again.

A work is `make(folder)`, what it needs; `call(folder)`, which writes, as the command line does; and `result(folder)`,
what was written, in numbers, without times. `whole(folder)` reads what is there after a kill: nothing may be
half-written. The next call must end with the result of a run that nobody killed, bit for bit, and with the same files.
"""

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from attacks import targets
from attacks.harness import LONGEST, REFUSED, RIGHT, fingerprint
from mmvm import fit, training
from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.study import results
from studies.mimic_cxr import data as mimic_cxr
from workflow import queue

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
import test_queue  # noqa: E402  a list, with a stand-in of the train command

WAIT = 300  # seconds on the clock after which a call is said to hang
TIMES = ("seconds", "samples_per_second", "date", "memory", "peak", "commit")  # what differs between two equal runs


@dataclass(frozen=True)
class Work:
    make: Callable[[Path], None]
    call: Callable[[Path], int]
    result: Callable[[Path], object]
    whole: Callable[[Path], object]
    out: str  # the folder, or file, that it writes


# the works -----------------------------------------------------------------------------------------------------------

def words(folder: Path) -> list[str]:
    settings = {**test_queue.TINY, "epochs": 3}
    del settings["profile"]
    return ["train", "polymnist", "--out", str(folder / "out"),
            *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


def timeless(rows) -> list[dict]:
    return [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]


def trained(folder: Path) -> list:
    """What a run's folder has so far."""
    out, found = folder / "out", []
    if (out / training.CHECKPOINT).exists():
        found.append(training.read_checkpoint(out / training.CHECKPOINT)[0])
    found.append(timeless(training.read_history(out)))
    if (out / "results.csv").exists():
        found.append(timeless(results.read(out / "results.csv").to_dict("records")))
    return found


def fit_tiny(folder: Path) -> int:
    fit(targets.tiny_model(), targets.tiny_data(), epochs=5, batch_size=4, out=folder / "out", checkpoint_seconds=0)
    return 0


def prepare(folder: Path) -> int:
    return main(["data", "mimic-cxr", "--root", str(folder / "set"), "--prepare", "--size", str(targets.SIZE),
                 "--workers", "2", "--set", "any_size=true"])


def prepared(folder: Path) -> list:
    """Names of samples differ with the key that each copy makes for itself."""
    return [{name: value for name, value in targets.data_set(mimic_cxr.load(split, folder / "set", size=targets.SIZE)
                                                             ).items() if name != "ids"} for split in mimic_cxr.SPLITS]


def desk(folder: Path, betas=(1, 2, 4), epochs: int = 3) -> test_queue.Desk:
    return test_queue.Desk(folder, list(betas), epochs)


def make_collected(folder: Path) -> None:
    """Runs that are done, whose rows are not in the table yet, and a table with rows of others."""
    own = desk(folder, range(1, 9))
    for i, run in enumerate(own.runs):
        own.folder(i).mkdir(parents=True)
        rows = [{**test_queue.ROW, "beta": run.parameters.beta, "run": run.parameters.run_hash(), "metric": f"m{k}"}
                for k in range(50)]
        results.append(rows, own.folder(i) / "results.csv")
    results.append([{**test_queue.ROW, "seed": k} for k in range(500)], own.table)


def collect(folder: Path) -> int:
    return int(not all(map(queue.collect, desk(folder, range(1, 9)).runs)))


def work_list(folder: Path) -> int:
    own = desk(folder)
    return own.work(workers=2)


def table(folder: Path) -> list:
    """As a set: the order of runs that were made side by side is not given."""
    path = folder / "table.csv"
    return sorted(map(str, results.read(path).to_dict("records"))) if path.exists() else []


WORKS = {
    "train": Work(lambda folder: None, lambda folder: main(words(folder)), trained, trained, "out"),
    "fit": Work(lambda folder: None, fit_tiny, trained, trained, "out"),
    "prepare": Work(lambda folder: targets.mimic_cxr_files.write_tree(folder / "set"), prepare, prepared,
                    lambda folder: None, "set/prepared"),
    "collect": Work(make_collected, collect, table, table, "table.csv"),
    "queue": Work(desk, work_list, table, table, "runs"),
}


# calls in processes of their own -------------------------------------------------------------------------------------

@contextmanager
def place() -> Iterator[Path]:
    """A folder for the cases of a work, whose folder of runs lies inside."""
    before = os.environ.get("MMVM_RUNS")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        os.chmod(folder, 0o755)
        os.environ["MMVM_RUNS"] = str(Path(folder, "x", "runs"))
        try:
            yield Path(folder, "x")
        finally:
            os.environ.pop("MMVM_RUNS") if before is None else os.environ.update(MMVM_RUNS=before)


def anew(work: Work, folder: Path) -> None:
    for _ in range(50):  # a worker of a killed call may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.1)
    folder.mkdir()
    work.make(folder)


def start(work: Work, folder: Path, before: Callable[[], None] = lambda: None, mark: str = "") -> int:
    """The call, in a process of its own, with what it says beside the folder, in files that end in `mark`; `before` is
    done there first."""
    said = [open(folder.with_name(name + mark), "w") for name in ("stdout", "stderr")]
    pid = os.fork()
    if not pid:
        status = 99
        try:
            for number, file in enumerate(said, 1):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = said
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            before()
            status = as_command(work.call, folder)
        except BaseException:
            traceback.print_exc(file=said[1])
        finally:
            for file in said:
                with contextlib.suppress(OSError):
                    file.flush()
            os._exit(status)
    for file in said:
        file.close()
    return pid


def as_command(call: Callable[[Path], int], folder: Path) -> int:
    """What mmvm.__main__ makes of errors, for calls that do not go through it."""
    try:
        return call(folder)
    except UserError as error:
        print(f"mmvm: {error}", file=sys.stderr)
    except OSError as error:
        print(f"mmvm: {error.filename or 'disk'}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt as error:
        print(f"mmvm: {str(error) or 'stopped'}", file=sys.stderr)
        return 130
    return 2


def ended(pid: int, seconds: float = WAIT) -> int | None:
    """The exit status, negative for a signal; None where the process is still there after these seconds."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.002)


def finish(work: Work, folder: Path, **options) -> int | None:
    """The call, to its end; one that hangs is ended."""
    pid = start(work, folder, **options)
    status = ended(pid)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    return status


def files_of(folder: Path) -> set[str]:
    """What lies there; hidden names are those of parts and locks."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)} - {"calls"}


def sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in files_of(folder)}


def said_by(folder: Path, mark: str = "") -> str:
    return folder.with_name(f"stderr{mark}").read_text(errors="replace")


def quietly(function, *arguments):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return function(*arguments)


@dataclass(frozen=True)
class Undisturbed:
    wanted: str         # the fingerprint of its result
    files: set[str]
    seconds: float
    largest: int        # bytes of its largest file
    bytes: int          # of all that it wrote


def undisturbed(work: Work, folder: Path) -> Undisturbed:
    anew(work, folder)
    before = sizes(folder)
    began = time.monotonic()
    status = finish(work, folder)
    assert status == 0, f"undisturbed it ends with {status}: {said_by(folder)}"
    seconds = time.monotonic() - began
    new = [size for name, size in sizes(folder).items() if size != before.get(name)]
    return Undisturbed(fingerprint(quietly(work.result, folder)), files_of(folder), seconds, max(new), sum(new))


def next_call(work: Work, folder: Path, whole: Undisturbed, **options) -> str:
    """The outcome of the call after a disturbance."""
    status = finish(work, folder, **options)
    if status != 0:
        return f"the next call ends with {status}"
    if fingerprint(quietly(work.result, folder)) != whole.wanted:
        return "the next call has another result"
    if files_of(folder) != whole.files:
        return f"other files: {sorted(files_of(folder) ^ whole.files)[:5]}"
    return RIGHT


def left_by(work: Work, folder: Path) -> str:
    """What is wrong with the files that a disturbed call left, or nothing."""
    try:
        quietly(work.whole, folder)
    except Exception as error:
        return f"half-written: {error}"
    return ""


def one_line(folder: Path, mark: str = "") -> str:
    """What is wrong with what a refused call said, or nothing."""
    said = said_by(folder, mark)
    lines = [line for line in said.splitlines() if line.startswith("mmvm: ")]
    if len(lines) != 1 or "Traceback" in said or len(lines[0]) > LONGEST:
        return f"no clear line: {said[-2_000:]}"
    return ""


# kills ---------------------------------------------------------------------------------------------------------------

def kill(work: Work, folder: Path, draw: random.Random, whole: Undisturbed) -> str:
    """One kill and what follows; a call that is done before its time is up is killed earlier."""
    longest = whole.seconds
    while True:
        anew(work, folder)
        pid = start(work, folder)
        if ended(pid, draw.random() * longest) is None:
            os.kill(pid, signal.SIGKILL)
            status = ended(pid)
            if status is None:
                return "it did not die"
            if status == -signal.SIGKILL:  # otherwise it was done in the moment of the kill
                break
        longest *= 0.9
    if draw.random() < 0.5 and (folder / "calls").exists():  # half of the time with what it has started
        for line in (folder / "calls").read_text().splitlines():
            if line.startswith("start"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line.split()[-1]), signal.SIGKILL)
    return left_by(work, folder) or next_call(work, folder, whole)


def run(name: str, cases: int, first: int = 0, faults: list | None = None) -> Counter:
    """Kills a work `cases` times, with the seeds from `first`: the outcomes and how often each."""
    found: Counter = Counter()
    torch.set_num_threads(1)
    with place() as folder:
        whole = undisturbed(WORKS[name], folder)
        for seed in range(first, first + cases):
            note(found, faults, seed, kill(WORKS[name], folder, random.Random(f"{name} {seed}"), whole), folder)
    return found


def note(found: Counter, faults: list | None, seed: int, outcome: str, folder: Path) -> None:
    sound = outcome in (RIGHT, REFUSED)
    found[outcome if sound else "fault"] += 1
    if not sound and faults is not None:
        faults.append((seed, outcome, said_by(folder)[-2_000:]))
