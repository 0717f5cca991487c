"""SQLite databases that one process uses exclusively. ``LazyDatabase`` opens its database at the first use and runs all
statements in threads."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from engine.common.system import private

T = TypeVar("T")


def connect(path: str, *, timeout: float = 5.0, cached_statements: int = 128) -> sqlite3.Connection:
    """A connection without implicit transactions, for any thread. It waits ``timeout`` seconds for a lock.

    With "unix-excl", SQLite keeps the index of the write-ahead log in memory that the connections of this process
    share, and refuses other processes ("database is locked") meanwhile. Its default is a mapped file, ``-shm``, of
    which it allocates one byte per page of 4 KiB: on a full file system with smaller blocks, access to the rest of a
    page kills the process with SIGBUS. See https://www.sqlite.org/vfs.html, "unix-excl".
    """
    return sqlite3.connect(
        f"file:{quote(os.path.abspath(path))}?vfs=unix-excl",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=timeout,
        cached_statements=cached_statements,
    )


class LazyDatabase:
    """``schema`` creates missing tables. Runs one function at a time."""

    def __init__(self, path: str, schema: str) -> None:
        self._path, self._schema = path, schema
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            private.make_directory(os.path.dirname(self._path), 0o710)
            private.make_file(self._path)
            self._connection = connect(self._path)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(self._schema)
        return self._connection

    async def do(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Runs ``function`` with the connection and returns its result; each of its statements is a transaction, unless
        it begins one.

        :raises sqlite3.Error: the database can't be opened, read or written.
        """

        def work() -> T:
            with self._lock:
                return function(self._open())

        return await asyncio.to_thread(work)

    def close(self) -> None:
        """Closes the connection; the next use opens it again. Blocks."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
