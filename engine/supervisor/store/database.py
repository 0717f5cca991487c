"""The metadata database: SQLite in WAL mode, one thread that writes, short reads in any thread.

Concurrent writes share one commit. With ``synchronous=NORMAL`` a commit needs no fsync: after a crash of the process
all acknowledged writes are there; after a power failure the last ones may be missing, but never a part of one.
"""

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from engine.common.system import private
from engine.common.system.reserve import Reserve, disk_error, is_full
from engine.common.system.sqlite import connect
from engine.supervisor.store.schema import MIGRATIONS

T = TypeVar("T")

log = logging.getLogger(__name__)

#: The maximum number of writes per commit: limits the delay of the first one.
_BATCH = 64


@dataclass(slots=True)
class _Write:
    function: Callable[[sqlite3.Connection], object]
    then: Callable[[object], None] | None
    future: "asyncio.Future[object]"
    frees: bool
    result: object = None
    error: BaseException | None = field(default=None)


def _connect(path: str) -> sqlite3.Connection:
    connection = connect(path, timeout=10, cached_statements=256)
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


class Database:
    """Belongs to the event loop in which it is created; open it after any fork."""

    def __init__(self, path: str, *, migrations: tuple[str, ...] = MIGRATIONS) -> None:
        self._path = path
        private.restrict_directory(os.path.dirname(path))
        private.make_file(path)
        self._writer = _connect(path)
        self._writer.execute("PRAGMA journal_mode=WAL")
        _migrate(self._writer, migrations)
        self._reader = _connect(path)
        self._reader.execute("PRAGMA query_only=ON")
        self.reserve = Reserve(path)
        self.reserve.renew()
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="metadata", daemon=True)
        self._thread.start()

    async def write(
        self,
        function: Callable[[sqlite3.Connection], T],
        *,
        then: Callable[[T], None] | None = None,
        frees: bool = False,
    ) -> T:
        """Runs ``function`` in the writer's thread as one transaction: completely or, if it raises, not at all.

        ``then`` is called with the result in the loop after the commit, in the order of the commits and even if the
        caller was cancelled meanwhile: publish events there. ``frees``: the write frees space, so it may use the
        reserve on a full disk.
        """
        item = _Write(function, cast("Callable[[object], None] | None", then), self._loop.create_future(), frees)
        self._queue.put(item)
        return cast(T, await item.future)

    def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """A short read by key, in the caller's (the loop's) thread; sees every acknowledged write."""
        return function(self._reader)

    async def scan(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """A read that may take long, in a thread with its own connection."""

        def work() -> T:
            connection = _connect(self._path)
            try:
                return function(connection)
            finally:
                connection.close()

        return await asyncio.to_thread(work)

    async def sync(self) -> None:
        """Waits until every acknowledged write is on the disk: they then survive a power failure."""

        def work() -> None:
            # A write that is no longer in the log was synced by the checkpoint that moved it.
            fd = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

        await asyncio.to_thread(work)

    async def close(self) -> None:
        """Waits for pending writes."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._reader.close()
        self._writer.close()

    def _work(self) -> None:
        ending = False
        while not ending:
            batch = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == _BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                ending = True
            if batch:
                self._run(batch)
                self._loop.call_soon_threadsafe(_deliver, batch)

    def _run(self, batch: list[_Write]) -> None:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            for item in batch:
                writer.execute("SAVEPOINT one")
                try:
                    item.result = item.function(writer)
                except BaseException as error:
                    if is_full(error):
                        raise
                    item.error = error
                    writer.execute("ROLLBACK TO one")
                writer.execute("RELEASE one")
            writer.execute("COMMIT")
            if not self.reserve.held:  # the disk was full: maybe it no longer is
                self.reserve.renew()
        except sqlite3.Error as error:
            log.warning("metadata: a commit failed: %s", error)
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            # If the disk is full, writes that free space must not be refused: they use the reserve. Other writes would
            # only consume it.
            freeing = [item for item in batch if item.frees]
            if freeing and self.reserve.release():
                for item in freeing:
                    item.error = None
                self._run(freeing)
                batch = [item for item in batch if not item.frees]
            for item in batch:
                item.error = item.error or error


def _deliver(batch: list[_Write]) -> None:
    for item in batch:
        if item.error is None and item.then is not None:
            try:
                item.then(item.result)
            except Exception:
                log.exception("metadata: the callback of a write failed")
        if item.future.done():
            continue
        if item.error is not None:
            item.future.set_exception(disk_error(item.error))
        else:
            item.future.set_result(item.result)


def _migrate(connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    """Migrates the database to the newest schema; refuses one that is newer than this program."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise RuntimeError(f"the metadata has schema {version}, this version knows {len(migrations)}: it is too old")
    for number, statements in enumerate(migrations[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{statements}\nPRAGMA user_version={number};\nCOMMIT;")
