"""One SQLite file with tables of documents, a writer thread and a reader thread.

:meth:`Database.write` returns after the commit, so that a response is sent after its change is stored. Queued writes
share one transaction, each in its own savepoint: a failing write undoes only its own changes.

With WAL and ``synchronous=NORMAL``, a crash of the process loses no commit. A power failure may lose the last commits,
but doesn't damage the database.

On a full disk, writes use the space of :mod:`engine.common.system.reserve`; its second part is for writes that free
space.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from engine.common.system import private
from engine.common.system.reserve import Reserve, disk_error, is_full
from engine.common.system.sqlite import connect

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

# The schema, as a list of migrations; PRAGMA user_version is the number of those applied. Only append to the list.
#
#   containers   id, name, doc     server/containers/store.py
#   networks     id, name, doc     server/networks/store.py
#   volumes      id, name, doc     server/volumes/store.py     (id is the name)
#   endpoints    id, name, doc     addresses of endpoints: id "<network>/<container>"
#   settings     id, name, doc     single values, such as the daemon's ID
#   build_cache  id, name, doc     records of the builder's cache
#   overlays     id, name, doc     server/networks/overlay: what the swarm has told this node of services
#
#   image_documents  id, doc       server/images/store.py
_DOCUMENTS = "CREATE TABLE {0} (id TEXT PRIMARY KEY, name TEXT, doc BLOB NOT NULL) WITHOUT ROWID"
MIGRATIONS: Sequence[Sequence[str]] = (
    (
        *(
            _DOCUMENTS.format(table)
            for table in ("containers", "networks", "volumes", "endpoints", "settings", "build_cache")
        ),
        "CREATE UNIQUE INDEX containers_by_name ON containers (name) WHERE name IS NOT NULL",
        "CREATE INDEX networks_by_name ON networks (name)",
        "CREATE INDEX build_cache_by_name ON build_cache (name)",
    ),
    (_DOCUMENTS.format("overlays"),),
    ("CREATE TABLE image_documents (id TEXT PRIMARY KEY, doc BLOB NOT NULL) WITHOUT ROWID",),
)


class NewerDatabase(Exception):
    """A later version of the daemon has written the file."""


def _open(path: Path) -> sqlite3.Connection:
    connection = connect(str(path), timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    # A cache of 512 KiB is enough for documents, and saves memory.
    connection.execute("PRAGMA cache_size=-512")
    return connection


def _migrate(connection: sqlite3.Connection, steps: Sequence[Sequence[str]]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise NewerDatabase(f"the database has schema {version}, this daemon knows up to {len(steps)}")
    for number in range(version, len(steps)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in steps[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


class _Item(NamedTuple):
    work: Work[object]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[object]"
    frees: bool


_Result = tuple[object, BaseException | None]


class _Worker:
    """A thread that runs functions on its own connection, in order. With a ``reserve`` it writes, in batches."""

    def __init__(self, name: str, connection: sqlite3.Connection, *, reserve: Reserve | None = None) -> None:
        self._connection = connection
        self._reserve = reserve
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Work[T], *, frees: bool = False) -> "asyncio.Future[T]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Item(work, loop, future, frees))  # type: ignore[arg-type]
        return future

    def close(self) -> None:
        """Ends the thread after the queued work."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        ending = False
        while not ending:
            batch = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while self._reserve is not None and len(batch) < 64:
                    batch.append(self._queue.get_nowait())
            if None in batch:
                ending = True
            items = [item for item in batch if item is not None]
            if not items:
                continue
            results = [self._guarded(item.work) for item in items] if self._reserve is None else self._commit(items)
            for item, (value, error) in zip(items, results, strict=True):
                # The loop may be closed already if the daemon stops during a request.
                with contextlib.suppress(RuntimeError):
                    item.loop.call_soon_threadsafe(_resolve, item.future, value, error)

    def _commit(self, items: list[_Item]) -> list[_Result]:
        assert self._reserve is not None
        results = self._transaction(items)
        if isinstance(results, list):
            if not self._reserve.held:  # used on a full disk, or lost with a new WAL file
                self._reserve.renew()
            return results
        # Only writes that free space may use the second part of the reserve: others would only consume it.
        freeing = [item for item in items if item.frees]
        if not is_full(results) or not freeing or not self._reserve.release():
            return [(None, disk_error(results))] * len(items)
        again = self._transaction(freeing)
        freed = iter(again if isinstance(again, list) else [(None, disk_error(again))] * len(freeing))
        return [next(freed) if item.frees else (None, disk_error(results)) for item in items]

    def _transaction(self, items: list[_Item]) -> list[_Result] | sqlite3.Error:
        """The results of the items after the commit; or the error of the transaction."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [self._savepoint(item.work) for item in items]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            return error
        return results

    def _savepoint(self, work: Work[object]) -> _Result:
        self._connection.execute("SAVEPOINT one")
        result = self._guarded(work)
        if isinstance(result[1], sqlite3.Error) and is_full(result[1]):
            raise result[1]
        if result[1] is not None:
            self._connection.execute("ROLLBACK TO one")
        self._connection.execute("RELEASE one")
        return result

    def _guarded(self, work: Work[object]) -> _Result:
        try:
            return work(self._connection), None
        except Exception as error:
            return None, error


def _resolve(future: "asyncio.Future[object]", value: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


class Database:
    """The daemon's database. ``write`` and ``read`` run a function of a connection in a thread.

    The function must not return cursors or rows: the connection is used only in its thread.
    """

    def __init__(self, path: str | os.PathLike[str], migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
        """Opens or creates the file (mode 0600) and migrates its schema.

        :raises NewerDatabase: a later version of the daemon has written it.
        """
        self.path = Path(path)
        private.make_directory(self.path.parent, 0o710)
        private.make_file(self.path)
        writing = _open(self.path)
        try:
            _migrate(writing, migrations)
        except BaseException:
            writing.close()
            raise
        self.reserve = Reserve(str(self.path))
        self.reserve.renew()
        self._writer = _Worker("db-write", writing, reserve=self.reserve)
        self._reader = _Worker("db-read", _open(self.path))

    async def write(self, work: Work[T], *, frees: bool = False) -> T:
        """Runs ``work`` in a transaction and returns its result after the commit. If it raises, its changes are undone.

        A queued write is executed even if the caller is cancelled. ``frees``: the write removes something or records an
        event such as an exit, so it may use all of the reserve on a full disk.

        :raises WharfError: RESOURCE_EXHAUSTED: the disk is full.
        """
        return await asyncio.shield(self._writer.submit(work, frees=frees))

    async def read(self, work: Work[T]) -> T:
        """Runs ``work`` on the committed state."""
        return await self._reader.submit(work)

    def close(self) -> None:
        """Executes the queued work and closes the file. Blocks; for the daemon's end."""
        self._writer.close()
        self._reader.close()


class Documents:
    """A table of JSON documents by id, with an optional name."""

    def __init__(self, database: Database, table: str) -> None:
        self._database = database
        self._put = (
            f"INSERT INTO {table} (id, name, doc) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, doc = excluded.doc"
        )
        self._delete = f"DELETE FROM {table} WHERE id = ?"
        self._all = f"SELECT id, name, doc FROM {table} ORDER BY id"
        self._get = f"SELECT doc FROM {table} WHERE id = ?"

    async def put(self, key: str, name: str | None, document: bytes, *, frees: bool = False) -> None:
        """Inserts or replaces; durable on return. ``frees``: see :meth:`Database.write`.

        :raises sqlite3.IntegrityError: another document has the name (tables with unique names).
        """

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(self._put, (key, name, document))

        await self._database.write(work, frees=frees)

    async def delete(self, key: str) -> None:
        """Deletes a document; a missing one is no error."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(self._delete, (key,))

        await self._database.write(work, frees=True)

    async def get(self, key: str) -> bytes | None:
        def work(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(self._get, (key,)).fetchone()
            return None if row is None else bytes(row[0])

        return await self._database.read(work)

    async def all(self) -> list[tuple[str, str | None, bytes]]:
        """(id, name, document) of each document."""

        def work(connection: sqlite3.Connection) -> list[tuple[str, str | None, bytes]]:
            return [(key, name, bytes(document)) for key, name, document in connection.execute(self._all)]

        return await self._database.read(work)
