"""The messages of dockerd's JSON progress streams for long operations."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from server.units import human_size

Message = Mapping[str, Any]

#: Messages queued for a slow client. When it is full, progress bars are dropped, and other messages block the work.
_QUEUE = 1024


def bar_text(current: int, total: int) -> str:
    """The progress bar as text, which old clients print."""
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current):>8}"
    half = min(50, current * 50 // total)
    box = f"[{'=' * half}>{' ' * (50 - half)}] "
    if current > total:
        return f"{box}{human_size(current):>8}"
    return f"{box}{human_size(current):>8}/{human_size(total)}"


class Report:
    """Passes messages from the work to the stream: ``report.run(work(report))``."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(_QUEUE)

    async def put(self, message: Message) -> None:
        await self._queue.put(message)

    async def status(self, text: str, id: str = "") -> None:
        """A line; with an id, the object of the operation."""
        await self._queue.put({"status": text, "id": id} if id else {"status": text})

    async def part(self, text: str, id: str) -> None:
        """The state of a part (a layer)."""
        await self._queue.put({"status": text, "progressDetail": {}, "id": id})

    async def stream(self, text: str) -> None:
        await self._queue.put({"stream": text})

    async def aux(self, value: Any) -> None:
        await self._queue.put({"progressDetail": {}, "aux": value})

    def offer(self, text: str, id: str) -> None:
        """A part's state, without waiting; lost only if the client is far behind."""
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait({"status": text, "progressDetail": {}, "id": id})

    def bar(self, text: str, id: str, current: int, total: int) -> None:
        """A part's progress. Dropped for a slow client: the next one replaces it."""
        if self._queue.qsize() > _QUEUE // 2:
            return
        detail = {"current": current, "total": total} if total > 0 else {"current": current}
        self._queue.put_nowait(
            {"status": text, "progressDetail": detail, "progress": bar_text(current, total), "id": id}
        )

    async def run(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[Message]:
        """Yields the messages until the work ends; raises its error. Cancels the work when the reader stops."""

        async def whole() -> None:
            try:
                await work
            finally:
                with suppress(asyncio.QueueFull):
                    self._queue.put_nowait(None)

        task = asyncio.create_task(whole())
        try:
            while True:
                getter = asyncio.ensure_future(self._queue.get())
                await asyncio.wait((getter, task), return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    message = getter.result()
                    if message is None:
                        break
                    yield message
                    continue
                getter.cancel()
                await asyncio.gather(getter, return_exceptions=True)
                while not self._queue.empty():
                    if (message := self._queue.get_nowait()) is not None:
                        yield message
                break
            await task
        finally:
            if not task.done():
                task.cancel()
                while not task.done():
                    while not self._queue.empty():
                        self._queue.get_nowait()
                    await asyncio.wait((task,), timeout=0.05)
            if not task.cancelled():
                task.exception()
