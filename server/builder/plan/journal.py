"""Sequences and mappings that grow by one entry at a time and whose copies cost nothing.

A plan keeps the configuration after each of its instructions. With lists and dicts, *n* instructions would copy
*n²/2* entries. Copies of these classes share one list and remember how much of it is theirs.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")


class Journal(Generic[T]):
    """Appended to, read in order, copied in O(1)."""

    __slots__ = ("_entries", "_length")

    def __init__(self, entries: Iterable[T] = ()) -> None:
        self._entries = list(entries)
        self._length = len(self._entries)

    def append(self, entry: T) -> None:
        if self._length != len(self._entries):
            # A copy has appended to the shared list: continue on one of our own.
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
    """A mapping of strings, kept as the journal of its assignments; a key keeps the place of its first assignment."""

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
        """A live view. The dict behind it is kept from the first use on."""
        return self._values()

    def to_dict(self) -> dict[str, V]:
        """A new dict. Nothing is kept, so that each of many copies may be asked."""
        return dict(self._assigned)

    def copy(self) -> "JournalMap[V]":
        copied: JournalMap[V] = JournalMap({})
        copied._assigned, copied._current = self._assigned.copy(), None
        return copied
