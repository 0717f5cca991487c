"""A debug timeline: with ``WHARF_TIMELINE=1`` each step of a hot path logs its duration.

If disabled, a mark costs one attribute test, so the marks stay in the code and a slow start can be analyzed on any
machine.
"""

import logging
import os
import time

log = logging.getLogger(__name__)
ENABLED = os.environ.get("WHARF_TIMELINE", "") not in ("", "0")


class Timeline:
    """The marks of one operation; ``done()`` logs them as one line, in milliseconds."""

    __slots__ = ("_marks", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._marks: list[tuple[str, float]] | None = [("", time.perf_counter())] if ENABLED else None

    def mark(self, step: str) -> None:
        """Marks the end of ``step``."""
        if self._marks is not None:
            self._marks.append((step, time.perf_counter()))

    def done(self) -> None:
        """Logs the line."""
        if self._marks is None:
            return
        steps = [
            f"{step} {1000 * (at - before):.1f}"
            for (_, before), (step, at) in zip(self._marks, self._marks[1:], strict=False)
        ]
        total = 1000 * (self._marks[-1][1] - self._marks[0][1])
        log.info("timeline %s: %.1f ms = %s", self._what, total, ", ".join(steps))
