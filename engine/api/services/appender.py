"""Writes an ingest through a descriptor of its file (``engine.api.extensions``), in a thread.

The Content.Write call stays open beside it: the caller's ``report`` tells the server the size of the file.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

from engine.common.system import fds

#: The first piece of at least this size opens the descriptor: for less, one gRPC message costs less.
LARGE = 256 << 10
#: Seconds between two reports, for readers that follow the write.
_REPORT_SECONDS = 0.02


class Appender:
    """Appends to an ingest's file. One piece is written in a thread while the caller gets the next one.

    ``report(offset)`` tells the server the size of the file. One report is under way at a time; the next one covers
    all pieces that were written meanwhile.
    """

    def __init__(self, fd: int, offset: int, report: Callable[[int], Awaitable[None]]) -> None:
        self._fd = fd
        self._offset = offset  # the end of the bytes passed to ``write``
        self._written_to = self._reported = offset
        self._report = report
        self._pending: asyncio.Future[None] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()  # a caller waits for the report
        self._closed = False

    async def write(self, data: memoryview) -> None:
        """Returns before the bytes are written; an error is raised by the next call.

        :raises OSError: an earlier piece could not be written (``restart`` or ``close`` then).
        :raises WharfError: the server has ended the Content.Write call.
        """
        await self._wait_written()
        end = self._offset + len(data)
        self._pending = asyncio.get_running_loop().run_in_executor(None, fds.pwrite_all, self._fd, data, self._offset)
        self._pending.add_done_callback(lambda done: self._on_written(done, end))
        self._offset = end

    def _on_written(self, done: "asyncio.Future[None]", end: int) -> None:
        if not done.cancelled() and done.exception() is None:
            self._written_to = end
            if self._reporting is None and not self._closed:
                self._reporting = asyncio.create_task(self._run_reports())
                self._reporting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _run_reports(self) -> None:
        while self._reported < self._written_to:
            end = self._written_to
            await self._report(end)
            self._reported = end
            if self._reported < self._offset and not self._hurry.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_REPORT_SECONDS):
                        await self._hurry.wait()
        self._reporting = None

    async def _wait_written(self) -> None:
        if self._pending is not None:
            await asyncio.shield(self._pending)
            self._pending = None
        if self._reporting is not None and self._reporting.done():
            self._reporting.result()

    async def flush(self) -> None:
        """Returns when all bytes are in the file and the server has the report of them.

        :raises OSError, WharfError: see ``write``.
        """
        await self._wait_written()
        self._hurry.set()
        try:
            while (reporting := self._reporting) is not None:
                await asyncio.shield(reporting)
        finally:
            self._hurry.clear()

    async def restart(self) -> None:
        """Begins again at offset 0. When this returns, no thread writes old bytes."""
        await self._wait_idle()
        self._pending = self._reporting = None
        self._offset = self._written_to = self._reported = 0

    async def close(self) -> None:
        self._closed = True
        try:
            await self._wait_idle()
        finally:
            self.drop()

    def drop(self) -> None:
        """Closes the file when no thread writes to it any more."""
        self._closed = True
        self.when_idle(self._close_fd)

    def when_idle(self, action: Callable[[], None]) -> None:
        """Calls ``action`` when no thread writes to the file any more."""
        if self._pending is None or self._pending.done():
            action()
        else:
            self._pending.add_done_callback(lambda _: action())

    def _close_fd(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    async def _wait_idle(self) -> None:
        if self._pending is not None:
            with suppress(Exception):
                await asyncio.shield(self._pending)
        if self._reporting is not None:  # started by the last piece
            self._hurry.set()
            with suppress(Exception):
                await asyncio.shield(self._reporting)
            self._hurry.clear()
