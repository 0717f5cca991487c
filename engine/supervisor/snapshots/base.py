"""The interfaces of a snapshotter, which manages directories, and of a store, which keeps records and directories
together; ``service.Snapshots`` has the rules for all records.

The states of a snapshot, which every snapshotter must implement:

- **active**: created by ``prepare`` on a committed parent, or on nothing. Mounted, it shows the parent's tree, and
  changes belong to the snapshot.
- **view**: like an active one, but read-only.
- **committed**: a complete snapshot. It never changes, is never mounted itself, and is the parent of others.

A snapshot is removed only when it has no child. Directories are numbered and numbers are never reused, so a directory
without a record is garbage at any time.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.api.types import Mount, SnapshotKind, Usage
from engine.supervisor.call import Call
from engine.supervisor.snapshots.records import Row


class Snapshotter(Protocol):
    """The directories of one kind of snapshot. All methods block. ``parents`` are numbers, the nearest first."""

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> str:
        """Where its directories are."""
        ...

    @property
    def stages(self) -> bool:
        """Whether ``stage`` does anything."""
        ...

    def check(self) -> str:
        """Why this snapshotter can't work on this host; empty if it can."""
        ...

    def stage(self, parents: Sequence[int]) -> str:
        """Does the slow part of creating a snapshot, before it has a number; ``create`` gets the result.

        The parents may be removed meanwhile: then raise, or return a tree for which ``create`` will not be called.
        """
        ...

    def create(self, number: int, parents: Sequence[int], kind: SnapshotKind, staged: str) -> None:
        """Creates the directory. Called inside a metadata write: must be fast; ``discard`` undoes it if the write
        fails."""
        ...

    def unstage(self, staged: str) -> None:
        """Undoes a ``stage`` without a following ``create``."""
        ...

    def mounts(self, number: int, parents: Sequence[int], kind: SnapshotKind) -> tuple[Mount, ...]:
        """The mounts of an active snapshot or a view."""
        ...

    def tree(self, number: int) -> str:
        """The directory that has at least the files of the layer which was applied to the snapshot."""
        ...

    def usage(self, number: int, parents: Sequence[int]) -> Usage:
        """The space that the snapshot uses beyond its parents."""
        ...

    def discard(self, number: int) -> None:
        """Deletes the directory; does nothing if it doesn't exist."""
        ...

    def numbers(self) -> list[int]:
        """Every snapshot that has a directory."""
        ...

    def tidy(self) -> None:
        """At the start, while nothing is staged: deletes directories that belong to no snapshot."""
        ...


class Store(Protocol):
    """The snapshots of one snapshotter: ``local.Local`` in this process, ``proxied.Proxied`` in another one. Belongs to
    an event loop. The caller has checked names and labels."""

    @property
    def name(self) -> str: ...

    async def create(
        self, call: Call, key: str, parent: str, labels: Mapping[str, str], kind: SnapshotKind
    ) -> tuple[Mount, ...]:
        """Creates the directory and the record of an active snapshot or a view; the call's lease protects it.

        :raises WharfError: ALREADY_EXISTS: the key is taken, or the snapshot that a label names exists now; NOT_FOUND:
            no such parent.
        """
        ...

    async def mounts(self, namespace: str, row: Row, parents: Sequence[int]) -> tuple[Mount, ...]:
        """The mounts of an active snapshot or a view."""
        ...

    async def commit(self, namespace: str, committed: str, key: str, labels: Mapping[str, str]) -> None:
        """Commits the directory of ``key``, before the record. Does nothing if the record can't be committed, which the
        caller finds out."""
        ...

    def committed(self, connection: sqlite3.Connection, number: int) -> None:
        """Called inside the write that commits the record."""
        ...

    async def usages(self, namespace: str, keys: Sequence[str]) -> dict[str, Usage]:
        """The space that snapshots use beyond their parents, by key, without those that don't exist."""
        ...

    def discard(self, number: int) -> None:
        """Deletes the directory of a snapshot without a record, in the background."""
        ...

    async def sweep(self) -> None:
        """Deletes the directories without a record, and waits for it."""
        ...

    async def recover(self) -> None:
        """At the start: deletes directories without a record, and the records of layers without a directory."""
        ...

    async def close(self) -> None:
        """Deletions that are not done yet are done at the next start."""
        ...
