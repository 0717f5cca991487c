"""The records of snapshots, by namespace and snapshotter, with containerd's rules and sentences."""

import asyncio
import sqlite3
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.api import filters
from engine.api.pb import event_messages_pb2 as events_pb
from engine.api.types import Mount, SnapshotInfo, SnapshotKind, Usage
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.supervisor import leases
from engine.supervisor.call import Call
from engine.supervisor.events import EventBus
from engine.supervisor.names import UnknownField, check_labels, masked_labels
from engine.supervisor.recipes import sources
from engine.supervisor.snapshots import layer_sync, records
from engine.supervisor.snapshots.base import Snapshotter, Store
from engine.supervisor.snapshots.layer_sync import LayerSync
from engine.supervisor.snapshots.local import Local
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database

if TYPE_CHECKING:
    from engine.supervisor.snapshots.proxied import Proxied


class Snapshots:
    """All snapshotters by name. The call's lease protects what ``prepare``, ``view`` and ``commit`` create."""

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        snapshotters: Sequence[Snapshotter],
        root: str,
        proxied: "Sequence[Proxied]" = (),
        *,
        sync_delay: float = layer_sync.DELAY,
    ) -> None:
        """``root``: the directory of the snapshotters' directories. ``proxied``: those of other processes.
        ``sync_delay``: seconds until a new layer is synced."""
        self._db = database
        self._bus = bus
        self.layer_sync = LayerSync(database, root, sync_delay)
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="remove")
        self._local = {one.name: Local(one, database, bus, self.layer_sync, self._remover) for one in snapshotters}
        self._stores: dict[str, Store] = {**self._local, **{one.name: one for one in proxied}}

    def _store(self, name: str) -> Store:
        if not name:
            raise invalid("snapshotter argument missing: invalid argument")
        found = self._stores.get(name)
        if found is None:
            raise invalid(f"snapshotter not loaded: {name}: invalid argument")
        return found

    async def create(
        self, call: Call, name: str, key: str, parent: str, labels: Mapping[str, str], kind: SnapshotKind
    ) -> tuple[Mount, ...]:
        """``prepare`` (ACTIVE) and ``view`` (VIEW). ALREADY_EXISTS: the key is taken, or the snapshotter of another
        process has provided the snapshot that a label names; NOT_FOUND: no such parent."""
        store = self._store(name)
        if not key:
            raise invalid("snapshot key must not be empty: invalid argument")
        check_labels(labels, "info.Labels")
        return await store.create(call, key, parent, labels, kind)

    async def mounts(self, namespace: str, name: str, key: str) -> tuple[Mount, ...]:
        store = self._store(name)
        row, parents = self._db.read(lambda connection: records.get_mountable(connection, namespace, name, key))
        return await store.mounts(namespace, row, parents)

    async def commit(self, call: Call, name: str, committed: str, key: str, labels: Mapping[str, str]) -> None:
        """Commits the active snapshot ``key`` as ``committed``; raises ALREADY_EXISTS when that name is taken."""
        store = self._store(name)
        if not committed:
            raise invalid("snapshot name must not be empty: invalid argument")
        check_labels(labels, "info.Labels")

        def write(connection: sqlite3.Connection) -> bool:
            if records.find(connection, call.namespace, name, committed) is not None:
                leases.add_to_lease(connection, call, f"{leases.SNAPSHOTS}{name}", committed)
                return False
            row = records.get_active(connection, call.namespace, name, key)
            now = time.time_ns()
            connection.execute(
                "UPDATE snapshot SET key = ?, kind = ?, created = ?, updated = ?, labels = ? WHERE number = ?",
                (committed, SnapshotKind.COMMITTED.value, now, now, json_labels.dump(labels), row.number),
            )
            store.committed(connection, row.number)
            leases.remove_from_leases(connection, call.namespace, f"{leases.SNAPSHOTS}{name}", key)
            leases.add_to_lease(connection, call, f"{leases.SNAPSHOTS}{name}", committed)
            return True

        def then(done: bool) -> None:  # noqa: FBT001 - the answer of write
            if done:
                self.layer_sync.schedule()
                message = events_pb.SnapshotCommit(key=key, name=committed, snapshotter=name)
                self._bus.publish(call.namespace, "/snapshot/commit", message)

        await store.commit(call.namespace, committed, key, labels)
        if not await self._db.write(write, then=then):
            raise WharfError(Kind.ALREADY_EXISTS, f'snapshot "{committed}": already exists')

    async def remove(self, namespace: str, name: str, key: str) -> None:
        """Raises FAILED_PRECONDITION while another snapshot has it as its parent. The directory is deleted in the
        background, or at the next start after a crash."""
        self._store(name)

        def write(connection: sqlite3.Connection) -> int:
            row = records.get(connection, namespace, name, key)
            if connection.execute(
                "SELECT 1 FROM snapshot WHERE namespace = ? AND snapshotter = ? AND parent = ?", (namespace, name, key)
            ).fetchone():
                raise WharfError(Kind.FAILED_PRECONDITION, "cannot remove snapshot with child: failed precondition")
            if (digest := sources.made_from(connection, row.number)) is not None:
                raise WharfError(
                    Kind.FAILED_PRECONDITION,
                    f"cannot remove snapshot: content {digest} is re-created from it: failed precondition",
                )
            connection.execute("DELETE FROM snapshot WHERE number = ?", (row.number,))
            leases.remove_from_leases(connection, namespace, f"{leases.SNAPSHOTS}{name}", key)
            return row.number

        def then(number: int) -> None:
            self._bus.publish(namespace, "/snapshot/remove", events_pb.SnapshotRemove(key=key, snapshotter=name))
            self.discard(name, number)

        await self._db.write(write, then=then, frees=True)

    def discard(self, name: str, number: int) -> None:
        """Deletes the directory of a snapshot without a record, in the background."""
        if (store := self._stores.get(name)) is not None:
            store.discard(number)

    def stat(self, namespace: str, name: str, key: str) -> SnapshotInfo:
        self._store(name)
        return self._db.read(lambda connection: records.get(connection, namespace, name, key)).info

    async def update(
        self, namespace: str, name: str, key: str, labels: Mapping[str, str], mask: Sequence[str]
    ) -> SnapshotInfo:
        self._store(name)
        check_labels(labels, "info.Labels")

        def write(connection: sqlite3.Connection) -> SnapshotInfo:
            row = records.get(connection, namespace, name, key)
            new = masked_labels(row.info.labels, labels, mask, UnknownField("snapshot", key))
            now = time.time_ns()
            connection.execute(
                "UPDATE snapshot SET labels = ?, updated = ? WHERE number = ?", (json_labels.dump(new), now, row.number)
            )
            return replace(row.info, labels=new, updated_at_ns=now)

        return await self._db.write(write)

    async def list(self, namespace: str, name: str, expressions: Sequence[str]) -> list[SnapshotInfo]:
        self._store(name)
        match = filters.compile_all(expressions)

        def read(connection: sqlite3.Connection) -> list[SnapshotInfo]:
            rows = connection.execute(
                f"SELECT {records.COLUMNS} FROM snapshot WHERE namespace = ? AND snapshotter = ? ORDER BY key",
                (namespace, name),
            )
            return [row.info for row in map(records.row_of, rows) if match(records.fields(row.info))]

        return await self._db.scan(read)

    @property
    def local(self) -> tuple[str, ...]:
        """The names of the snapshotters whose files are here: not those of other processes."""
        return tuple(self._local)

    def tree(self, name: str, number: int) -> str:
        """The directory of the files of a snapshot, of a local snapshotter."""
        return self._local[name].tree(number)

    async def usage(self, namespace: str, name: str, key: str) -> Usage:
        """The space that it uses beyond its parents; see ``Store.usages``.

        :raises WharfError: NOT_FOUND, also for a snapshot that is removed meanwhile.
        """
        found = (await self.usages(namespace, name, (key,))).get(key)
        if found is None:
            raise not_found(f"snapshot {key} does not exist: not found")
        return found

    async def usages(self, namespace: str, name: str, keys: Sequence[str]) -> dict[str, Usage]:
        """See ``Store``; INVALID_ARGUMENT for an unknown snapshotter."""
        return await self._store(name).usages(namespace, keys)

    async def cleanup(self, name: str) -> None:
        """Deletes the directories that have no record, and waits for it."""
        await self._store(name).sweep()

    async def recover(self) -> None:
        """At the start: removes rows without a directory and directories without a row (a crash between the two), and
        layers that a power failure may have damaged."""
        for store in self._stores.values():
            await store.recover()
        await self._db.write(self.layer_sync.clear)
        self.layer_sync.schedule()

    async def close(self) -> None:
        """Waits for the current deletion; queued directories are deleted at the next start."""
        self.layer_sync.close()
        for store in self._stores.values():
            await store.close()
        await asyncio.to_thread(self._remover.shutdown, cancel_futures=True)
