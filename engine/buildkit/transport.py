"""gRPC over a connection that was hijacked from HTTP/1.1.

``POST /grpc`` and ``POST /session`` answer ``101`` and speak HTTP/2 from then on. gRPC's core neither adopts
a connected socket as a server nor dials over one as a client, so both ends meet on a private unix socket and
the bytes are spliced. The socket lies in a directory of mode 0700, so that nobody else can reach it.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable

CHUNK = 256 * 1024
"""Bytes moved at once: large enough that a context's upload isn't bound by the event loop."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies until end of file, then passes the half-close on."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (ConnectionError, OSError, RuntimeError):
        # The other side went away: closing both ends is the splice's business.
        return


async def splice(left: Stream, right: Stream, *, early: bytes = b"") -> None:
    """Joins two connections until either side has ended, then closes both.

    ``early``: bytes that were read from ``left`` before and belong in front of what it sends.
    """
    if early:
        right[1].write(early)
    pumps = [
        asyncio.create_task(_pump(left[0], right[1])),
        asyncio.create_task(_pump(right[0], left[1])),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in (left[1], right[1]):
            writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await writer.wait_closed()


class Rendezvous:
    """A private unix socket on which one side listens and hijacked connections are joined to it.

    As a server's address (``/grpc``): gRPC listens on ``path``, :meth:`join` dials it.
    As a client's address (``/session``): :meth:`listen` accepts gRPC's dial and joins it to the connection.
    """

    def __init__(self, parent: str) -> None:
        os.makedirs(parent, mode=0o711, exist_ok=True)
        self._directory = tempfile.mkdtemp(prefix="h2c-", dir=parent)
        self.path = os.path.join(self._directory, "s")

    @property
    def address(self) -> str:
        """gRPC's name of the socket."""
        return f"unix:{self.path}"

    async def join(self, connection: Stream, *, early: bytes = b"") -> None:
        """Serves ``connection`` from the listener on this socket until either ends."""
        await splice(connection, await asyncio.open_unix_connection(self.path), early=early)

    async def listen(self, connection: Stream, *, early: bytes = b"") -> "Listening":
        """Accepts one dial and joins it to ``connection``; a second dial is refused by closing it."""
        ended = asyncio.Event()
        taken = False

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal taken
            if taken:
                writer.close()
                return
            taken = True
            try:
                await splice(connection, (reader, writer), early=early)
            finally:
                ended.set()

        server = await asyncio.start_unix_server(accept, self.path)
        return Listening(server, ended, self.close)

    def close(self) -> None:
        """Removes the socket and its directory."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self._directory)


class Listening:
    """One accepted client connection on a :class:`Rendezvous`."""

    def __init__(self, server: asyncio.Server, ended: asyncio.Event, cleanup: Callable[[], None]) -> None:
        self._server = server
        self._ended = ended
        self._cleanup = cleanup

    def ended(self) -> Awaitable[bool]:
        """Awaits the end of the joined connection."""
        return self._ended.wait()

    def close(self) -> None:
        """Stops listening and removes the socket."""
        self._server.close()
        self._cleanup()
