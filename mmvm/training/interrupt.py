"""Ctrl-C and SIGTERM stop a run between two updates, never within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingInterrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; the run stopped between two updates and wrote its checkpoint.

    >>> issubclass(mmvm.training.TrainingInterrupted, KeyboardInterrupt)
    True
    """


@contextmanager
def stop_between_updates() -> Iterator[threading.Event]:
    """While open, the signals set the yielded event instead of tearing an update apart. A second Ctrl-C acts at once.
    Only the main thread may handle signals; elsewhere they keep their usual meaning."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
