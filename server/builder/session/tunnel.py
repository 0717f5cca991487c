"""A connection inside a call: what a client without ``POST /session`` does with Control's Session."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

CHUNK = 64 * 1024
"""Bytes in one message to the client."""


async def carry(
    incoming: AsyncIterator[bytes], serve: Callable[[socket.socket], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Joins the socket that ``serve`` is given, and owns once it has begun, to ``incoming`` and to who iterates.

    Ends with either. Raises what ``serve`` refuses the connection with.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(0)
    reader, writer = await asyncio.open_connection(sock=ours)

    async def inward() -> None:
        async for data in incoming:
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def serving() -> None:
        try:
            await serve(theirs)
        except Exception:
            theirs.close()
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
    """Nothing at the end, also where the other end was closed before it had read all."""
    try:
        return await reader.read(CHUNK)
    except ConnectionError:
        return b""
