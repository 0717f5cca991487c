"""The snapshots of a snapshotter of this process: a directory for each record."""

import asyncio
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from engine.api.pb import event_messages_pb2 as events_pb
from engine.api.types import Mount, SnapshotKind, Usage
from engine.common.errors import WharfError
from engine.supervisor.call import Call
from engine.supervisor.events import EventBus
from engine.supervisor.snapshots import records
from engine.supervisor.snapshots.base import Snapshotter
from engine.supervisor.snapshots.layer_sync import LayerSync
from engine.supervisor.snapshots.usages import measure
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)


class Local:
    """See ``base.Store``."""

    def __init__(
        self,
        snapshotter: Snapshotter,
        database: Database,
        bus: EventBus,
        layer_sync: LayerSync,
        remover: ThreadPoolExecutor,
    ) -> None:
        """``remover``: the thread that deletes directories."""
        self.name = snapshotter.name
        self._snapshotter = snapshotter
        self._db = database
        self._bus = bus
        self._layer_sync = layer_sync
        self._remover = remover

    async def create(
        self, call: Call, key: str, parent: str, labels: Mapping[str, str], kind: SnapshotKind
    ) -> tuple[Mount, ...]:
        snapshotter, name = self._snapshotter, self.name
        parents: list[int] = []

        def read(connection: sqlite3.Connection) -> None:
            parents.extend(records.parents_of(connection, call.namespace, name, parent))
            records.must_be_free(connection, call.namespace, name, key)

        def write(connection: sqlite3.Connection) -> int:
            number = records.insert(connection, call, records.New(name, key, kind, parent, labels, parents))
            snapshotter.create(number, parents, kind, staged)
            return number

        def publish(_: int) -> None:
            message = events_pb.SnapshotPrepare(key=key, parent=parent, snapshotter=name)
            self._bus.publish(call.namespace, "/snapshot/prepare", message)

        self._db.read(read)
        staged = await asyncio.to_thread(snapshotter.stage, parents) if snapshotter.stages else ""
        try:
            number = await self._db.write(write, then=publish)
        except WharfError:
            if staged:
                await asyncio.to_thread(snapshotter.unstage, staged)
            raise
        return snapshotter.mounts(number, parents, kind)

    async def mounts(self, namespace: str, row: records.Row, parents: Sequence[int]) -> tuple[Mount, ...]:
        return self._snapshotter.mounts(row.number, parents, row.info.kind)

    async def commit(self, namespace: str, committed: str, key: str, labels: Mapping[str, str]) -> None:
        """Nothing: the record alone makes it a committed one."""

    def committed(self, connection: sqlite3.Connection, number: int) -> None:
        self._layer_sync.record(connection, number)

    def tree(self, number: int) -> str:
        """The directory of the files of a snapshot."""
        return self._snapshotter.tree(number)

    async def usages(self, namespace: str, keys: Sequence[str]) -> dict[str, Usage]:
        return await measure(self._db, self._snapshotter, namespace, keys)

    def discard(self, number: int) -> None:
        self._remover.submit(self._snapshotter.discard, number)

    async def sweep(self) -> None:
        await self._sweep(rows=False)

    async def recover(self) -> None:
        """Also removes layers that a power failure may have damaged."""
        await asyncio.to_thread(self._snapshotter.tidy)
        await self._sweep(rows=True)

    async def _sweep(self, *, rows: bool) -> None:
        loop = asyncio.get_running_loop()
        there = set(await loop.run_in_executor(self._remover, self._snapshotter.numbers))

        def write(connection: sqlite3.Connection) -> set[int]:
            if rows:
                known = records.numbers(connection, self.name)
                unsynced = known & set(self._layer_sync.unsynced(connection))
                if unsynced:
                    log.warning("snapshots: %d layers may be incomplete after a power failure", len(unsynced))
                gone = [(number,) for number in (known - there) | unsynced]
                connection.executemany("DELETE FROM snapshot WHERE number = ?", gone)
                records.delete_orphans(connection)
            return there - records.numbers(connection, self.name)

        for number in await self._db.write(write):
            await loop.run_in_executor(self._remover, self._snapshotter.discard, number)

    async def close(self) -> None:
        """Nothing: ``remover`` belongs to the caller."""
