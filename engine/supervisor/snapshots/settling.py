"""Which layers may not be on the disk yet.

The files of a layer reach the disk when the kernel likes, and their metadata may get there before them: after a power
cut a layer that was whole may have empty files. So each is noted in the write that commits it, and struck off when its
file system has been synced, some time later and in the background. What is still noted when the machine has booted
anew is not to be trusted: the layer goes, and is unpacked from its blob when it is needed again.
"""

import asyncio
import logging
import os
import sqlite3
import threading

from engine.common.system import linux
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)

#: Seconds until a layer is synced: the kernel has written most of it by itself then, and many are synced at once.
DELAY = 30.0


class Settling:
    def __init__(self, database: Database, root: str) -> None:
        """``root``: a directory on the file system of the snapshots."""
        self._db = database
        self._root = root
        self._timer: asyncio.TimerHandle | None = None
        self._strike: asyncio.Task[None] | None = None
        self._busy = False
        self._closed = False
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            self.boot = file.read().strip()

    def note(self, connection: sqlite3.Connection, number: int) -> None:
        """In the write that commits the layer."""
        connection.execute("INSERT OR REPLACE INTO unsettled VALUES (?, ?)", (number, self.boot))

    def doubtful(self, connection: sqlite3.Connection) -> list[int]:
        """The layers that an earlier boot has left unsettled."""
        rows = connection.execute("SELECT number FROM unsettled WHERE boot <> ?", (self.boot,))
        return [number for (number,) in rows]

    def forget(self, connection: sqlite3.Connection) -> None:
        """In a write, when the doubtful ones are gone."""
        connection.execute("DELETE FROM unsettled WHERE boot <> ?", (self.boot,))

    def soon(self) -> None:
        """There may be something to settle."""
        if self._timer is None and not self._busy and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self._begin)

    def close(self) -> None:
        """What is not settled is so by the next supervisor. A sync that is under way may take long; nobody waits."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._strike is not None:
            self._strike.cancel()

    def _begin(self) -> None:
        self._timer = None
        found = self._db.read(lambda connection: connection.execute("SELECT number FROM unsettled").fetchall())
        if not found:
            return
        self._busy = True
        loop = asyncio.get_running_loop()

        def done(error: OSError | None) -> None:
            self._busy = False
            if self._closed:
                return
            if error is not None:
                log.warning("snapshots: %s can't be synced: %s", self._root, error.strerror)
                return
            self._strike = asyncio.create_task(self._struck([number for (number,) in found]))

        def work() -> None:
            error = None
            try:
                sync_file_system(self._root)
            except OSError as found:
                error = found
            try:
                loop.call_soon_threadsafe(done, error)
            except RuntimeError:  # the loop has ended meanwhile
                return

        # No executor's thread: the end of the process would wait for it.
        threading.Thread(target=work, name="settle-layers", daemon=True).start()

    async def _struck(self, numbers: list[int]) -> None:
        def write(connection: sqlite3.Connection) -> bool:
            connection.executemany("DELETE FROM unsettled WHERE number = ?", [(number,) for number in numbers])
            return connection.execute("SELECT 1 FROM unsettled").fetchone() is not None

        if await self._db.write(write, frees=True):  # those that were committed meanwhile
            self.soon()


def sync_file_system(path: str) -> None:
    """Returns when all of the path's file system is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        linux.syncfs(fd)
    finally:
        os.close(fd)
