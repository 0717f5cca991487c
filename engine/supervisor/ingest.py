"""One open write of a blob: appends bytes in a thread, and verifies them at the commit."""

import asyncio
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.common.errors import Kind, WharfError
from engine.common.system import heap
from engine.supervisor.blobs import IngestFile
from engine.supervisor.call import Call
from engine.supervisor.names import check_digest, check_labels

_LARGE = 128 << 10  # a piece that malloc would map from the kernel each time


class Store(Protocol):
    """The part of the content store that an ingest uses."""

    async def commit(self, ingest: "Ingest", digest: str, labels: Mapping[str, str]) -> None: ...
    def sync(self, fd: int) -> None: ...
    def closed(self, ingest: "Ingest") -> None: ...


@dataclass(frozen=True, slots=True)
class Record:
    folder: str
    total: int
    expected: str
    started_ns: int


class Ingest:
    """One open write; always ``close`` it. An uncommitted ingest stays and can be resumed."""

    def __init__(self, content: Store, call: Call, ref: str, record: Record, file: IngestFile) -> None:
        self._content = content
        self.call = call
        self.ref = ref
        self.record = record
        self.file = file
        self._moving = heap.Transfer()
        self._end = file.offset
        self._direct = False  # the client writes into the file directly
        self._pending: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def offset(self) -> int:
        return self._end

    async def digest(self) -> str:
        """The digest of the bytes written so far."""
        await self._written()
        return self.file.digest

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Appends at ``offset``, which must be the ingest's end; 0 restarts it. Returns while the bytes are still being
        written: the next call raises their error.

        OUT_OF_RANGE for any other offset.
        """
        if self._direct and offset > self._end and not data:
            await self._hash_until(offset)
            return
        if offset not in (0, self._end):
            raise WharfError(Kind.OUT_OF_RANGE, f"write @{offset} must occur at current offset {self._end}")
        await self._written()
        if offset == 0 and (self._end > 0 or self._direct):
            await asyncio.to_thread(self.file.truncate)
            self._end = 0
        if data:
            if len(data) >= _LARGE:
                self._moving.begin()
            self._pending = asyncio.get_running_loop().run_in_executor(None, self.file.append, data)
            self._pending.add_done_callback(lambda done: done.cancelled() or done.exception())  # raised by ``_written``
            self._end += len(data)

    def open_descriptor(self) -> int:
        """A descriptor for writing the bytes; a ``write`` without data then reports the file's size."""
        self._direct = True
        return self.file.writable()

    async def _hash_until(self, end: int) -> None:
        await self._written()
        self._moving.begin()
        self._pending = asyncio.get_running_loop().run_in_executor(None, self.file.hash_until, end)
        self._pending.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._end = end

    async def _written(self) -> None:
        """Waits until written data is in the file. RESOURCE_EXHAUSTED: the disk is full."""
        if self._pending is None:
            return
        try:
            await asyncio.shield(self._pending)
        except OSError as error:
            raise client_error(error, self.ref) from None
        self._pending = None

    async def commit(self, size: int, expected: str, labels: Mapping[str, str]) -> str:
        """Returns the digest. FAILED_PRECONDITION: size or digest aren't the expected ones; ALREADY_EXISTS: the blob
        exists."""
        check_labels(labels, "info.Labels")
        if expected:
            check_digest(expected)
        await self._written()
        if size > 0 and size != self.file.offset:
            raise WharfError(
                Kind.FAILED_PRECONDITION,
                f'"{self.ref}" failed size validation: {self.file.offset} != {size}: failed precondition',
            )
        digest = self.file.digest
        if expected and expected != digest:
            raise WharfError(
                Kind.FAILED_PRECONDITION,
                f"unexpected commit digest {digest}, expected {expected}: failed precondition",
            )
        if self._direct and self.file.unhashed():
            raise WharfError(
                Kind.FAILED_PRECONDITION, f'"{self.ref}" has bytes that were not reported: failed precondition'
            )
        fd = self.file.finish()
        try:
            await self._content.commit(self, digest, {name: value for name, value in labels.items() if value})
        finally:
            # Don't wait for the disk: a power failure in these moments loses the blob, which ``recover`` detects.
            self._content.sync(fd)
        return digest

    async def close(self) -> None:
        # The ref is free when the task has ended, even if the caller is cancelled again while it waits.
        if self._closing is None:
            self._moving.end()
            self._closing = asyncio.create_task(self._close())
            self._closing.add_done_callback(lambda _: self._content.closed(self))
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._pending is not None and not self._direct:
            # Its thread may not have started, and acknowledged bytes must not be lost. (A client that writes into the
            # file itself has its bytes there: their hashing may be skipped.)
            await asyncio.wait((self._pending,))
        await asyncio.get_running_loop().run_in_executor(None, self.file.close)


def client_error(error: OSError, ref: str) -> WharfError:
    """The client's error for a failed write."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    kind = Kind.RESOURCE_EXHAUSTED if full else Kind.INTERNAL
    return WharfError(kind, f"write {ref}: {os.strerror(error.errno or 0).lower()}")
