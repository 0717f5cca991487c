"""Durations of hot paths: with ``WHARF_TIMELINE=1`` each step is logged, and observers (the metrics) get each duration.

If neither is on, a mark costs one attribute test, so the marks stay in the code and a slow start can be analyzed on any
machine.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Protocol

log = logging.getLogger(__name__)
ENABLED = os.environ.get("WHARF_TIMELINE", "") not in ("", "0")


class Observer(Protocol):
    """Gets the durations. It is called on the thread of the operation and must not block."""

    def step(self, what: str, step: str, seconds: float) -> None:
        """One step of a timeline that is complete. ``what``: the name of the timeline."""

    def ended(self, what: str, result: str, seconds: float) -> None:
        """An operation of ``measured`` has ended. ``result``: done, failed or cancelled."""


#: Those that get all durations from now on.
observers: list[Observer] = []


class Timeline:
    """The marks of one operation; ``done()`` logs them as one line, in milliseconds, and reports them to observers."""

    __slots__ = ("_marks", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._marks: list[tuple[str, float]] | None = [("", time.perf_counter())] if ENABLED or observers else None

    def mark(self, step: str) -> None:
        """Marks the end of ``step``."""
        if self._marks is not None:
            self._marks.append((step, time.perf_counter()))

    def done(self) -> None:
        """Logs the line; reports the steps."""
        if self._marks is None:
            return
        steps = [(step, at - before) for (_, before), (step, at) in zip(self._marks, self._marks[1:], strict=False)]
        for observer in observers:
            for step, seconds in steps:
                observer.step(self._what, step, seconds)
        if ENABLED:
            total = 1000 * (self._marks[-1][1] - self._marks[0][1])
            line = ", ".join(f"{step} {1000 * seconds:.1f}" for step, seconds in steps)
            log.info("timeline %s: %.1f ms = %s", self._what, total, line)


@contextlib.contextmanager
def measured(what: str) -> Iterator[None]:
    """Around an operation of which observers get the duration and the result."""
    if not observers:
        yield
        return
    began, result = time.perf_counter(), "failed"
    try:
        yield
        result = "done"
    except asyncio.CancelledError:
        result = "cancelled"
        raise
    finally:
        for observer in observers:
            observer.ended(what, result, time.perf_counter() - began)
