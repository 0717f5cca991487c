"""Back-pressure on one connection: who sends too much isn't read from, who reads too slowly isn't written to."""

import asyncio


class Flow:
    """Reading is paused here; that writing has to wait is told by the transport."""

    __slots__ = ("_reads", "_transport", "_writable")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reads = True
        self._writable = asyncio.Event()
        self._writable.set()

    def pause_reading(self) -> None:
        if self._reads:
            self._reads = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reads:
            self._reads = True
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def write_paused(self) -> bool:
        """The client has not yet taken what was written last."""
        return not self._writable.is_set()

    async def drain(self) -> None:
        """Waits until there is room, or nobody left to write to."""
        await self._writable.wait()
