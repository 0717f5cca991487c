"""The records of snapshots, by namespace and snapshotter, with containerd's rules and sentences."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from engine.api import filters
from engine.api.pb import event_messages_pb2 as events_pb
from engine.api.types import Mount, SnapshotInfo, SnapshotKind, Usage
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.supervisor import leases, namespaces
from engine.supervisor.call import Call
from engine.supervisor.events import EventBus
from engine.supervisor.names import UnknownField, check_labels, masked_labels
from engine.supervisor.snapshots.base import Snapshotter
from engine.supervisor.snapshots.layer_sync import LayerSync
from engine.supervisor.snapshots.parents import chain
from engine.supervisor.snapshots.usages import measure
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)

_COLUMNS = "number, kind, key, parent, labels, created, updated"

#: Layers on a lost layer are removed with it and unpacked again. An active snapshot stays: it finds the new parent by
#: its name.
_ORPHANS = """
DELETE FROM snapshot WHERE parent <> '' AND kind = :committed AND NOT EXISTS (
    SELECT 1 FROM snapshot AS below WHERE below.namespace = snapshot.namespace
    AND below.snapshotter = snapshot.snapshotter AND below.key = snapshot.parent
)
"""


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    info: SnapshotInfo


class Snapshots:
    """All snapshotters by name. The call's lease protects what ``prepare``, ``view`` and ``commit`` create."""

    def __init__(self, database: Database, bus: EventBus, snapshotters: Sequence[Snapshotter], root: str) -> None:
        """``root``: the directory of the snapshotters' directories."""
        self._db = database
        self._bus = bus
        self._layer_sync = LayerSync(database, root)
        self._snapshotters = {snapshotter.name: snapshotter for snapshotter in snapshotters}
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="remove")

    def _snapshotter(self, name: str) -> Snapshotter:
        if not name:
            raise invalid("snapshotter argument missing: invalid argument")
        found = self._snapshotters.get(name)
        if found is None:
            raise invalid(f"snapshotter not loaded: {name}: invalid argument")
        return found

    async def create(
        self, call: Call, name: str, key: str, parent: str, labels: Mapping[str, str], kind: SnapshotKind
    ) -> tuple[Mount, ...]:
        """``prepare`` (ACTIVE) and ``view`` (VIEW). ALREADY_EXISTS: the key is taken; NOT_FOUND: no such parent."""
        snapshotter = self._snapshotter(name)
        if not key:
            raise invalid("snapshot key must not be empty: invalid argument")
        check_labels(labels, "info.Labels")
        numbers: list[int] = []

        def write(connection: sqlite3.Connection) -> int:
            namespaces.ensure(connection, call.namespace)
            parents = _parents(connection, call.namespace, name, parent)
            if parents != numbers:
                raise WharfError(Kind.UNAVAILABLE, f"parent {parent} of snapshot {key} changed meanwhile: unavailable")
            now = time.time_ns()
            try:
                cursor = connection.execute(
                    "INSERT INTO snapshot (namespace, snapshotter, key, kind, parent, created, updated, labels) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (call.namespace, name, key, kind.value, parent, now, now, json_labels.dump(labels)),
                )
            except sqlite3.IntegrityError:
                raise WharfError(Kind.ALREADY_EXISTS, f'snapshot "{key}": already exists') from None
            leases.add_to_lease(connection, call, f"{leases.SNAPSHOTS}{name}", key)
            number = cursor.lastrowid or 0
            snapshotter.create(number, parents, kind, staged)
            return number

        numbers += self._db.read(lambda connection: _parents(connection, call.namespace, name, parent))
        self._must_be_free(call.namespace, name, key)
        staged = await asyncio.to_thread(snapshotter.stage, numbers) if snapshotter.stages else ""
        message = events_pb.SnapshotPrepare(key=key, parent=parent, snapshotter=name)
        try:
            number = await self._db.write(write, then=self._event(call.namespace, "prepare", message))
        except WharfError:
            if staged:
                await asyncio.to_thread(snapshotter.unstage, staged)
            raise
        return snapshotter.mounts(number, numbers, kind)

    def _must_be_free(self, namespace: str, name: str, key: str) -> None:
        def read(connection: sqlite3.Connection) -> None:
            if _find(connection, namespace, name, key) is not None:
                raise WharfError(Kind.ALREADY_EXISTS, f'snapshot "{key}": already exists')

        self._db.read(read)

    def mounts(self, namespace: str, name: str, key: str) -> tuple[Mount, ...]:
        snapshotter = self._snapshotter(name)

        def read(connection: sqlite3.Connection) -> tuple[_Row, list[int]]:
            row = _get(connection, namespace, name, key)
            parents = chain(connection, namespace, name, key)[1:]
            if row.info.parent and not parents:  # lost after a power failure, with the layers on it
                raise not_found(f"parent snapshot {row.info.parent} does not exist: not found")
            return row, parents

        row, parents = self._db.read(read)
        if row.info.kind is SnapshotKind.COMMITTED:
            raise WharfError(Kind.FAILED_PRECONDITION, f"failed to get active mount: {key}: requires active snapshot")
        return snapshotter.mounts(row.number, parents, row.info.kind)

    async def commit(self, call: Call, name: str, committed: str, key: str, labels: Mapping[str, str]) -> None:
        """Commits the active snapshot ``key`` as ``committed``; raises ALREADY_EXISTS when that name is taken."""
        self._snapshotter(name)
        if not committed:
            raise invalid("snapshot name must not be empty: invalid argument")
        check_labels(labels, "info.Labels")

        def write(connection: sqlite3.Connection) -> bool:
            if _find(connection, call.namespace, name, committed) is not None:
                leases.add_to_lease(connection, call, f"{leases.SNAPSHOTS}{name}", committed)
                return False
            row = _get(connection, call.namespace, name, key)
            if row.info.kind is not SnapshotKind.ACTIVE:
                raise WharfError(Kind.FAILED_PRECONDITION, f"snapshot {key} is not active: failed precondition")
            now = time.time_ns()
            connection.execute(
                "UPDATE snapshot SET key = ?, kind = ?, created = ?, updated = ?, labels = ? WHERE number = ?",
                (committed, SnapshotKind.COMMITTED.value, now, now, json_labels.dump(labels), row.number),
            )
            self._layer_sync.record(connection, row.number)
            leases.remove_from_leases(connection, call.namespace, f"{leases.SNAPSHOTS}{name}", key)
            leases.add_to_lease(connection, call, f"{leases.SNAPSHOTS}{name}", committed)
            return True

        def then(done: bool) -> None:  # noqa: FBT001 - the answer of write
            if done:
                self._layer_sync.schedule()
                message = events_pb.SnapshotCommit(key=key, name=committed, snapshotter=name)
                self._bus.publish(call.namespace, "/snapshot/commit", message)

        if not await self._db.write(write, then=then):
            raise WharfError(Kind.ALREADY_EXISTS, f'snapshot "{committed}": already exists')

    async def remove(self, namespace: str, name: str, key: str) -> None:
        """Raises FAILED_PRECONDITION while another snapshot has it as its parent. The directory is deleted in the
        background, or at the next start after a crash."""
        snapshotter = self._snapshotter(name)

        def write(connection: sqlite3.Connection) -> int:
            row = _get(connection, namespace, name, key)
            if connection.execute(
                "SELECT 1 FROM snapshot WHERE namespace = ? AND snapshotter = ? AND parent = ?", (namespace, name, key)
            ).fetchone():
                raise WharfError(Kind.FAILED_PRECONDITION, "cannot remove snapshot with child: failed precondition")
            connection.execute("DELETE FROM snapshot WHERE number = ?", (row.number,))
            leases.remove_from_leases(connection, namespace, f"{leases.SNAPSHOTS}{name}", key)
            return row.number

        def then(number: int) -> None:
            self._bus.publish(namespace, "/snapshot/remove", events_pb.SnapshotRemove(key=key, snapshotter=name))
            self._remover.submit(snapshotter.discard, number)

        await self._db.write(write, then=then, frees=True)

    def discard(self, name: str, number: int) -> None:
        """Deletes the directory of a snapshot without a record, in the background."""
        snapshotter = self._snapshotters.get(name)
        if snapshotter is not None:
            self._remover.submit(snapshotter.discard, number)

    def stat(self, namespace: str, name: str, key: str) -> SnapshotInfo:
        self._snapshotter(name)
        return self._db.read(lambda connection: _get(connection, namespace, name, key)).info

    async def update(
        self, namespace: str, name: str, key: str, labels: Mapping[str, str], mask: Sequence[str]
    ) -> SnapshotInfo:
        self._snapshotter(name)
        check_labels(labels, "info.Labels")

        def write(connection: sqlite3.Connection) -> SnapshotInfo:
            row = _get(connection, namespace, name, key)
            new = masked_labels(row.info.labels, labels, mask, UnknownField("snapshot", key))
            now = time.time_ns()
            connection.execute(
                "UPDATE snapshot SET labels = ?, updated = ? WHERE number = ?", (json_labels.dump(new), now, row.number)
            )
            return replace(row.info, labels=new, updated_at_ns=now)

        return await self._db.write(write)

    async def list(self, namespace: str, name: str, expressions: Sequence[str]) -> list[SnapshotInfo]:
        self._snapshotter(name)
        match = filters.compile_all(expressions)

        def read(connection: sqlite3.Connection) -> list[SnapshotInfo]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM snapshot WHERE namespace = ? AND snapshotter = ? ORDER BY key",
                (namespace, name),
            )
            return [row.info for row in map(_row, rows) if match(_fields(row.info))]

        return await self._db.scan(read)

    async def usage(self, namespace: str, name: str, key: str) -> Usage:
        """The space that it uses beyond its parents; see ``measure``.

        :raises WharfError: NOT_FOUND, also for a snapshot that is removed meanwhile.
        """
        found = (await self.usages(namespace, name, (key,))).get(key)
        if found is None:
            raise not_found(f"snapshot {key} does not exist: not found")
        return found

    async def usages(self, namespace: str, name: str, keys: Sequence[str]) -> dict[str, Usage]:
        """See ``measure``; INVALID_ARGUMENT for an unknown snapshotter."""
        return await measure(self._db, self._snapshotter(name), namespace, keys)

    async def cleanup(self, name: str) -> None:
        """Deletes the directories that have no record, and waits for it."""
        await self._sweep(self._snapshotter(name))

    async def recover(self) -> None:
        """At the start: removes rows without a directory and directories without a row (a crash between the two), and
        layers that a power failure may have damaged."""
        for snapshotter in self._snapshotters.values():
            await asyncio.to_thread(snapshotter.tidy)
            await self._sweep(snapshotter, rows=True)
        await self._db.write(self._layer_sync.clear)
        self._layer_sync.schedule()

    async def _sweep(self, snapshotter: Snapshotter, *, rows: bool = False) -> None:
        loop = asyncio.get_running_loop()
        there = set(await loop.run_in_executor(self._remover, snapshotter.numbers))

        def known(connection: sqlite3.Connection) -> set[int]:
            found = connection.execute("SELECT number FROM snapshot WHERE snapshotter = ?", (snapshotter.name,))
            return {number for (number,) in found}

        def write(connection: sqlite3.Connection) -> set[int]:
            if rows:
                lost = known(connection) - there
                unsynced = known(connection) & set(self._layer_sync.unsynced(connection))
                if unsynced:
                    log.warning("snapshots: %d layers may be incomplete after a power failure", len(unsynced))
                gone = [(number,) for number in lost | unsynced]
                connection.executemany("DELETE FROM snapshot WHERE number = ?", gone)
                while connection.execute(_ORPHANS, {"committed": SnapshotKind.COMMITTED.value}).rowcount:
                    pass
            return there - known(connection)

        for number in await self._db.write(write):
            await loop.run_in_executor(self._remover, snapshotter.discard, number)

    async def close(self) -> None:
        """Waits for the current deletion; queued directories are deleted at the next start."""
        self._layer_sync.close()
        await asyncio.to_thread(self._remover.shutdown, cancel_futures=True)

    def _event(self, namespace: str, verb: str, message: Message) -> Callable[[object], None]:
        return lambda _: self._bus.publish(namespace, f"/snapshot/{verb}", message)


def _row(row: tuple[int, int, str, str, str, int, int]) -> _Row:
    number, kind, key, parent, labels, created, updated = row
    info = SnapshotInfo(SnapshotKind(kind), key, parent, json_labels.load(labels), created, updated)
    return _Row(number, info)


def _find(connection: sqlite3.Connection, namespace: str, name: str, key: str) -> _Row | None:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM snapshot WHERE namespace = ? AND snapshotter = ? AND key = ?", (namespace, name, key)
    ).fetchone()
    return _row(row) if row is not None else None


def _get(connection: sqlite3.Connection, namespace: str, name: str, key: str) -> _Row:
    row = _find(connection, namespace, name, key)
    if row is None:
        raise not_found(f"snapshot {key} does not exist: not found")
    return row


def _parents(connection: sqlite3.Connection, namespace: str, name: str, parent: str) -> list[int]:
    """The numbers of a new snapshot's ancestors; none for an empty parent."""
    if not parent:
        return []
    row = _find(connection, namespace, name, parent)
    if row is None:
        raise not_found(f"parent snapshot {parent} does not exist: not found")
    if row.info.kind is not SnapshotKind.COMMITTED:
        raise invalid(f"parent {parent} is not committed snapshot: invalid argument")
    return chain(connection, namespace, name, parent)


def _fields(info: SnapshotInfo) -> filters.Fields:
    def field(path: Sequence[str]) -> str | None:
        match path:
            case ["kind"]:
                return info.kind.name.lower()
            case ["name"]:
                return info.name
            case ["parent"]:
                return info.parent
            case ["labels", *rest]:
                return filters.in_labels(rest, info.labels)
        return None

    return field
