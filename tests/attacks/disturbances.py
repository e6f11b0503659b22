"""What else happens to a writer: a full disk, a folder that cannot be written, a second process, SIGTERM, a clock that
is set back, a file where a folder should be, ten thousand characters. Each call ends with the right result or one clear
line, and the next one as if nothing had happened."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch

from attacks.harness import REFUSED, RIGHT
from attacks.kills import (
    WORKS,
    Undisturbed,
    Work,
    anew,
    ended,
    files_of,
    finish,
    left_by,
    next_call,
    note,
    one_line,
    place,
    said_by,
    start,
    undisturbed,
    words,
)
from mmvm.__main__ import main
from mmvm.study.registry import STUDIES

KINDS = {"SIGTERM": 60, "files of limited size": 60, "full disk": 60, "read-only disk": 10, "two processes": 60,
         "clock set back": 60, "a file in the way": 5, "10,000 characters": 250}
YEAR = 365 * 86_400
LONG = [*(sign * 10_000 for sign in ("x", "9", "\u00e4", "[")), "a/" * 5_000]


def after(work: Work, folder: Path, status: int | None, whole: Undisturbed, fine: tuple[int, ...]) -> str:
    """The outcome, from the status of the disturbed call on."""
    if status == 0:
        return next_call(work, folder, whole)
    if status not in fine:
        return f"ends with {status}: {said_by(folder)[-2_000:]}"
    queue = work is WORKS["queue"]  # says in its own lines which run failed, and stops with a status alone
    wrong = "Traceback" in said_by(folder) if queue or status < 0 else one_line(folder)
    parts = [path for path in folder.rglob(".*.*") if path.suffix[1:].isdigit()]
    if wrong or (parts and not queue and status > 0):
        return f"no clear line: {said_by(folder)[-2_000:]}" if wrong else f"left behind: {parts}"
    outcome = left_by(work, folder) or next_call(work, folder, whole)
    return REFUSED if outcome == RIGHT else outcome


def told_to_stop(work: Work, folder: Path, draw: random.Random, whole: Undisturbed) -> str:
    anew(work, folder)
    pid = start(work, folder)
    status = ended(pid, draw.random() * whole.seconds)
    if status is None:
        os.kill(pid, signal.SIGTERM)
        status = ended(pid)
    return after(work, folder, status, whole, (130, -signal.SIGTERM))  # the latter before the call has begun


def limited(work: Work, folder: Path, draw: random.Random, whole: Undisturbed) -> str:
    """No file may grow beyond a size, which a write then reports as a full disk is reported."""
    anew(work, folder)
    most = 4_096 + int(draw.random() * whole.largest)
    status = finish(work, folder, before=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1])))
    return after(work, folder, status, whole, (1, 2))


@contextmanager
def disk(work: Work, folder: Path) -> Iterator:
    """The work's folder as a file system of its own, of 64 MB; yields what mounts it again with other options."""
    anew(Work(lambda folder: None, work.call, work.result, work.whole, work.out), folder)

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    mount("size=256m")
    try:
        work.make(folder)
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full(work: Work, folder: Path, draw: random.Random, whole: Undisturbed) -> str:
    """There is room for a part of what is to be written."""
    with disk(work, folder) as mount:
        space = os.statvfs(folder)
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        mount(f"size={used + int(draw.random() * whole.bytes)}")
        status = finish(work, folder)
        mount("size=256m")
        return after(work, folder, status, whole, (1, 2))


def read_only(work: Work, folder: Path, draw: random.Random, whole: Undisturbed) -> str:
    with disk(work, folder) as mount:
        mount("ro")
        status = finish(work, folder)
        mount("rw")
        return after(work, folder, status, whole, (1, 2)) if status else "a read-only disk was written"


def two(work: Work, folder: Path, draw: random.Random, whole: Undisturbed) -> str:
    """The second starts while the first is at work: it waits, shares, or is refused."""
    anew(work, folder)
    first = start(work, folder)
    time.sleep(draw.random() * whole.seconds)
    second = start(work, folder, mark="-2")
    found = {"-2": ended(second), "": ended(first)}
    if 0 not in found.values() or set(found.values()) - {0, 2}:
        return f"they end with {found}: {said_by(folder)[-1_000:]} {said_by(folder, '-2')[-1_000:]}"
    refused = [mark for mark, status in found.items() if status]
    wrong = one_line(folder, refused[0]) if refused else ""
    outcome = wrong or left_by(work, folder) or next_call(work, folder, whole)
    return REFUSED if outcome == RIGHT and refused else outcome


def clock(work: Work, folder: Path, draw: random.Random, whole: Undisturbed) -> str:
    """A call is killed, all it wrote is a year old in the other direction, and the next one lives a year ago."""
    anew(work, folder)
    pid = start(work, folder)
    if ended(pid, draw.random() * whole.seconds) is None:
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a part that its writer has just moved
            os.utime(path, (time.time() + YEAR,) * 2)
    now = time.time

    def back() -> None:
        time.time = lambda: now() - YEAR
    return next_call(work, folder, whole, before=back)


def in_the_way(work: Work, folder: Path, draw: random.Random, whole: Undisturbed) -> str:
    """A file where the folder should be, or a folder where the file."""
    anew(work, folder)
    out = folder / work.out
    before = out.read_bytes() if out.is_file() else None
    if before is None:
        out.write_text("a file")
    else:
        out.unlink(), out.mkdir()
    there = files_of(folder)
    status = finish(work, folder)
    if files_of(folder) != there:
        return f"files changed: {files_of(folder) ^ there}"
    if before is None:
        out.unlink()
    else:
        out.rmdir(), out.write_bytes(before)
    return after(work, folder, status, whole, (1, 2)) if status else "what was in the way was not noticed"


def long_words(folder: Path, draw: random.Random) -> list[str]:
    """A call of the command line with ten thousand characters in one place."""
    study, text = draw.choice(list(STUDIES)), draw.choice(LONG)
    name = draw.choice([field.name for field in fields(STUDIES[study])])
    return draw.choice((
        ["train", study, "--dry-run", "--set", f"{name}={text}"], ["train", study, "--dry-run", "--set", text],
        ["train", study, "--dry-run", "--set", f"objective=mmvm:{draw.choice(('bound', 'gate', text))}={text}"],
        ["train", study, "--profile", text], [*words(folder), "--out", str(folder / text)],
        ["data", study, "--check", "--root", str(folder / text)], ["data", study, "--check", "--set", f"root={text}"],
        ["results", text], ["results", study, "--metric", text], ["show", text], ["queue", text]))


def long(folder: Path, draw: random.Random) -> str:
    asked = long_words(folder, draw)
    work = Work(lambda folder: None, lambda folder: main(asked), lambda folder: None, lambda folder: None, "")
    anew(work, folder)
    status = finish(work, folder)
    if files_of(folder):
        return f"{[word[:80] for word in asked]} wrote {files_of(folder)}"
    if status == 0:
        return RIGHT
    wrong = one_line(folder) if status == 2 else f"ends with {status}: {said_by(folder)[-2_000:]}"
    return f"{[word[:80] for word in asked]}: {wrong}" if wrong else REFUSED


DO = {"SIGTERM": told_to_stop, "files of limited size": limited, "full disk": full, "read-only disk": read_only,
      "two processes": two, "clock set back": clock, "a file in the way": in_the_way}


def run(name: str, cases: int, first: int = 0, faults: list | None = None, works: tuple[str, ...] = tuple(WORKS)
        ) -> Counter:
    """Disturbs `works` in turn, `cases` in all, with the seeds from `first`: the outcomes and how often each."""
    found: Counter = Counter()
    torch.set_num_threads(1)
    whole: dict[str, Undisturbed] = {}
    with place() as folder:
        if DO.get(name) in (full, read_only):
            try:
                with disk(WORKS["fit"], folder):
                    pass
            except (subprocess.CalledProcessError, FileNotFoundError) as error:
                print(f"{name}: left out, no small file system can be mounted here ({error})", file=sys.stderr)
                return found
        for seed in range(first, first + cases):
            work, draw = works[seed % len(works)], random.Random(f"{name} {seed}")
            if name == "10,000 characters":
                outcome = long(folder, draw)
            else:
                if work not in whole:
                    whole[work] = undisturbed(WORKS[work], folder)
                outcome = DO[name](WORKS[work], folder, draw, whole[work])
            sound = outcome in (RIGHT, REFUSED)
            note(found, faults, seed, outcome if sound else f"{work}: {outcome}", folder)
    return found
