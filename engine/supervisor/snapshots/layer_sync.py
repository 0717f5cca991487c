"""Tracks layers that may not be on the disk yet.

The kernel writes the files of a layer at any time, and their metadata possibly before their data: after a power failure
a complete layer may have empty files. So the write that commits a layer also records it as unsynced, and the record is
removed after a later sync of its file system in the background. A layer that is still recorded after a reboot is
removed, and unpacked from its blob again when it is needed.
"""

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable

from engine.common.system import linux
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)

#: Seconds until a layer is synced: by then the kernel has written most of it, and one sync covers many layers.
DELAY = 30.0
#: The same where blobs are dropped: two copies of each layer are on the disk until then.
SHORT_DELAY = 3.0


class LayerSync:
    def __init__(self, database: Database, root: str, delay: float) -> None:
        """``root``: a directory on the file system of the snapshots. ``delay``: seconds."""
        self._delay = delay
        #: Called when layers have reached the disk.
        self.on_synced: Callable[[], None] = lambda: None
        self._db = database
        self._root = root
        self._timer: asyncio.TimerHandle | None = None
        self._removal: asyncio.Task[None] | None = None
        self._busy = False
        self._closed = False
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            self.boot = file.read().strip()

    def record(self, connection: sqlite3.Connection, number: int) -> None:
        """Records the layer, inside the write that commits it."""
        connection.execute("INSERT OR REPLACE INTO unsettled VALUES (?, ?)", (number, self.boot))

    def unsynced(self, connection: sqlite3.Connection) -> list[int]:
        """The layers that were not synced before an earlier boot ended."""
        rows = connection.execute("SELECT number FROM unsettled WHERE boot <> ?", (self.boot,))
        return [number for (number,) in rows]

    def clear(self, connection: sqlite3.Connection) -> None:
        """Removes their records, inside the write that removes the layers."""
        connection.execute("DELETE FROM unsettled WHERE boot <> ?", (self.boot,))

    def schedule(self) -> None:
        """Schedules a sync; a layer may have been committed."""
        if self._timer is None and not self._busy and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._start)

    def close(self) -> None:
        """The next supervisor syncs the remaining layers. Doesn't wait for a running sync, which may take long."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._removal is not None:
            self._removal.cancel()

    def _start(self) -> None:
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
                log.warning("snapshots: can't sync %s: %s", self._root, error.strerror)
                return
            self._removal = asyncio.create_task(self._remove_records([number for (number,) in found]))

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

        # A daemon thread, not an executor's: the process's exit would wait for that.
        threading.Thread(target=work, name="sync-layers", daemon=True).start()

    async def _remove_records(self, numbers: list[int]) -> None:
        def write(connection: sqlite3.Connection) -> bool:
            connection.executemany("DELETE FROM unsettled WHERE number = ?", [(number,) for number in numbers])
            return connection.execute("SELECT 1 FROM unsettled").fetchone() is not None

        if await self._db.write(write, frees=True):  # layers were committed meanwhile
            self.schedule()
        self.on_synced()


def sync_file_system(path: str) -> None:
    """Blocks until all of the path's file system is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        linux.syncfs(fd)
    finally:
        os.close(fd)
