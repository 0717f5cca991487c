"""Stores when the classic builder first applied an instruction that changes only metadata.

dockerd keeps an image per instruction, so a later build finds the creation time in its cache. Wharf stores only the
time, by a key of the instruction and everything below it.
"""

import logging
import sqlite3
from collections.abc import Mapping

from engine.common.system.sqlite import LazyDatabase

log = logging.getLogger("wharf.build")

MAX_MOMENTS = 10_000
"""The most instructions stored; the oldest are deleted first."""

_SCHEMA = "CREATE TABLE IF NOT EXISTS moments (key TEXT PRIMARY KEY, created INTEGER NOT NULL);"


class InstructionTimes:
    """Times by key, in Unix nanoseconds."""

    def __init__(self, path: str) -> None:
        self._database = LazyDatabase(path, _SCHEMA)

    async def get(self, key: str) -> int | None:
        """Return the time of an instruction; ``None`` if it is unknown."""
        try:
            row = await self._database.do(
                lambda db: db.execute("SELECT created FROM moments WHERE key = ?", (key,)).fetchone()
            )
        except sqlite3.Error as error:
            log.warning("times of classic builds: %s", error)
            return None
        return int(row[0]) if row else None

    async def put(self, times: Mapping[str, int]) -> None:
        """Store times durably. On a full disk the times are only logged as lost: the next build misses its cache."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany("INSERT OR REPLACE INTO moments VALUES (?, ?)", list(times.items()))
                oldest = "SELECT key FROM moments ORDER BY created DESC LIMIT -1 OFFSET ?"
                db.execute(f"DELETE FROM moments WHERE key IN ({oldest})", (MAX_MOMENTS,))
            except sqlite3.Error:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

        try:
            await self._database.do(work)
        except sqlite3.Error as error:
            log.warning("times of classic builds: %s", error)

    async def clear(self) -> None:
        """Delete all times."""
        try:
            await self._database.do(lambda db: db.execute("DELETE FROM moments"))
        except sqlite3.Error as error:
            log.warning("times of classic builds: %s", error)

    def close(self) -> None:
        """Close the database. Blocks."""
        self._database.close()
