"""The interface of a snapshotter, which manages directories; ``service.Snapshots`` manages the records.

The states of a snapshot, which every snapshotter must implement:

- **active**: created by ``prepare`` on a committed parent, or on nothing. Mounted, it shows the parent's tree, and
  changes belong to the snapshot.
- **view**: like an active one, but read-only.
- **committed**: a complete snapshot. It never changes, is never mounted itself, and is the parent of others.

A snapshot is removed only when it has no child. Directories are numbered and numbers are never reused, so a directory
without a record is garbage at any time.
"""

from collections.abc import Sequence
from typing import Protocol

from engine.api.types import Mount, SnapshotKind, Usage


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
