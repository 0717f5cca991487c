"""A blob's bytes past gRPC: our own supervisor gives the descriptor of its file, and they are written or read there.

An extension that a stock containerd lacks: then, and whenever it fails, the bytes go the plain way. The write stays the
gRPC call that it is: it holds the ref, is told how far the file has come (a WRITE without data at that offset), and
commits. The supervisor hashes what it finds in the file; nobody's word is taken for it.

The socket is beside the API's. One request for each connection: a JSON object with ``namespace`` and either ``ref``, of
an ingest that this client writes, or ``digest``, of a blob to be read. The answer carries the descriptor; without one
there is nothing of the kind. With ``extracting`` instead, a layer's digest, it tells how many of its bytes have been
read for a snapshot (``offset``).
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, internal
from engine.common.system import fds

#: A piece from which on the detour pays.
LARGE = 256 << 10
_PIECE = 1 << 20
#: Between two looks at how far an extraction is.
_WATCH_SECONDS = 0.1
#: Between two reports of what came, for those who read it meanwhile.
_REPORT_SECONDS = 0.02

timeouts.define("content.descriptor", 30.0)  # the supervisor's answer


def socket_of(address: str) -> str:
    """Where descriptors are given, of an API that is served at ``address`` (a path or ``unix://`` URL)."""
    return f"{address.removeprefix('unix://')}.fds"


def _asked(path: str, request: dict[str, str]) -> tuple[dict[str, object], int]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(timeouts.seconds("content.descriptor"))
        sock.connect(path)
        fds.send_fds(sock, request)
        answer, given = fds.recv_fds(sock)
        with given:
            return answer, given.take(0) if len(given) else -1


async def descriptor(path: str, namespace: str, **of: str) -> int:
    """The descriptor of an ingest (``ref``) or a blob (``digest``), the caller's to close; -1: none is given."""

    def ask() -> int:
        try:
            return _asked(path, {"namespace": namespace, **of})[1]
        except (OSError, EOFError, ValueError):
            return -1

    asking = asyncio.get_running_loop().run_in_executor(None, ask)
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        asking.add_done_callback(_close_given)
        raise


async def watch(path: str, namespace: str, digest: str, progress: Callable[[int], None]) -> None:
    """Tells how much of a layer is extracted, again and again until it is cancelled."""

    def ask() -> int:
        try:
            offset = _asked(path, {"namespace": namespace, "extracting": digest})[0].get("offset")
        except (OSError, EOFError, ValueError):
            return 0
        return offset if isinstance(offset, int) else 0

    before = 0
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        if (offset := await asyncio.to_thread(ask)) > before:
            progress(offset)
            before = offset


def _close_given(asking: "asyncio.Future[int]") -> None:
    if not asking.cancelled() and asking.exception() is None and asking.result() >= 0:
        os.close(asking.result())


class Appender:
    """Writes an ingest's bytes into its file, one piece behind the caller's back, and reports how far that has come.

    ``report(offset)`` tells the server; one report is under way at a time, and covers all that came meanwhile.
    """

    def __init__(self, fd: int, offset: int, report: Callable[[int], Awaitable[None]]) -> None:
        self._fd = fd
        self._offset = offset  # the end of what was given to ``write``
        self._there = self._told = offset
        self._report = report
        self._pending: asyncio.Future[None] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()  # somebody waits for the report
        self._closed = False

    async def write(self, data: memoryview) -> None:
        """Returns while the bytes are on their way; the next step tells what became of them.

        :raises OSError: an earlier piece could not be written (``restart`` or ``close`` then).
        :raises WharfError: the server does not take them any more.
        """
        await self._written()
        end = self._offset + len(data)
        self._pending = asyncio.get_running_loop().run_in_executor(None, fds.pwrite_all, self._fd, data, self._offset)
        self._pending.add_done_callback(lambda done: self._came(done, end))
        self._offset = end

    def _came(self, done: "asyncio.Future[None]", end: int) -> None:
        if not done.cancelled() and done.exception() is None:
            self._there = end
            if self._reporting is None and not self._closed:
                self._reporting = asyncio.create_task(self._tell())
                self._reporting.add_done_callback(lambda told: told.cancelled() or told.exception())

    async def _tell(self) -> None:
        while self._told < self._there:
            upto = self._there
            await self._report(upto)
            self._told = upto
            if self._told < self._offset and not self._hurry.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_REPORT_SECONDS):
                        await self._hurry.wait()
        self._reporting = None

    async def _written(self) -> None:
        if self._pending is not None:
            await asyncio.shield(self._pending)
            self._pending = None
        if self._reporting is not None and self._reporting.done():
            self._reporting.result()

    async def flush(self) -> None:
        """Everything is in the file, and the server knows it.

        :raises OSError, WharfError: see ``write``.
        """
        await self._written()
        self._hurry.set()
        try:
            while (reporting := self._reporting) is not None:
                await asyncio.shield(reporting)
        finally:
            self._hurry.clear()

    async def restart(self) -> None:
        """The bytes begin again at 0; nothing of the old ones is still on its way."""
        await self._quiet()
        self._pending = self._reporting = None
        self._offset = self._there = self._told = 0

    async def close(self) -> None:
        self._closed = True
        try:
            await self._quiet()
        finally:
            self.drop()

    def drop(self) -> None:
        """Closes the file once nothing is being written any more."""
        self._closed = True
        self.when_quiet(self._let_go)

    def when_quiet(self, then: Callable[[], None]) -> None:
        """Calls it once nothing is being written any more."""
        if self._pending is None or self._pending.done():
            then()
        else:
            self._pending.add_done_callback(lambda _: then())

    def _let_go(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    async def _quiet(self) -> None:
        if self._pending is not None:
            with suppress(Exception):
                await asyncio.shield(self._pending)
        if self._reporting is not None:  # begun by the last bytes
            self._hurry.set()
            with suppress(Exception):
                await asyncio.shield(self._reporting)
            self._hurry.clear()


async def read(fd: int, offset: int) -> AsyncIterator[bytes]:
    """A blob's bytes from ``offset`` on. Closes the descriptor. OUT_OF_RANGE past the end."""
    loop = asyncio.get_running_loop()
    end = os.fstat(fd).st_size
    reading: asyncio.Future[bytes] | None = None
    try:
        if offset > end:
            raise WharfError(Kind.OUT_OF_RANGE, f"read past end of content {end} bytes")
        while offset < end:
            reading = loop.run_in_executor(None, os.pread, fd, _PIECE, offset)
            data = await asyncio.shield(reading)
            if not data:
                raise internal(f"a blob ends at {offset} of {end} bytes")
            yield data
            offset += len(data)
    finally:
        if reading is None or reading.done():
            os.close(fd)
        else:
            reading.add_done_callback(lambda _: os.close(fd))
