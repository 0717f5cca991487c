"""What a snapshotter has to do with directories; which snapshots exist is the business of ``service.Snapshots``.

The life of a snapshot, as every snapshotter must give it:

- **active**: made by ``prepare`` on a committed parent, or on nothing. Mounted, it shows the parent's tree, and what
  is written there is the snapshot's own.
- **view**: like an active one, but read-only.
- **committed**: an active snapshot that is complete. It never changes any more, is never mounted itself, and is
  what others are prepared on.

A snapshot is removed only when nothing has it as its parent. Directories are numbered; a number is never used again,
so a directory without a record is rubbish whenever it is found.
"""

from collections.abc import Sequence
from typing import Protocol

from engine.api.types import Mount, SnapshotKind, Usage


class Snapshotter(Protocol):
    """Directories of one kind of snapshot. All methods block. ``parents`` are numbers, the nearest first."""

    @property
    def name(self) -> str: ...

    @property
    def stages(self) -> bool:
        """Whether ``stage`` has anything to do."""
        ...

    def check(self) -> str:
        """Why this snapshotter can't work on this host; empty if it can."""
        ...

    def stage(self, parents: Sequence[int]) -> str:
        """Does what takes long of making a snapshot, before it has a number; the answer is given to ``place``.

        The parents may go away meanwhile: that is an error to raise, or a tree whose ``place`` will not come.
        """
        ...

    def place(self, number: int, parents: Sequence[int], kind: SnapshotKind, staged: str) -> None:
        """Makes the directory. Called in a write of the metadata: short, and undone by ``discard`` if that fails."""
        ...

    def unstage(self, staged: str) -> None:
        """Takes back a ``stage`` that no ``place`` followed."""
        ...

    def mounts(self, number: int, parents: Sequence[int], kind: SnapshotKind) -> tuple[Mount, ...]:
        """How an active snapshot or a view is mounted."""
        ...

    def usage(self, number: int, parents: Sequence[int]) -> Usage:
        """What the snapshot takes beyond its parents."""
        ...

    def discard(self, number: int) -> None:
        """Deletes the directory; nothing if it isn't there."""
        ...

    def numbers(self) -> list[int]:
        """Every snapshot that has a directory."""
        ...

    def tidy(self) -> None:
        """At the start, while nothing is staged: deletes what can be no snapshot's."""
        ...
