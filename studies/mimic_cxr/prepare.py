"""From 377,110 JPEGs of some 1.5 MB to two arrays of small squares: once, in parallel, resumable.

Every image that is needed is decoded once by one of several worker processes (`mimic_cxr_image`), which write the
pixels in place; this process says which and keeps the table. The result does not depend on their number or on how
often it was stopped.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmvm.errors import UserError
from mmvm.paths import home
from mmvm.training.lock import in_turn
from studies.mimic_cxr import image as mimic_cxr_image, store as mimic_cxr_store
from studies.mimic_cxr.image import DISK, MISSING, UNREADABLE
from studies.mimic_cxr.index import POLICIES, Index, default_root, pairs, read_index
from studies.mimic_cxr.networks import SIZES
from studies.mimic_cxr.store import HEADER, VIEWS, Store, names_of, skipped, statuses, usable, variant

SYNC_SECONDS = 30       # between two moments in which everything so far is on the disk
SAY_SECONDS = 60        # between two lines of progress where there is no terminal
SAMPLE = 12             # images that are timed for an estimate
MARGIN = 64 * 2**20     # bytes that must stay free
DEATHS = 20             # workers that die in a row before the preparation gives up


def prepare(root: str | os.PathLike | None = None, *, size: int = 224, equalise: bool = False,
            policy: str = "all_pairs", workers: int | None = None, dry_run: bool = False, any_size: bool = False
            ) -> list[str]:
    """Makes the arrays that `load` maps into memory, and reports in lines; the same call continues one that was killed.

    size      pixels of the edge; every size has a folder of its own
    equalise  flat grey histograms, see `mimic_cxr_image.read_image`
    policy    which images: those of studies with both views ("all_pairs", "one_pair"), or all ("missing")
    workers   processes; None: one per processor that this one may use
    dry_run   only say how many images, bytes and minutes it would take; nothing is written
    any_size  for networks of your own: sizes that the chapter's networks do not know are prepared too

    Images that are missing or cannot be read are left out, counted and listed by name (a keyed hash) in skipped.csv;
    they are tried again by the next call. Raises `UserError` where the csv files are wrong or the disk is too small.
    """
    check_options(size, policy)
    if size not in SIZES and not any_size:
        raise UserError(f"the chapter's networks know images of {', '.join(map(str, sorted(SIZES)))} pixels, got size "
                        f"{size}: choose one of these, or any_size=True (--set any_size=true) for networks of your own")
    if workers is not None and workers < 1:
        raise UserError(f"workers must be at least 1, or absent for one per processor, got {workers}")
    workers = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    index = read_index(default_root() if root is None else home(root))
    wanted = needed(index, policy)
    if not wanted.any():
        raise UserError(f"{index.base} has no study with both views: use policy='missing', or add studies")
    plan = estimate(index, wanted, size, equalise, workers)
    if dry_run:
        return [*index.report(), *plan.lines(policy, workers), "nothing was written"]
    folder = variant(index.base, size, equalise)
    if not os.access(folder.parent if folder.parent.is_dir() else _existing(folder), os.W_OK):
        raise UserError(f"{folder.parent} cannot be written: ask its owner to prepare the data, or copy the data")
    started = time.monotonic()
    names = names_of(index)
    with in_turn(folder / "lock", f"waiting for another preparation in {folder}"):
        stores = {view: Store(folder, view, size) for view in VIEWS}
        try:
            n = _fill(index, names, wanted, stores, folder, size, equalise, workers, plan)
        finally:
            for store in stores.values():
                store.close()
        status = statuses(index, names, stores)
        _list_skipped(index, names, status, folder)
    seconds = time.monotonic() - started
    return [*index.report(), *summary(index, status, wanted, policy),
            f"{n:,} images prepared now, {n / max(seconds, 1e-9):,.0f} a second with {workers} workers" if n else
            "no image was added", f"arrays in {folder}"]


def check_options(size: int, policy: str) -> None:
    if policy not in POLICIES:
        raise UserError(f"policy must be one of {', '.join(map(repr, POLICIES))}, got {policy!r}")
    if not isinstance(size, int) or not 8 <= size <= 2_048:
        raise UserError(f"size must be a whole number of pixels from 8 to 2048, got {size!r}")


def needed(index: Index, policy: str) -> np.ndarray:
    """(I,) bool: the images that rows of this policy can be made of, were all of them readable."""
    rows = pairs(index, np.ones(len(index.dicoms), bool), "missing" if policy == "missing" else "all_pairs")
    wanted = np.zeros(len(index.dicoms), bool)
    wanted[rows[rows >= 0]] = True
    return wanted


def summary(index: Index, status: np.ndarray, wanted: np.ndarray, policy: str) -> list[str]:
    """What is there of the wanted images, and how many rows that makes of how many."""
    rows, all_rows = len(pairs(index, usable(status), policy)), len(pairs(index, wanted, policy))
    missing, unreadable = ((status[wanted] == kind).sum() for kind in (MISSING, UNREADABLE))
    lines = [f"{usable(status[wanted]).sum():,} of {wanted.sum():,} images ready, {rows:,} of {all_rows:,} rows "
             f"(policy {policy})"]
    if missing or unreadable:
        lines.append(f"{missing:,} image files missing or not to be opened, {unreadable:,} damaged; skipped.csv lists "
                     "them by hash, studies.mimic_cxr.data.locate finds their paths")
    return lines


# estimate ------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Estimate:
    images: int         # wanted
    to_do: int
    bytes: int          # that the disk will take
    free: int           # bytes
    there: int          # of the images that were timed, so many could be read
    timed: int
    seconds: float      # with all workers; NaN where no image could be read

    def lines(self, policy: str, workers: int) -> list[str]:
        lines = [f"{self.images:,} images are needed (policy {policy}), {self.images - self.to_do:,} of them are ready",
                 f"the other {self.to_do:,} take {_size(self.bytes)} on the disk, {_size(self.free)} are free"
                 + ("" if self.bytes + MARGIN < self.free else ": not enough")]
        if self.timed:
            lines.append(f"of {self.timed} images that were tried {self.there} could be read" + (
                f"; all will take about {_duration(self.seconds)} with {workers} workers" if self.there else ""))
        return lines


def estimate(index: Index, wanted: np.ndarray, size: int, equalise: bool, workers: int) -> Estimate:
    """What a preparation would take, from timing a few images that are spread over the set. Writes nothing."""
    folder = variant(index.base, size, equalise)
    to_do = np.flatnonzero(wanted)
    if (folder.parent / mimic_cxr_store.KEY).is_file():
        stores = {view: Store(folder, view, size) for view in VIEWS}
        to_do = np.flatnonzero(wanted & ~usable(statuses(index, names_of(index), stores)))
    sample = to_do[np.linspace(0, len(to_do) - 1, min(SAMPLE, len(to_do))).astype(int)]
    there, spent = 0, 0.0
    for i in sample:
        started = time.perf_counter()
        try:
            mimic_cxr_image.read_image(index.path(i), size, equalise)
        except Exception:   # its text would name the image
            continue
        there, spent = there + 1, spent + time.perf_counter() - started
    seconds = spent / there * len(to_do) / workers if there else float("nan")
    return Estimate(int(wanted.sum()), len(to_do), len(to_do) * (size * size + mimic_cxr_store.ROW.itemsize),
                    shutil.disk_usage(_existing(folder)).free, there, len(sample), seconds)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} seconds"


# work ----------------------------------------------------------------------------------------------------------------

def _fill(index: Index, names: np.ndarray, wanted: np.ndarray, stores: dict[str, Store], folder: Path, size: int,
          equalise: bool, workers: int, plan: Estimate) -> int:
    """Decodes what is not ready; how many images could be read."""
    for view, store in stores.items():
        store.distrust()
        store.extend(names[wanted & (index.lateral == (view == "lateral"))])
    status = statuses(index, names, stores)
    to_do = np.flatnonzero(wanted & ~usable(status))
    free = shutil.disk_usage(folder).free
    if len(to_do) * size * size + MARGIN > free:
        raise UserError(f"{folder}: {len(to_do):,} images take {_size(len(to_do) * size * size)}, {_size(free)} are "
                        f"free, {_size(MARGIN)} of which must stay so: make room, or choose a smaller size")
    if not len(to_do):
        return 0
    rows = np.zeros(len(names), int)
    for view, store in stores.items():
        own = index.lateral == (view == "lateral")
        rows[own] = store.find(names[own])
    tasks = ((i, VIEWS[int(index.lateral[i])], int(rows[i]), str(index.path(i))) for i in to_do)
    if len(to_do) > 1_000:
        print("\n".join(plan.lines("as asked for", workers)[1:]), file=sys.stderr)
    _Crew(tasks, len(to_do), stores, [str(folder), str(size), str(int(equalise)), str(HEADER)]).run(
        min(workers, len(to_do)))
    for store in stores.values():
        store.sync()
    return int(usable(statuses(index, names, stores))[to_do].sum())


class _Crew:
    """Worker processes, a thread each that hands them one image after the other and writes down what became of it."""

    def __init__(self, tasks, total: int, stores: dict[str, Store], arguments: list[str]):
        self.tasks, self.total, self.stores, self.arguments = tasks, total, stores, arguments
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.done = self.deaths = 0
        self.started = self.synced = self.said = time.monotonic()
        self.progress = tqdm(total=total, unit=" images", smoothing=0.05, disable=None)

    def run(self, workers: int) -> None:
        with self.progress, ThreadPoolExecutor(workers) as threads:
            feeders = [threads.submit(self._feed) for _ in range(workers)]
            try:
                wait(feeders, return_when="FIRST_EXCEPTION")
            finally:            # after Ctrl-C the images in work are finished, and no more
                self.stop.set()
            for feeder in feeders:
                feeder.result()

    def _feed(self) -> None:
        worker = None
        try:
            while not self.stop.is_set():
                with self.lock:
                    task = next(self.tasks, None)
                if task is None:
                    return
                for _ in range(2):      # a worker that was killed, or crashed over an image, is replaced once
                    worker = worker or self._hire()
                    answer = _ask(worker, task[1:])
                    if answer is not None:
                        self.deaths = 0
                        break
                    _dismiss(worker)
                    worker, self.deaths = None, self.deaths + 1
                    if self.deaths >= DEATHS:
                        raise UserError(f"{DEATHS} worker processes of the preparation ended one after the other, so "
                                        "it is not the images: try fewer workers (memory), or reinstall Pillow")
                status, check = answer or (UNREADABLE, 0)
                if status == DISK:
                    raise UserError(f"{self.arguments[0]}: the disk is full or cannot be written; nothing is lost, "
                                    "make room and run the same again")
                with self.lock:
                    self._note(task, status, check)
        finally:
            if worker is not None:
                _dismiss(worker)

    def _hire(self) -> subprocess.Popen:
        # -P: the script's own folder is not on the path, its neighbours do not hide other modules
        worker = subprocess.Popen([sys.executable, "-P", mimic_cxr_image.__file__, *self.arguments], text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if worker.stdout.readline() != "ready\n":
            _dismiss(worker)
            raise UserError(f"a worker process of the preparation ends at once (status {worker.returncode}): "
                            f"`{sys.executable} -P -c \"import numpy, PIL\"` says why")
        return worker

    def _note(self, task, status: int, check: int) -> None:
        _, view, row, _ = task
        self.stores[view].mark(row, status, check)
        self.done += 1
        self.progress.update()
        now = time.monotonic()
        if now - self.synced > SYNC_SECONDS:
            for store in self.stores.values():
                store.sync()
            self.synced = time.monotonic()
        if self.progress.disable and now - self.said > SAY_SECONDS:
            rate = self.done / (now - self.started)
            print(f"{self.done:,} of {self.total:,} images, {rate:,.0f} a second, "
                  f"{_duration((self.total - self.done) / rate)} left", file=sys.stderr, flush=True)
            self.said = now


def _ask(worker: subprocess.Popen, task) -> list[int] | None:
    """Status and check of an image, or None where the worker died over it."""
    try:
        worker.stdin.write(json.dumps(task) + "\n")
        worker.stdin.flush()
        return json.loads(worker.stdout.readline())
    except (OSError, ValueError):
        return None


def _dismiss(worker: subprocess.Popen) -> None:
    for pipe in (worker.stdin, worker.stdout):
        try:
            pipe.close()
        except OSError:
            pass
    worker.wait()


def _list_skipped(index: Index, names: np.ndarray, status: np.ndarray, folder: Path) -> None:
    """skipped.csv: name, view and what is wrong."""
    what = {MISSING: "missing", UNREADABLE: "damaged"}
    lines = [f"{names[i].decode()},{VIEWS[int(index.lateral[i])]},{what[int(status[i])]}\n"
             for i in np.flatnonzero(skipped(status))]
    part = folder / ".skipped.csv"
    part.write_text("".join(itertools.chain(["name,view,problem\n"], lines)))
    os.replace(part, folder / "skipped.csv")


def locate(root: str | os.PathLike | None, name: str) -> list[Path]:
    """The image files behind a name of skipped.csv or of `ids` (frontal+lateral). For the owner of the data: the paths
    contain ids, and this is the only function that returns any. Do not print or store them."""
    index = read_index(default_root() if root is None else home(root))
    wanted = [part.encode() for part in name.split("+") if part != "-"]
    if not (mimic_cxr_store.folder_of(index.base) / mimic_cxr_store.KEY).is_file():
        raise UserError(f"{index.base} is not prepared, so nothing there has a name: prepare it first")
    names = names_of(index)
    found = [np.flatnonzero(names == part) for part in wanted]
    if not found or not all(map(len, found)):
        raise UserError(f"{name!r} names no image of {index.base}: names belong to one copy of the data, and change "
                        "when its folder `prepared` is deleted")
    return [index.path(int(rows[0])) for rows in found]
