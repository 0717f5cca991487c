"""Append-only sequences and mappings with O(1) copies.

A plan keeps the image configuration after each instruction. With lists and dicts, *n* instructions would copy *n²/2*
entries. Copies of these classes share one list; each copy remembers the length of its own part.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")


class Journal(Generic[T]):
    """An append-only sequence that copies in O(1)."""

    __slots__ = ("_entries", "_length")

    def __init__(self, entries: Iterable[T] = ()) -> None:
        self._entries = list(entries)
        self._length = len(self._entries)

    def append(self, entry: T) -> None:
        if self._length != len(self._entries):
            # A copy has appended to the shared list: continue on a private one.
            self._entries = self._entries[: self._length]
        self._entries.append(entry)
        self._length += 1

    def copy(self) -> "Journal[T]":
        copied: Journal[T] = Journal()
        copied._entries, copied._length = self._entries, self._length
        return copied

    def __iter__(self) -> Iterator[T]:
        return islice(self._entries, self._length)

    def __len__(self) -> int:
        return self._length


class JournalMap(Generic[V]):
    """A mapping of strings, stored as the journal of its assignments; a key keeps the position of its first one."""

    __slots__ = ("_assigned", "_current")

    def __init__(self, values: Mapping[str, V]) -> None:
        self._assigned = Journal(values.items())
        self._current: dict[str, V] | None = dict(values)

    def __setitem__(self, key: str, value: V) -> None:
        self._values()[key] = value
        self._assigned.append((key, value))

    def _values(self) -> dict[str, V]:
        if self._current is None:
            self._current = dict(self._assigned)
        return self._current

    @property
    def values(self) -> Mapping[str, V]:
        """A live view. The dict behind it is kept after the first call."""
        return self._values()

    def to_dict(self) -> dict[str, V]:
        """Return a new dict. Nothing is cached, so calling this on many copies keeps no memory."""
        return dict(self._assigned)

    def copy(self) -> "JournalMap[V]":
        copied: JournalMap[V] = JournalMap({})
        copied._assigned, copied._current = self._assigned.copy(), None
        return copied
