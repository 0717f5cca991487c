"""The disk usage of snapshots: which are measured, and by how many threads."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from engine.api.types import SnapshotKind, Usage
from engine.supervisor.snapshots.base import Snapshotter
from engine.supervisor.snapshots.parents import chain
from engine.supervisor.store.database import Database

#: How many threads measure the snapshots of one request. Further ones would only wait for the GIL.
_THREADS = 2


@dataclass(frozen=True, slots=True)
class _Unmeasured:
    """A snapshot without a usage in its record."""

    key: str
    number: int
    parents: Sequence[int]
    committed: bool


async def measure(
    database: Database, snapshotter: Snapshotter, namespace: str, keys: Sequence[str]
) -> dict[str, Usage]:
    """Returns the space that snapshots use beyond their parents, by key, without those that don't exist.

    A committed snapshot can't change: it is measured once, and its record keeps the result. An active one is measured
    by each call: its mounts may be in use, and any client may mount them again without a call. ``wharfd`` knows when
    its containers write, and caches the sizes of all others (``server.containers.sizes``).
    """

    def read(connection: sqlite3.Connection) -> tuple[dict[str, Usage], list[_Unmeasured]]:
        known: dict[str, Usage] = {}
        unmeasured: list[_Unmeasured] = []
        for key in keys:
            row = connection.execute(
                "SELECT number, kind, size, inodes FROM snapshot WHERE namespace = ? AND snapshotter = ? AND key = ?",
                (namespace, snapshotter.name, key),
            ).fetchone()
            if row is None:
                continue
            number, kind, size, inodes = row
            if size is not None and inodes is not None:
                known[key] = Usage(size, inodes)
            else:
                parents = chain(connection, namespace, snapshotter.name, key)[1:]
                unmeasured.append(_Unmeasured(key, number, parents, kind == SnapshotKind.COMMITTED.value))
        return known, unmeasured

    known, unmeasured = await database.scan(read) if len(keys) > 1 else database.read(read)
    pieces = [unmeasured[start::_THREADS] for start in range(min(_THREADS, len(unmeasured)))]
    measured = await asyncio.gather(*(asyncio.to_thread(_measure, snapshotter, piece) for piece in pieces))
    found = [pair for pairs in measured for pair in pairs]
    if permanent := [(usage.size, usage.inodes, one.number) for one, usage in found if one.committed]:
        await database.write(
            lambda connection: connection.executemany(
                "UPDATE snapshot SET size = ?, inodes = ? WHERE number = ?", permanent
            )
        )
    return known | {one.key: usage for one, usage in found}


def _measure(snapshotter: Snapshotter, snapshots: Sequence[_Unmeasured]) -> list[tuple[_Unmeasured, Usage]]:
    """Blocks. Omits snapshots that are removed meanwhile."""
    found: list[tuple[_Unmeasured, Usage]] = []
    for snapshot in snapshots:
        with contextlib.suppress(FileNotFoundError):
            found.append((snapshot, snapshotter.usage(snapshot.number, snapshot.parents)))
    return found
