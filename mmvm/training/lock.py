"""One run a folder: a second process that wants to train into it is told who is there. One process at a time with what
several make or write: the next one waits."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from mmvm.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: no lock
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """While open, this process alone trains into `folder`, which is made. The system takes the lock from a process that
    was killed. Raises `UserError` that names the holder; None, Windows and disks without locks lock nothing."""
    if folder is None:
        yield
        return
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(path) if fcntl else None
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be written ({error.strerror}): check the path and its rights, "
                        "or choose another folder") from None
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)  # while it is held: nobody else's can be meant
            file.close()


def _locked(path: Path) -> TextIO | None:
    while True:
        file = open(path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read()
            file.close()
            raise UserError(f"{path.parent} is in use by {who or 'another process'}: wait until it is done, stop it, "
                            "or choose another folder") from None
        except OSError:  # a disk without locks
            file.close()
            path.unlink(missing_ok=True)
            return None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # the holder before has just removed it
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    file.flush()
    return file


@contextmanager
def in_turn_at(folder: Path) -> Iterator[None]:
    """One process at a time, of whichever checkout, is at the files of `folder`, in which nothing is made: the lock is
    on the folder itself. Windows and disks that cannot lock a folder lock nothing."""
    with ExitStack() as stack:
        if fcntl:
            stack.callback(os.close, descriptor := os.open(folder, os.O_RDONLY))
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def in_turn(path: Path, waiting: str = "") -> Iterator[None]:
    """One process at a time has the lock `path`, which is made with its folder and stays; the next one says `waiting`
    and waits. The system takes it from a process that was killed; Windows and disks without locks lock nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        if fcntl:
            with suppress(OSError):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(waiting, end="\n" if waiting else "", file=sys.stderr)
                    fcntl.flock(lock, fcntl.LOCK_EX)
        yield
