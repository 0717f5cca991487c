"""Proxied snapshotters: another process manages the directories, and serves containerd's snapshots API on a unix socket
(containerd's ``proxy_plugins`` of the type ``snapshot``).

A *remote* snapshotter can provide a layer before its bytes are here: ``prepare`` of a key with the label
``containerd.io/snapshot.ref`` then makes the committed snapshot that the label names, and raises ALREADY_EXISTS
(containerd's ``docs/remote-snapshotter.md``). Other labels that begin with ``containerd.io/snapshot/`` say where the
layer is; the snapshotter gets these and no others.

The process knows a snapshot by a name that has the supervisor's id and the number of the record: the supervisor needs
no second table, and removes at its start what has no record. Such a process serves one supervisor only.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

from engine.api.pb import event_messages_pb2 as events_pb
from engine.api.rpc import Connection
from engine.api.services.snapshots import Snapshots as Client
from engine.api.types import Mount, SnapshotKind, Usage
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.supervisor import leases
from engine.supervisor.call import Call
from engine.supervisor.events import EventBus
from engine.supervisor.snapshots import records
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)

timeouts.define("snapshotter.list", 10.0)  # the names of all snapshots of another process

#: The label with the name of the snapshot that a remote snapshotter may provide.
_TARGET = "containerd.io/snapshot.ref"
_INHERITED = "containerd.io/snapshot/"


class Proxied:
    """One proxied snapshotter: see ``base.Store``. Calls raise UNAVAILABLE while its process is absent."""

    def __init__(self, name: str, address: str, identity: str, database: Database, bus: EventBus) -> None:
        """``address``: the path of the socket. ``identity``: the supervisor's id."""
        self.name = name
        self.address = address
        self._prefix = f"{identity}/"
        self._db = database
        self._bus = bus
        self._clients: dict[str, Client] = {}  # by namespace
        self._connections: list[Connection] = []
        self._creating: set[int] = set()
        self._discarded: set[int] = set()
        self._removal: asyncio.Task[None] | None = None

    async def create(
        self, call: Call, key: str, parent: str, labels: Mapping[str, str], kind: SnapshotKind
    ) -> tuple[Mount, ...]:
        target = labels.get(_TARGET, "") if kind is SnapshotKind.ACTIVE else ""

        def reserve(connection: sqlite3.Connection) -> tuple[int, list[int]]:
            if target and records.find(connection, call.namespace, self.name, target) is not None:
                leases.add_to_lease(connection, call, f"{leases.SNAPSHOTS}{self.name}", target)
                return 0, []
            records.must_be_free(connection, call.namespace, self.name, key)
            parents = records.parents_of(connection, call.namespace, self.name, parent)
            return records.reserve_number(connection), parents

        number, parents = await self._db.write(reserve)
        if not number:
            raise _exists(target)
        self._creating.add(number)
        try:
            below = self._committed(parents[0]) if parents else ""
            mounts = await self._make(call.namespace, number, below, kind, _inherited(labels), target=bool(target))
            name, state = (key, kind) if mounts is not None else (target, SnapshotKind.COMMITTED)
            new = records.New(self.name, name, state, parent, labels, parents, number)

            def publish(_: int) -> None:
                message = events_pb.SnapshotPrepare(key=name, parent=parent, snapshotter=self.name)
                self._bus.publish(call.namespace, "/snapshot/prepare", message)

            await self._db.write(lambda connection: records.insert(connection, call, new), then=publish)
        except BaseException:
            self.discard(number)
            raise
        finally:
            self._creating.discard(number)
        if mounts is None:
            raise _exists(target)
        return mounts

    async def _make(
        self, namespace: str, number: int, parent: str, kind: SnapshotKind, labels: dict[str, str], *, target: bool
    ) -> tuple[Mount, ...] | None:
        """Returns None if the process has provided the committed snapshot."""
        client = self._client(namespace)
        with self._named():
            if kind is SnapshotKind.VIEW:
                return await client.view(self._active(number), parent, labels)
            if not target:
                return await client.prepare(self._active(number), parent, labels)
            try:
                return await client.prepare(self._active(number), parent, {**labels, _TARGET: self._committed(number)})
            except WharfError as error:
                if error.kind is not Kind.ALREADY_EXISTS:
                    raise
            await client.stat(self._committed(number))
            return None

    async def mounts(self, namespace: str, row: records.Row, parents: Sequence[int]) -> tuple[Mount, ...]:
        with self._named():
            return await self._client(namespace).mounts(self._active(row.number))

    async def commit(self, namespace: str, committed: str, key: str, labels: Mapping[str, str]) -> None:
        def read(connection: sqlite3.Connection) -> int:
            if records.find(connection, namespace, self.name, committed) is not None:
                return 0
            return records.get_active(connection, namespace, self.name, key).number

        if number := self._db.read(read):
            with self._named():
                await self._client(namespace).commit(self._committed(number), self._active(number), _inherited(labels))

    def committed(self, connection: sqlite3.Connection, number: int) -> None:
        """Nothing: its process syncs its files."""

    async def usages(self, namespace: str, keys: Sequence[str]) -> dict[str, Usage]:
        """Not remembered: a remote layer grows while its files are read."""

        def read(connection: sqlite3.Connection) -> dict[str, str]:
            rows = ((key, records.find(connection, namespace, self.name, key)) for key in keys)
            return {self._name(row.number, row.info.kind): key for key, row in rows if row is not None}

        names = self._db.read(read)
        with self._named():
            found = await self._client(namespace).usages(names)
        return {names[name]: usage for name, usage in found.items()}

    def discard(self, number: int) -> None:
        self._discarded.add(number)
        if self._removal is None or self._removal.done():
            self._removal = asyncio.create_task(self._remove_discarded(), name=f"remove {self.name}")

    async def _remove_discarded(self) -> None:
        try:
            await self._remove(self._discarded)
        except WharfError as error:
            log.warning("%s; its removed snapshots are deleted later", error.message)

    async def _remove(self, numbers: set[int]) -> None:
        """Removes until the set is empty. A child has a higher number than its parent, and must be removed first."""
        client = self._client("")
        with self._named():
            while numbers:
                number = max(numbers)
                for name in (self._active(number), self._committed(number)):
                    try:
                        await client.remove(name)
                    except WharfError as error:
                        if error.kind is Kind.FAILED_PRECONDITION:
                            log.warning("snapshotter %s: %s: %s", self.name, name, error.message)
                        elif error.kind is not Kind.NOT_FOUND:
                            raise
                numbers.discard(number)
            try:
                await client.cleanup()  # many snapshotters delete the files only now
            except WharfError as error:
                if error.kind not in (Kind.NOT_IMPLEMENTED, Kind.NOT_FOUND):  # not found: it has no snapshot
                    raise

    async def sweep(self) -> None:
        await self._remove(await self._present() - await self._db.scan(self._recorded) - self._creating)

    async def recover(self) -> None:
        try:
            present = await self._present()
            await self._db.write(lambda connection: self._forget_lost(connection, present))
            await self.sweep()
        except WharfError as error:
            log.warning("%s", error.message)

    def _forget_lost(self, connection: sqlite3.Connection, present: set[int]) -> None:
        lost = [(number, SnapshotKind.COMMITTED.value) for number in self._recorded(connection) - present]
        if lost:
            log.warning("snapshotter %s does not have %d snapshots any more", self.name, len(lost))
            connection.executemany("DELETE FROM snapshot WHERE number = ? AND kind = ?", lost)
            records.delete_orphans(connection)

    async def _present(self) -> set[int]:
        try:
            with self._named():
                async with timeouts.limit("snapshotter.list"):
                    names = [info.name async for info in self._client("").walk()]
        except WharfError as error:
            # containerd's metadata store lists nothing but an error before its first snapshot, often without a kind.
            if error.kind in (Kind.NOT_FOUND, Kind.INTERNAL) and await self._has_none():
                return set()
            raise
        own = (name.removeprefix(self._prefix).partition("/")[0] for name in names if name.startswith(self._prefix))
        return {int(number) for number in own if number.isdigit()}

    async def _has_none(self) -> bool:
        """Whether no recorded snapshot has a directory."""

        def read(connection: sqlite3.Connection) -> list[str]:
            query = "SELECT number, kind FROM snapshot WHERE snapshotter = ?"
            rows = connection.execute(query, (self.name,)).fetchall()
            return [self._name(number, SnapshotKind(kind)) for number, kind in rows]

        for name in await self._db.scan(read):
            try:
                await self._client("").stat(name)
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
            else:
                return False
        return True

    def _recorded(self, connection: sqlite3.Connection) -> set[int]:
        return records.numbers(connection, self.name)

    async def close(self) -> None:
        if self._removal is not None:
            self._removal.cancel()
            await asyncio.wait((self._removal,))
        for connection in self._connections:
            await connection.close()

    def _client(self, namespace: str) -> Client:
        found = self._clients.get(namespace)
        if found is None:
            connection = Connection(self.address, namespace, peer="its process", waits=False)
            self._connections.append(connection)
            found = self._clients[namespace] = Client(connection, self.name)
        return found

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Adds the snapshotter's name to errors."""
        try:
            yield
        except WharfError as error:
            raise error.worded(f"snapshotter {self.name}: {error.message}") from None

    def _active(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def _committed(self, number: int) -> str:
        return f"{self._prefix}{number}/committed"

    def _name(self, number: int, kind: SnapshotKind) -> str:
        return self._committed(number) if kind is SnapshotKind.COMMITTED else self._active(number)


def _inherited(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name.startswith(_INHERITED)}


def _exists(target: str) -> WharfError:
    return WharfError(Kind.ALREADY_EXISTS, f'target snapshot "{target}": already exists')
