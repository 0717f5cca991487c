"""The store of a swarm with one manager: one SQLite file, used by this process only.

Watches get commits from memory, so they cost nothing between commits.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from server.store.database import Database
from server.swarm.store.interface import (
    Change,
    Commit,
    Compacted,
    Condition,
    ConditionFailed,
    Entry,
    LeaseEnded,
    Write,
    check_bounds,
)

# The single row of ``revision`` is the revision of the store; ``ends`` of a lease is in seconds since the epoch.
MIGRATIONS = (
    (
        "CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL,"
        " lease INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX entries_by_lease ON entries (lease) WHERE lease != 0",
        "CREATE TABLE revision (current INTEGER NOT NULL)",
        "INSERT INTO revision VALUES (1)",
        "CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, seconds INTEGER NOT NULL, ends REAL NOT NULL)",
    ),
)
#: The number of commits that a watch can begin with.
HISTORY = 1000


class _Watch:
    """The queue of one watch."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.queue: asyncio.Queue[Commit | None] = asyncio.Queue()

    def pass_on(self, commit: Commit) -> None:
        changes = [change for change in commit.changes if change.key.startswith(self.prefix)]
        self.queue.put_nowait(Commit(commit.revision, changes))


class SqliteStore:
    """See ``interface.Store``. Call ``open`` first."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS)
        self._history: deque[Commit] = deque(maxlen=HISTORY)
        #: The revision before the first commit of the history.
        self._begin = 0
        self._watches: set[_Watch] = set()
        self._leases: asyncio.Task[None] | None = None
        self._renewed = asyncio.Event()
        # Commits reach the watches in the order of their revisions.
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        self._begin = await self._database.read(_current)
        self._leases = asyncio.create_task(self._end_leases(), name="swarm-leases")

    async def close(self) -> None:
        if self._leases is not None:
            self._leases.cancel()
            await asyncio.gather(self._leases, return_exceptions=True)
        for watch in self._watches:
            watch.queue.put_nowait(None)
        await asyncio.to_thread(self._database.close)

    async def range(self, prefix: str) -> tuple[Sequence[Entry], int]:
        def work(connection: sqlite3.Connection) -> tuple[list[Entry], int]:
            # One statement reads one state of the file, a transaction of two reads both from it.
            connection.execute("BEGIN")
            try:
                rows = connection.execute(
                    "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key",
                    (prefix, _after(prefix)),
                )
                return [Entry(key, bytes(value), revision) for key, value, revision in rows], _current(connection)
            finally:
                connection.execute("COMMIT")

        return await self._database.read(work)

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        check_bounds(conditions, writes)
        return await asyncio.shield(self._commit(conditions, writes))

    async def _commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        frees = all(write.value is None for write in writes)
        work = partial(_execute, conditions=conditions, writes=writes)
        async with self._lock:
            commit = await self._database.write(work, frees=frees)
            self._publish(commit)
        return commit.revision

    def watch(self, prefix: str, after: int) -> AsyncIterator[Commit]:
        # Registered now, not at the first ``anext``: no commit in between is lost.
        watch = _Watch(prefix)
        missed = after < self._begin
        for commit in self._history:
            if commit.revision > after:
                watch.pass_on(commit)
        self._watches.add(watch)
        return self._commits(watch, missed=missed)

    async def _commits(self, watch: _Watch, *, missed: bool) -> AsyncIterator[Commit]:
        try:
            if missed:
                raise Compacted
            while (commit := await watch.queue.get()) is not None:
                yield commit
        finally:
            self._watches.discard(watch)

    def _publish(self, commit: Commit) -> None:
        if len(self._history) == HISTORY:
            self._begin = self._history[0].revision
        self._history.append(commit)
        for watch in self._watches:
            watch.pass_on(commit)

    # leases

    async def grant(self, seconds: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            made = connection.execute(
                "INSERT INTO leases (seconds, ends) VALUES (?, ?)", (seconds, time.time() + seconds)
            ).lastrowid
            assert made is not None
            return made

        lease = await self._database.write(work)
        self._renewed.set()
        return lease

    async def keep_alive(self, lease: int) -> None:
        def work(connection: sqlite3.Connection) -> bool:
            now = time.time()
            return bool(
                connection.execute(
                    "UPDATE leases SET ends = ? + seconds WHERE id = ? AND ends > ?", (now, lease, now)
                ).rowcount
            )

        if not await self._database.write(work):
            raise LeaseEnded
        self._renewed.set()

    async def revoke(self, lease: int) -> None:
        await asyncio.shield(self._revoke([lease]))

    async def _revoke(self, leases: Sequence[int]) -> None:
        async with self._lock:
            commit = await self._database.write(lambda connection: _end(connection, leases), frees=True)
            if commit is not None:
                self._publish(commit)

    async def _end_leases(self) -> None:
        while True:
            self._renewed.clear()
            ends = await self._database.read(lambda connection: list(connection.execute("SELECT id, ends FROM leases")))
            now = time.time()
            over = [lease for lease, end in ends if end <= now]
            if over:
                await asyncio.shield(self._revoke(over))
                continue
            seconds = min((end - now for _, end in ends), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._renewed.wait()


def _after(prefix: str) -> str:
    """The first key behind all that begin with ``prefix``. Keys are ASCII."""
    return prefix + "\x7f"


def _current(connection: sqlite3.Connection) -> int:
    revision: int = connection.execute("SELECT current FROM revision").fetchone()[0]
    return revision


def _execute(connection: sqlite3.Connection, conditions: Sequence[Condition], writes: Sequence[Write]) -> Commit:
    for condition in conditions:
        row = connection.execute("SELECT revision FROM entries WHERE key = ?", (condition.key,)).fetchone()
        if (0 if row is None else row[0]) != condition.revision:
            raise ConditionFailed
    revision = _next(connection)
    changes = []
    for write in writes:
        if write.value is None:
            if not connection.execute("DELETE FROM entries WHERE key = ?", (write.key,)).rowcount:
                continue
        else:
            if write.lease and not connection.execute("SELECT 1 FROM leases WHERE id = ?", (write.lease,)).fetchone():
                raise LeaseEnded
            connection.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                " value = excluded.value, revision = excluded.revision, lease = excluded.lease",
                (write.key, write.value, revision, write.lease),
            )
        changes.append(Change(write.key, write.value))
    return Commit(revision, changes)


def _end(connection: sqlite3.Connection, leases: Sequence[int]) -> Commit | None:
    """Ends leases; the commit of their entries' deletion, None if they had none."""
    keys: list[str] = []
    for lease in leases:
        keys += (key for (key,) in connection.execute("SELECT key FROM entries WHERE lease = ?", (lease,)))
        connection.execute("DELETE FROM entries WHERE lease = ?", (lease,))
        connection.execute("DELETE FROM leases WHERE id = ?", (lease,))
    return Commit(_next(connection), [Change(key, None) for key in keys]) if keys else None


def _next(connection: sqlite3.Connection) -> int:
    revision: int = connection.execute("UPDATE revision SET current = current + 1 RETURNING current").fetchone()[0]
    return revision
