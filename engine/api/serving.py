"""Serves gRPC services, implemented by plain objects, on a unix socket and on connections that are already open.

A service's object has a method in snake case for each of the service::

    async def info(self, request: pb.InfoRequest, call: C) -> pb.InfoResponse                    # one → one
    async def status(self, request: pb.StatusRequest, call: C) -> AsyncIterator[...]             # one → many
    async def session(self, requests: AsyncIterator[...], call: C) -> AsyncIterator[...]         # many → many

``Return`` is ``return_``. A method that the object lacks answers UNIMPLEMENTED. ``call`` is the result of the service's
``caller`` for the headers. The object's ``decoders`` may hold a decoder for a method's requests. Replies may be bytes
that are already serialized. A WharfError becomes the status of its kind; any other exception is an internal error and
is logged.
"""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from keyword import iskeyword
from typing import NamedTuple, cast

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from engine.api.errors import Code, details, to_code
from engine.api.http2.connection import Connection
from engine.api.http2.stream import Limits, Stream
from engine.common import timeline
from engine.common.errors import WharfError
from engine.common.system.reserve import disk_error

log = logging.getLogger(__name__)

_GRPC = "application/grpc"
#: Seconds before the next connection is accepted where this process has no free descriptor.
_PAUSE = 0.1
Caller = Callable[[Mapping[str, str]], object]


class _Method(NamedTuple):
    descriptor: MethodDescriptor
    function: Callable[..., object]
    decode: Callable[[bytes], object]
    caller: Caller


class Server:
    """The services. ``stop`` it at the end."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008  # frozen
        """``limits``: of each connection."""
        self._limits = limits
        self._methods: dict[str, _Method] = {}
        self._connections: dict[Connection, dict[asyncio.Task[None], Stream]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._served: set[asyncio.Task[None]] = set()

    def add(self, service: ServiceDescriptor, servicer: object, caller: Caller) -> None:
        """Registers an object for a service."""
        for method in service.methods:
            name = snake_case(method.name)
            function = getattr(servicer, f"{name}_" if iskeyword(name) else name, None)
            if function is not None:
                decode = getattr(servicer, "decoders", {}).get(method.name)
                self._methods[f"/{service.full_name}/{method.name}"] = _Method(
                    method, function, decode or GetMessageClass(method.input_type).FromString, caller
                )

    def listen(self, sock: socket.socket) -> None:
        """Serves the connections of a listening socket, which is closed by ``stop``."""
        sock.settimeout(0)
        self._listening = asyncio.create_task(self._accept(sock))

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with sock:
            while True:
                try:
                    client, _ = await loop.sock_accept(sock)
                except OSError as error:
                    log.warning("can't accept a connection: %s", error)
                    await asyncio.sleep(_PAUSE)
                    continue
                task = asyncio.create_task(self.serve(client, b""))
                self._served.add(task)
                task.add_done_callback(self._served.discard)

    async def serve(self, sock: socket.socket, early: bytes) -> None:
        """Serves one connection until its client disconnects; its calls end with it. ``early``: bytes that were read
        from it before."""
        calls: dict[asyncio.Task[None], Stream] = {}

        def accept(stream: Stream) -> None:
            task = stream.task = asyncio.create_task(self._call(stream))
            calls[task] = stream
            task.add_done_callback(calls.pop)

        connection = await Connection.from_socket(sock, early, accept, limits=self._limits)
        self._connections[connection] = calls
        try:
            await asyncio.shield(connection.closed)
        finally:
            connection.close()
            for stream in calls.values():
                stream.stop()
            if calls:
                await asyncio.wait(list(calls))
            del self._connections[connection]

    async def stop(self, grace: float = 0.0) -> None:
        """Closes every connection. Calls have ``grace`` seconds to end before they are cancelled."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        calls = {task: stream for found in self._connections.values() for task, stream in found.items()}
        if grace:
            for connection in list(self._connections):
                connection.leave()
            if calls:
                await asyncio.wait(calls, timeout=grace)
        for connection in list(self._connections):
            if grace:
                connection.close()  # after the last answers
            else:
                connection.abort()
        for stream in calls.values():
            stream.stop()
        await asyncio.gather(*calls, *self._served, return_exceptions=True)

    async def _call(self, stream: Stream) -> None:
        if not stream.headers.get("content-type", "").startswith(_GRPC):
            # A client that speaks HTTP/2 to the API's socket without upgrade may send any request.
            stream.require_http1()
            return
        method = self._methods.get(stream.headers.get(":path", ""))
        if method is None:
            stream.finish(Code.UNIMPLEMENTED, "Method not found!")
            return
        with timeline.request(method.descriptor.full_name, stream.headers):
            try:
                await _answer(stream, method)
            except Exception as error:
                _fail(stream, method.descriptor, error)


async def _answer(stream: Stream, method: _Method) -> None:
    descriptor, function, decode, caller = method
    call = caller(stream.headers)
    if descriptor.client_streaming:
        request: object = _requests(stream, decode)
    else:
        data = await stream.read()
        if data is None:
            stream.finish(Code.UNKNOWN, "the call has no request")
            return
        request = decode(data)
    if descriptor.server_streaming:
        async with aclosing(cast("AsyncGenerator[Message | bytes, None]", function(request, call))) as answers:
            async for answer in answers:
                stream.start()
                await stream.send(encoded(answer))
        stream.start()
        stream.finish()
    else:
        phases: list[str] = []
        token = timeline.returned_phases.set(phases)
        try:
            answer = await cast("Awaitable[Message | bytes]", function(request, call))
        finally:
            timeline.returned_phases.reset(token)
        await stream.answer(encoded(answer), [(timeline.PHASES_HEADER, ",".join(phases))] if phases else ())


async def _requests(stream: Stream, decode: Callable[[bytes], object]) -> AsyncIterator[object]:
    while (data := await stream.read()) is not None:
        yield decode(data)


def _fail(stream: Stream, method: MethodDescriptor, error: Exception) -> None:
    sent = disk_error(error)
    if isinstance(sent, WharfError):
        level = logging.DEBUG if sent is error else logging.WARNING
        log.log(level, "%s: %s: %s", method.full_name, sent.kind.value, sent.message)
        stream.finish(to_code(sent.kind), sent.message, details(sent))
        return
    log.error("%s failed", method.full_name, exc_info=error)
    stream.finish(Code.UNKNOWN, f"{type(error).__name__}: {error}")


def snake_case(name: str) -> str:
    """``ListPids`` → ``list_pids``, ``CloseIO`` → ``close_io``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def encoded(message: Message | bytes) -> bytes:
    """The serialized message; bytes are returned unchanged."""
    return message if isinstance(message, bytes) else message.SerializeToString()
