"""Runs cases within bounds: each in a process that has a limit of memory and of time, and whose files are watched."""

import hashlib
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from attacks.damage import bomb, damage
from attacks.targets import TARGETS, Target
from mmvm.errors import UserError

SECONDS = 10            # of a processor that a case may take
WAIT = 60               # seconds on the clock, of a busy machine, after which it is said to hang
MEMORY = 768 * 2**20    # bytes that a case may take on top of what the process has
LONGEST = 4_000         # characters of a line that says what is wrong
RIGHT, OTHER, REFUSED = "the right result", "read with the damage in it", "one clear line"
OUTCOMES = (RIGHT, OTHER, REFUSED)


class TooLong(BaseException):
    """The alarm of a case; no `except Exception` may swallow it."""


def _alarm(number, frame):
    raise TooLong


def fingerprint(x) -> str:
    """Of tensors, arrays and plain values in dictionaries and lists."""
    found = hashlib.sha256()

    def add(x):
        if isinstance(x, torch.Tensor):
            x = x.numpy()
        if isinstance(x, np.ndarray):
            found.update(f"{x.dtype} {x.shape}".encode())
            found.update(np.ascontiguousarray(x).tobytes())
        elif isinstance(x, dict):
            for key in sorted(x, key=str):
                add(key), add(x[key])
        elif isinstance(x, list | tuple):
            found.update(str(len(x)).encode())
            for part in x:
                add(part)
        else:
            found.update(repr(x).encode())
    add(x)
    return found.hexdigest()


def listing(folder: Path, own: tuple[str, ...]) -> dict:
    """Every file with what is in it, but for what lies in folders that a reader may write."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in own]
        for name in [*names, *folders]:
            path = Path(place, name)
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).digest()
            else:
                found[str(path)] = "folder" if path.is_dir() else "other"
    return found


def _limits() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGPROF, _alarm)
    warnings.simplefilter("ignore")


def attack(target: Target, template: Path, place: Path, seed: int, wanted: str) -> tuple[str, str]:
    """One case: (outcome, what was done and what was said). An outcome that is none of `OUTCOMES` is a fault."""
    folder = place / "x"
    shutil.copytree(template, folder, symlinks=True)
    try:
        what = damage(folder, seed)
        before, around = listing(folder, target.own), sorted(os.listdir(place))
        signal.alarm(WAIT)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            result = target.read(folder)
            found = fingerprint(result)
            outcome = (RIGHT if found == wanted else "a changed file was read" if target.vouched else
                       OTHER if target.sound(result) else "a result that makes no sense")
            said = ""
        except UserError as error:
            said = str(error)
            outcome = ("more than one line" if "\n" in said or not said or len(said) > LONGEST else
                       "a secret in the message" if any(word in said.encode() for word in target.secrets) else REFUSED)
        except OSError as error:  # of which the command line makes its one line, with the file's name
            said = f"{type(error).__name__}: {error}"
            outcome = REFUSED if error.filename and not any(w in said.encode() for w in target.secrets) else "OSError"
        except TooLong:
            outcome, said = "too long", ""
        except MemoryError:
            outcome, said = "too much memory", traceback.format_exc(limit=-3)
        except Exception as error:
            outcome, said = type(error).__name__, traceback.format_exc(limit=-4)
        finally:
            signal.alarm(0)
            signal.setitimer(signal.ITIMER_PROF, 0)
        escaped = Path("/tmp/escaped.npy").exists() or sorted(os.listdir(place)) != around
        if escaped or listing(folder, target.own) != before:
            outcome, said = "files changed", said or "while it was read"
        return outcome, f"{what}: {said}"
    finally:
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _work(name: str, template: Path, place: Path, seeds: range, wanted: str, pipe: int) -> None:
    _limits()
    with os.fdopen(pipe, "wb") as out:
        for seed in seeds:
            pickle.dump((seed, *attack(TARGETS[name], template, place, seed, wanted)), out)
            out.flush()


def run(name: str, cases: int, first: int = 0, faults: list | None = None) -> Counter:
    """Attacks a target `cases` times, with the seeds from `first`: the outcomes and how often each. A process that dies
    or hangs costs its case, which is a fault, and another one goes on. `faults` gets (seed, outcome, words)."""
    found: Counter = Counter()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        template, cell = Path(place, "sound"), Path(place, "cell")
        template.mkdir(), cell.mkdir()
        before = os.environ.get("MMVM_RUNS")
        os.environ["MMVM_RUNS"] = str(Path(place, "runs"))
        TARGETS[name].make(template)
        copy = cell / "x"
        shutil.copytree(template, copy)
        wanted = fingerprint(TARGETS[name].read(copy))
        bomb(".gz"), bomb(".zip")  # once, here
        shutil.rmtree(copy)
        seed, end = first, first + cases
        while seed < end:
            for done, outcome, said in _child(name, template, cell, range(seed, end), wanted):
                found[outcome] += 1
                if outcome not in OUTCOMES and faults is not None:
                    faults.append((done, outcome, said))
            seed = done + 1
            shutil.rmtree(cell), cell.mkdir()
        os.environ.pop("MMVM_RUNS") if before is None else os.environ.update(MMVM_RUNS=before)
    return found


def _child(name, template, cell, seeds, wanted):
    """The cases of one process, as they come; where it ends before its time, its last one as a fault."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(ours)
            _work(name, template, cell, seeds, wanted, theirs)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(0)
    os.close(theirs)
    done = seeds.start - 1
    with os.fdopen(ours, "rb") as said:
        signal.signal(signal.SIGALRM, _alarm)
        try:
            while True:
                signal.alarm(2 * WAIT)
                try:
                    case = pickle.load(said)
                except EOFError:
                    why = "died"
                    break
                except TooLong:  # in C, where no alarm is heard
                    why = "hangs"
                    break
                done = case[0]
                yield case
        finally:
            signal.alarm(0)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(pid, 0)
    if done < seeds.stop - 1:
        yield done + 1, why, ""
