"""The stored form of a container's frozen records.

A start and its exit save the container four times, and its configuration is the same object each time: with 2,000
published ports, its encoding was a quarter of the time that wharfd worked on them.
"""

import threading
from collections import OrderedDict

import orjson

from api_models.record import Record

#: Bytes of encoded records that are kept: of the containers that start or exit now, not of all that exist.
_KEPT = 1 << 19


class Encoded:
    """The records encoded last, by identity. ``kept``: at most so many bytes of them. Usable from any thread."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._free = kept
        self._lock = threading.Lock()
        # The record is kept, too, so that no other object gets its id.
        self._forms: OrderedDict[int, tuple[Record, bytes]] = OrderedDict()

    def json(self, record: Record) -> bytes:
        """The JSON of ``record.wire()``. The record must never change: a frozen one, and all that is in it."""
        with self._lock:
            found = self._forms.get(id(record))
            if found is not None:
                self._forms.move_to_end(id(record))
                return found[1]
        form = orjson.dumps(record.wire())
        with self._lock:
            if id(record) not in self._forms:
                self._forms[id(record)] = record, form
                self._free -= len(form)
            while self._free < 0:
                _, (_, oldest) = self._forms.popitem(last=False)
                self._free += len(oldest)
        return form
