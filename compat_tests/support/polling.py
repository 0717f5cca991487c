"""Waits for a condition, and samples a value during a block."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from compat_tests.support.patience import FACTOR


def until(condition: Callable[[], bool], *, seconds: float = 60) -> bool:
    """Poll until the condition is true or the time is up; return the last result."""
    deadline = time.monotonic() + seconds * FACTOR
    pause = 0.01
    while not condition():
        if time.monotonic() > deadline:
            return bool(condition())  # once more: a loaded machine may have slept through the deadline
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
    return True


@contextlib.contextmanager
def sampled(measure: Callable[[], float], *, pause: float) -> Iterator[list[float]]:
    """Measure a value in a thread during the block, every ``pause`` seconds; yields the list of samples."""
    samples, stop = [measure()], threading.Event()

    def watch() -> None:
        while not stop.wait(pause):
            samples.append(measure())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        stop.set()
        watcher.join()
