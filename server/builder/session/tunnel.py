"""A connection inside a call: Control's Session, for clients that can't use ``POST /session``."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

CHUNK = 64 * 1024
"""The most bytes in a message to the client."""


async def carry(
    incoming: AsyncIterator[bytes], serve: Callable[[socket.socket], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Connect a socket, passed to ``serve``, which takes it over, with the ``incoming`` bytes and the yielded bytes.

    Ends when either side closes. Raises what ``serve`` raises before it takes the socket over.
    """
    own, inner = socket.socketpair()
    for end in (own, inner):
        end.settimeout(0)
    reader, writer = await asyncio.open_connection(sock=own)

    async def inward() -> None:
        async for data in incoming:
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def serving() -> None:
        try:
            await serve(inner)
        except Exception:
            inner.close()
            raise

    served, pump = asyncio.create_task(serving()), asyncio.create_task(inward())
    try:
        while data := await _read(reader):
            yield data
        await served
    finally:
        writer.close()
        pump.cancel()
        served.cancel()
        await asyncio.gather(pump, served, return_exceptions=True)
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Read a piece; return nothing at the end, also if the other end closed with unread data."""
    try:
        return await reader.read(CHUNK)
    except ConnectionError:
        return b""
