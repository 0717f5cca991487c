"""When the classic builder first applied instructions that change metadata only.

dockerd keeps an image for each instruction, whose creation time a later build finds in its cache. Here the time alone
is kept, by a key of the instruction and all below it.
"""

import logging
import sqlite3
from collections.abc import Mapping

from engine.common.system.sqlite import LazyDatabase

log = logging.getLogger("wharf.build")

MAX_MOMENTS = 10_000
"""Instructions that are remembered; beyond them, the oldest are forgotten."""

_SCHEMA = "CREATE TABLE IF NOT EXISTS moments (key TEXT PRIMARY KEY, created INTEGER NOT NULL);"


class Moments:
    """Times by key, in Unix nanoseconds."""

    def __init__(self, path: str) -> None:
        self._database = LazyDatabase(path, _SCHEMA)

    async def get(self, key: str) -> int | None:
        """The time of an instruction; ``None`` for one that is not known."""
        try:
            row = await self._database.do(
                lambda db: db.execute("SELECT created FROM moments WHERE key = ?", (key,)).fetchone()
            )
        except sqlite3.Error as error:
            log.warning("times of classic builds: %s", error)
            return None
        return int(row[0]) if row else None

    async def put(self, times: Mapping[str, int]) -> None:
        """Remembers times, durable when this returns. A full disk only costs the next build its cache."""

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
        """Forgets all of them."""
        try:
            await self._database.do(lambda db: db.execute("DELETE FROM moments"))
        except sqlite3.Error as error:
            log.warning("times of classic builds: %s", error)

    def close(self) -> None:
        """Blocks."""
        self._database.close()
