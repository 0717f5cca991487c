"""The supervisor's side of the shims: the zygote that forks them, and a client for each shim's socket."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, internal
from engine.shim import protocol, zygote
from engine.shim.protocol import Json, ProtocolError
from engine.shim.runtime import deadlines

log = logging.getLogger(__name__)

# The supervisor's own calls of the runtime, and its requests for one to a shim, have the shim's deadlines.
for _name, _seconds in deadlines.DEFAULTS.items():
    timeouts.define(_name, _seconds)

OnEvent = Callable[[Json], None]


class Zygote:
    """Forks shims. The next request replaces a zygote that died; its shims continue."""

    def __init__(self, handle: zygote.Handle, nofile: int = 0) -> None:
        """Takes ownership of ``handle``, which ``zygote.start()`` returned. ``nofile`` is for its successors."""
        self._nofile = nofile
        self._handle = handle
        self._handle.sock.setblocking(False)  # noqa: FBT003 - the socket's own method
        self._lock = asyncio.Lock()

    async def fork(self, what: str, directory: str) -> tuple[socket.socket, int]:
        """Forks a ``shim`` or an ``iohost`` working in ``directory``; returns our end of its control socket, and its
        pid.

        UNAVAILABLE: it can't be forked.
        """
        async with self._lock, timeouts.limit("shim.start"):
            try:
                return await self._fork(what, directory)
            except (OSError, ProtocolError, EOFError) as error:
                log.warning("the zygote has died (%s); starting another one", error)
                self._replace()
                try:
                    return await self._fork(what, directory)
                except (OSError, ProtocolError, EOFError) as again:
                    raise WharfError(Kind.UNAVAILABLE, f"no shim can be started: {again}") from None

    async def _fork(self, what: str, directory: str) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                request = protocol.encode({"what": what, "bundle": directory})
                sent = protocol.send_with_fds(self._handle.sock, request, [theirs.fileno()])
                if sent < len(request):
                    raise ProtocolError("a request was cut short")
            answer = await self._answer()
            if "error" in answer:
                raise WharfError.from_json(protocol.mapping(answer, "error"))
            return ours, protocol.integer(answer, "pid")
        except BaseException:
            ours.close()
            raise

    async def _answer(self) -> Json:
        decoder = protocol.Decoder()
        while True:
            data = await asyncio.get_running_loop().sock_recv(self._handle.sock, 4096)
            if not data:
                raise EOFError("its socket is closed")
            for message, _tail in decoder.feed(data):
                return message

    def _replace(self) -> None:
        self.close()
        self._handle = zygote.start(nofile=self._nofile)
        self._handle.sock.setblocking(False)  # noqa: FBT003 - the socket's own method

    def close(self) -> None:
        """Ends the zygote; shims continue."""
        self._handle.sock.close()
        with contextlib.suppress(ChildProcessError):
            # It exits when its socket closes; our parent or init reaps it if it is slow.
            os.waitpid(self._handle.pid, os.WNOHANG)


class ShimClient(asyncio.Protocol):
    """Calls to one shim (or I/O host) and its events, without a task.

    ``on_event`` is called in the order of the shim's frames; ``on_lost`` once, when the socket closed, unless ``close``
    was called.
    """

    def __init__(self, on_event: OnEvent, on_lost: Callable[[], None]) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._decoder = protocol.Decoder()
        self._waiting: dict[int, tuple[asyncio.Future[Json], OnEvent | None]] = {}
        self._number = 0
        self._closed = False

    @classmethod
    async def from_socket(cls, sock: socket.socket, on_event: OnEvent, on_lost: Callable[[], None]) -> "ShimClient":
        """A client on a connected socket, which it owns."""
        client = cls(on_event, on_lost)
        await asyncio.get_running_loop().create_unix_connection(lambda: client, sock=sock)
        return client

    @classmethod
    async def connect(cls, path: str, on_event: OnEvent, on_lost: Callable[[], None]) -> "ShimClient":
        """Connects to a shim of an earlier supervisor. OSError: no process listens there."""
        async with timeouts.limit("shim.connect"):
            sock = await asyncio.to_thread(protocol.connect, path)
            return await cls.from_socket(sock, on_event, on_lost)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for message, _tail in self._decoder.feed(data):
                self._received(message)
        except ProtocolError as error:
            log.error("a shim sent an invalid frame: %s", error)
            if self._transport is not None:
                self._transport.abort()

    def _received(self, message: Json) -> None:
        if "event" in message:
            self._on_event(message)
            return
        waiting, then = self._waiting.pop(protocol.integer(message, "id"), (None, None))
        if "error" in message:
            if waiting is not None and not waiting.done():
                waiting.set_exception(WharfError.from_json(protocol.mapping(message, "error")))
            return
        result = protocol.mapping(message, "ok")
        if then is not None:
            then(result)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)

    def connection_lost(self, exc: Exception | None) -> None:
        waiting, self._waiting = self._waiting, {}
        for future, _then in waiting.values():
            if not future.done():
                future.set_exception(WharfError(Kind.UNAVAILABLE, "the container's shim has exited"))
        if not self._closed:
            self._closed = True
            self._on_lost()

    async def call(
        self, operation: str, *, deadline: str = "shim.call", then: OnEvent | None = None, **arguments: object
    ) -> Json:
        """Sends one request. ``deadline`` names an entry of ``timeouts``.

        ``then`` is called with a successful answer before any later frame is handled, even if the caller was cancelled
        meanwhile: an event may follow the answer directly, so changes of state belong there.

        UNAVAILABLE: the shim has exited; else the error that it answered.
        """
        if self._transport is None or self._closed:
            raise WharfError(Kind.UNAVAILABLE, "the container's shim has exited")
        self._number += 1
        number = self._number
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, then)
        self._transport.write(protocol.encode({"id": number, "op": operation, **arguments}))
        try:
            async with timeouts.limit(deadline):
                return await future
        finally:
            if then is None:
                self._waiting.pop(number, None)

    def close(self) -> None:
        """Closes the connection; the shim continues."""
        self._closed = True
        if self._transport is not None:
            self._transport.close()


def number(message: Mapping[str, object], key: str) -> int:
    """An integer in a shim's answer. INTERNAL: it has another type."""
    value = message.get(key)
    if not isinstance(value, int):
        raise internal(f"the shim answered {key}={value!r}")
    return value
