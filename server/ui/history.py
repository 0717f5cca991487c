"""What containers and the machine have used in the last hour, in memory: a point for each five seconds.

A ring of one container has 17 KiB. Five hundred containers have 8.5 MiB.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from engine.common import limits

#: Seconds between two points, and the number of points.
STEP, POINTS = 5, 720


class Sample(NamedTuple):
    """What a container uses: CPUs (1.0: one of them), bytes of memory (the working set), and bytes per second that it
    receives, sends, reads from and writes to block devices. Of the machine, the last four are 0."""

    cpu: float
    memory: float
    received: float = 0.0
    sent: float = 0.0
    read: float = 0.0
    written: float = 0.0


FIELDS = Sample._fields
_EMPTY = array("f", [math.nan]) * (POINTS * len(FIELDS))


class _Ring:
    """The points of one container. ``last``: the slot of the latest, in steps since the epoch; -1: there is none."""

    __slots__ = ("_values", "last")

    def __init__(self) -> None:
        self._values = _EMPTY[:]
        self.last = -1

    def put(self, slot: int, sample: Sample) -> None:
        width = len(FIELDS)
        # The slots that were left out are gaps, also those with points of the hour before.
        for gap in range(max(self.last + 1, slot - POINTS + 1) if self.last >= 0 else slot, slot):
            at = gap % POINTS * width
            self._values[at : at + width] = _EMPTY[:width]
        at = slot % POINTS * width
        self._values[at : at + width] = array("f", sample)
        self.last = slot

    def column(self, field: str, first: int, last: int) -> list[float | None]:
        """The values of a field from the slot ``first`` to ``last``; None: a gap."""
        width, number = len(FIELDS), FIELDS.index(field)
        known = range(max(first, self.last - POINTS + 1), min(last, self.last) + 1)
        before, after = known.start - first, last + 1 - max(known.stop, known.start)
        values = (self._values[slot % POINTS * width + number] for slot in known)
        found = [None if math.isnan(value) else round(value, 3) for value in values]
        return [None] * before + found + [None] * after


class History:
    """The rings by id; the machine's has the id ``""``. The container that was sampled last the longest ago gives way
    to a new one when there are ``UI_HISTORIES``."""

    def __init__(self) -> None:
        self._rings: dict[str, _Ring] = {}

    def add(self, now: float, samples: Iterable[tuple[str, Sample]]) -> None:
        """``now``: seconds since the epoch. A clock that was set back adds nothing until it has caught up."""
        slot = int(now) // STEP
        for id, sample in samples:
            ring = self._rings.get(id)
            if ring is None:
                if len(self._rings) >= limits.UI_HISTORIES:
                    del self._rings[min(self._rings, key=lambda id: self._rings[id].last)]
                ring = self._rings[id] = _Ring()
            if slot > ring.last:
                ring.put(slot, sample)

    def forget(self, id: str) -> None:
        self._rings.pop(id, None)

    def of(self, id: str, now: float, seconds: int, fields: Sequence[str] = FIELDS) -> dict[str, list[Any]]:
        """The points of the last ``seconds`` as columns: ``time`` (seconds since the epoch), and each of ``fields``."""
        last = int(now) // STEP
        first = last - min(max(seconds // STEP, 1), POINTS) + 1
        ring = self._rings.get(id) or _Ring()
        return {
            "time": [slot * STEP for slot in range(first, last + 1)],
            **{field: ring.column(field, first, last) for field in fields},
        }
