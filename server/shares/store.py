"""The database of accounts: what containers have used by day, and what is known of runs (``accounts.db``)."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.store.database import Database

# Only append to the list. ``runs`` has the counters of running containers when they were read last, and when a
# container with an idle limit was busy last; times are ns since the epoch.
_MIGRATIONS = (
    (
        "CREATE TABLE usage (day TEXT NOT NULL, owner TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL,"
        " cpu_seconds REAL NOT NULL, memory_gib_hours REAL NOT NULL, gpu_hours REAL NOT NULL,"
        " disk_bytes INTEGER NOT NULL, received_bytes INTEGER NOT NULL, sent_bytes INTEGER NOT NULL,"
        " PRIMARY KEY (day, container)) WITHOUT ROWID",
        "CREATE TABLE runs (container TEXT PRIMARY KEY, started_ns INTEGER NOT NULL, read_ns INTEGER NOT NULL,"
        " cpu_ns INTEGER NOT NULL, memory INTEGER NOT NULL, received INTEGER NOT NULL, sent INTEGER NOT NULL)"
        " WITHOUT ROWID",
        "CREATE TABLE busy (container TEXT PRIMARY KEY, started_ns INTEGER NOT NULL, busy_ns INTEGER NOT NULL)"
        " WITHOUT ROWID",
    ),
)
_USED = ("cpu_seconds", "memory_gib_hours", "gpu_hours", "disk_bytes", "received_bytes", "sent_bytes")
_ADD = (
    "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, container) DO UPDATE SET"
    " name = excluded.name, cpu_seconds = cpu_seconds + excluded.cpu_seconds,"
    " memory_gib_hours = memory_gib_hours + excluded.memory_gib_hours, gpu_hours = gpu_hours + excluded.gpu_hours,"
    " disk_bytes = max(disk_bytes, excluded.disk_bytes),"
    " received_bytes = received_bytes + excluded.received_bytes, sent_bytes = sent_bytes + excluded.sent_bytes"
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one container has used on one day (UTC, ``2026-01-31``). ``disk_bytes``: the most of its layer."""

    day: str
    owner: str
    container: str
    name: str
    cpu_seconds: float = 0.0
    memory_gib_hours: float = 0.0
    gpu_hours: float = 0.0
    disk_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of the run that began at ``started_ns``, as they were at ``read_ns``."""

    started_ns: int
    read_ns: int
    cpu_ns: int = 0
    memory: int = 0
    received: int = 0
    sent: int = 0


class Store:
    """Every call returns after the commit."""

    def __init__(self, root: Path) -> None:
        self._database = Database(root / "accounts.db", _MIGRATIONS)

    def close(self) -> None:
        self._database.close()

    async def add(self, rows: Sequence[Usage], counters: Mapping[str, Counters]) -> None:
        """Adds to the sums of days, and replaces the counters of runs, in one transaction."""
        values = [
            (
                row.day, row.owner, row.container, row.name, row.cpu_seconds, row.memory_gib_hours, row.gpu_hours,
                row.disk_bytes, row.received_bytes, row.sent_bytes,
            )
            for row in rows
        ]  # fmt: skip
        runs = [
            (id, each.started_ns, each.read_ns, each.cpu_ns, each.memory, each.received, each.sent)
            for id, each in counters.items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_ADD, values)
            connection.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", runs)

        if values or runs:
            await self._database.write(work)

    async def runs(self) -> dict[str, Counters]:
        def work(connection: sqlite3.Connection) -> dict[str, Counters]:
            return {row[0]: Counters(*row[1:]) for row in connection.execute("SELECT * FROM runs")}

        return await self._database.read(work)

    async def busy(self) -> dict[str, tuple[int, int]]:
        """By container: the start of its run, and when it was busy last."""

        def work(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
            return {row[0]: (row[1], row[2]) for row in connection.execute("SELECT * FROM busy")}

        return await self._database.read(work)

    async def put_busy(self, changed: Mapping[str, tuple[int, int]]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            rows = [(id, *times) for id, times in changed.items()]
            connection.executemany("INSERT OR REPLACE INTO busy VALUES (?, ?, ?)", rows)

        if changed:
            await self._database.write(work)

    async def forget(self, container: str) -> None:
        """A container was removed: its sums stay."""

        def work(connection: sqlite3.Connection) -> None:
            for table in ("runs", "busy"):
                connection.execute(f"DELETE FROM {table} WHERE container = ?", (container,))

        await self._database.write(work, frees=True)

    async def expire(self, first: str) -> None:
        """Removes the sums of days before ``first``."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM usage WHERE day < ?", (first,))

        await self._database.write(work, frees=True)

    async def usage(self, *, first: str = "", owner: str | None = None, most: int = -1) -> list[Usage]:
        """What containers used from the day ``first`` on, by day and owner. ``owner``: also of its jobs; None: of all.
        ``most``: how many rows; -1: all."""
        return await self._rows("*", "ORDER BY day, owner, name, container LIMIT ?", first, owner, most)

    async def sums(self, *, first: str = "", owner: str | None = None) -> list[Usage]:
        """The same for all containers of an owner together: a row for each day and owner."""
        columns = ", ".join(("day", "owner", "''", "''", *(f"sum({name})" for name in _USED)))
        return await self._rows(columns, "GROUP BY day, owner ORDER BY day, owner", first, owner)

    async def _rows(self, columns: str, order: str, first: str, owner: str | None, *more: int) -> list[Usage]:
        def work(connection: sqlite3.Connection) -> list[Usage]:
            condition = "" if owner is None else " AND (owner = ? OR owner LIKE ? ESCAPE '\\')"
            owners = [] if owner is None else [owner, _pattern(owner) + ":%"]
            rows = connection.execute(
                f"SELECT {columns} FROM usage WHERE day >= ?{condition} {order}",
                (first, *owners, *more),
            )
            return [Usage(*row) for row in rows]

        return await self._database.read(work)


def _pattern(text: str) -> str:
    """A text for LIKE."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
