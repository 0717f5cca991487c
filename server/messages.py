"""Progress and errors for clients, independent of the transport: JSON messages of a streamed answer."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from engine.common.errors import WharfError
from engine.common.system.reserve import disk_error


def message_of(error: BaseException) -> str:
    """Return the client's view of an error. An internal error shows no detail."""
    error = disk_error(error)
    if isinstance(error, WharfError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()
    return "internal error: see the daemon's log"


def error_message(error: BaseException, code: int | None = None) -> dict[str, Any]:
    """Return the message that ends a failed stream."""
    text = message_of(error)
    detail: dict[str, Any] = {"message": text}
    if code is not None:
        detail = {"code": code, "message": text}
    return {"errorDetail": detail, "error": text}


class Progress:
    """A queue between a worker that reports and the stream that sends.

    ``progress = Progress(); json_stream(progress.run(work(progress)))`` (:mod:`server.http.streams`).
    """

    def __init__(self, limit: int = 1024) -> None:
        self._queue: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(limit)

    async def put(self, message: Mapping[str, Any]) -> None:
        """Wait while the client doesn't read, so that the worker is slowed down."""
        await self._queue.put(message)

    def offer(self, message: Mapping[str, Any]) -> None:
        """Drop the message if the client is slow: for progress bars, which the next message replaces."""
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(message)

    async def run(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[Mapping[str, Any]]:
        """Yield what ``work`` puts, until it ends; raise what it raises; cancel it when the reader disconnects."""

        async def worker() -> None:
            try:
                await work
            finally:
                await self._queue.put(None)

        task = asyncio.ensure_future(worker())
        try:
            while (message := await self._queue.get()) is not None:
                yield message
            await task
        finally:
            if not task.done():
                task.cancel()
                # Release producers that wait for space in the queue.
                while not self._queue.empty():
                    self._queue.get_nowait()
                await asyncio.gather(task, return_exceptions=True)
