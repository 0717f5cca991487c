"""Re-creates the bytes of blobs that have no file, and recovers recipes after a crash."""

import asyncio
import hashlib
import logging
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from engine.common.errors import Kind, WharfError, internal, not_found
from engine.common.files.writing import write_all
from engine.supervisor.blobs import BlobFiles
from engine.supervisor.ingest import client_error
from engine.supervisor.recipes import sources
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)

#: Seconds that re-created bytes are kept after the last open: a client may read them in many calls.
_KEEP = 10.0
#: Blobs that are re-created at a time.
_WORKERS = 2

#: The directory of a snapshot's files, by the snapshotter's name and the snapshot's number.
TreeOf = Callable[[str, int], str]


def rebuild(files: BlobFiles, digest: str, tree: str, write: Callable[[bytes], object]) -> None:
    """Passes the blob's bytes to ``write``, from the recipe on the disk; the digest is verified after the last byte.
    Blocks.

    :raises WharfError: INTERNAL: the blob can't be re-created.
    """
    from engine.common.layers import recipe

    hashed = hashlib.new(digest.partition(":")[0])

    def put(data: bytes) -> None:
        hashed.update(data)
        write(data)

    try:
        fd = os.open(files.recipe(digest), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise internal(f"its recipe: {(error.strerror or '').lower()}") from None
    try:
        recipe.rebuild(fd, tree, put)
    finally:
        os.close(fd)
    if hashed.hexdigest() != digest.partition(":")[2]:
        raise recipe.differs()


class Stopped(Exception):
    """The supervisor ends."""


class Recreated:
    """Opens blobs by their recipes."""

    def __init__(self, database: Database, files: BlobFiles, tree_of: TreeOf) -> None:
        self._db = database
        self._files = files
        self._tree_of = tree_of
        self._made: dict[str, asyncio.Task[int]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._workers: ThreadPoolExecutor | None = None
        self._closed = threading.Event()

    async def open(self, digest: str) -> int:
        """A descriptor of the verified bytes, with a position of its own; the caller closes it.

        :raises WharfError: NOT_FOUND: no recipe; INTERNAL: the bytes can't be re-created; RESOURCE_EXHAUSTED: the disk
            is full.
        """
        source = self._db.read(lambda connection: sources.source(connection, digest))
        if source is None or self._closed.is_set():
            raise not_found(f"content {digest}: not found")
        task = self._made.get(digest)
        if task is None:
            task = self._made[digest] = asyncio.create_task(self._make(digest, source), name=f"recreate {digest}")
            task.add_done_callback(lambda done: self._keep(digest, done))
        fd = await asyncio.shield(task)
        if digest in self._timers:
            self._keep(digest, task)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)

    async def recover(self) -> None:
        """At the start, after snapshots and blobs were recovered: removes recipes whose snapshot is lost, with blobs
        that have no file; completes removals of files; removes recipes without a row."""
        there = await asyncio.to_thread(self._files.recipes)

        def write(connection: sqlite3.Connection) -> None:
            known = sources.recreatable(connection)
            for digest in known:
                if digest in there and sources.source(connection, digest) is not None:
                    self._files.discard(digest)
                    continue
                connection.execute("DELETE FROM recipe WHERE digest = ?", (digest,))
                if not self._files.exists(digest):
                    log.error("content: %s can't be re-created any more: its snapshot or its recipe is lost", digest)
                    connection.execute("DELETE FROM blob WHERE digest = ?", (digest,))
                    connection.execute("DELETE FROM content WHERE digest = ?", (digest,))
            for digest in there - sources.recreatable(connection):
                self._files.discard_recipe(digest)

        await self._db.write(write)
        await asyncio.to_thread(self._files.empty_trash)

    async def close(self) -> None:
        """Stops running re-creations."""
        self._closed.set()
        for timer in self._timers.values():
            timer.cancel()
        await asyncio.gather(*self._made.values(), return_exceptions=True)
        for digest in list(self._made):
            self._forget(digest)
        if self._workers is not None:
            self._workers.shutdown(wait=False)

    async def _make(self, digest: str, source: sources.Source) -> int:
        if self._workers is None:
            self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="recreate")
        tree = self._tree_of(source.snapshotter, source.number)
        began = time.monotonic()
        fd = await asyncio.get_running_loop().run_in_executor(self._workers, self._write, digest, tree)
        log.debug("content: re-created %s in %.0f ms", digest, (time.monotonic() - began) * 1000)
        return fd

    def _write(self, digest: str, tree: str) -> int:
        """A descriptor of an unnamed file with the bytes."""
        with tempfile.TemporaryFile(buffering=0, dir=self._files.trash) as file:

            def write(data: bytes) -> None:
                if self._closed.is_set():
                    raise Stopped
                write_all(file.fileno(), data)

            try:
                rebuild(self._files, digest, tree, write)
            except Stopped:
                raise WharfError(Kind.UNAVAILABLE, f"content {digest}: the supervisor ends: unavailable") from None
            except OSError as error:
                raise client_error(error, digest) from None
            except WharfError as error:
                log.error("content: %s can't be re-created: %s", digest, error.message)
                message = f"content {digest} can't be re-created: {error.message}: remove the image and get it again"
                raise WharfError(Kind.INTERNAL, message) from None
            return os.dup(file.fileno())

    def _keep(self, digest: str, task: "asyncio.Task[int]") -> None:
        """Closes the file ``_KEEP`` seconds after the last open. Forgets a re-creation that has failed: the next
        open tries it again."""
        if (timer := self._timers.pop(digest, None)) is not None:
            timer.cancel()
        if task.cancelled() or task.exception() is not None:
            self._made.pop(digest, None)
        elif not self._closed.is_set():
            self._timers[digest] = asyncio.get_running_loop().call_later(_KEEP, self._forget, digest)

    def _forget(self, digest: str) -> None:
        self._timers.pop(digest, None)
        task = self._made.pop(digest, None)
        if task is not None and not task.cancelled() and task.exception() is None:
            os.close(task.result())
