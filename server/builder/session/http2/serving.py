"""Serves gRPC services, implemented by plain objects, on open connections, as ``engine.api.serving`` does on a socket.

Each method of a service is a coroutine method or asynchronous generator in snake case. Its argument ``call`` is the
value that the service's ``caller`` makes of the call's metadata; for a client stream, the request is an iterator. A
WharfError becomes the status of its kind; any other exception is logged as an internal error.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from keyword import iskeyword
from typing import Any, cast

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from engine.api.errors import to_code
from engine.api.serving import snake_case
from engine.common import timeline
from engine.common.errors import Kind, WharfError
from server.builder.session.http2.connection import Connection
from server.builder.session.http2.stream import Stream

log = logging.getLogger(__name__)

_UNKNOWN, _UNIMPLEMENTED = 2, 12
_GRPC = "application/grpc"
Caller = Callable[[Mapping[str, str]], object]
#: With the object's method, and the message of its request.
_Method = tuple[MethodDescriptor, Callable[..., object], Any, Caller]


class Detailed(WharfError):
    """An error that carries a serialized ``google.rpc.Status`` to the client."""

    def __init__(self, kind: Kind, message: str, status: bytes) -> None:
        super().__init__(kind, message)
        self.status = status


class Server:
    """The services. Call ``serve`` for each connection, and ``stop`` at the end."""

    def __init__(self) -> None:
        self._methods: dict[str, _Method] = {}
        self._connections: dict[Connection, dict[asyncio.Task[None], Stream]] = {}

    def add(self, service: ServiceDescriptor, servicer: object, caller: Caller) -> None:
        """Register an object for a service; methods that it lacks return UNIMPLEMENTED."""
        for method in service.methods:
            name = snake_case(method.name)
            function = getattr(servicer, f"{name}_" if iskeyword(name) else name, None)
            if function is not None:
                path = f"/{service.full_name}/{method.name}"
                self._methods[path] = (method, function, GetMessageClass(method.input_type), caller)

    async def serve(self, sock: socket.socket, early: bytes) -> None:
        """Serve one connection until its client disconnects; its calls end with it."""
        calls: dict[asyncio.Task[None], Stream] = {}

        def accept(stream: Stream) -> None:
            task = stream.task = asyncio.create_task(self._call(stream))
            calls[task] = stream
            task.add_done_callback(calls.pop)

        connection = await Connection.from_socket(sock, early, accept)
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

    async def stop(self) -> None:
        """Close every connection and cancel its calls."""
        calls = {task: stream for found in self._connections.values() for task, stream in found.items()}
        for connection in list(self._connections):
            connection.abort()
        for stream in calls.values():
            stream.stop()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _call(self, stream: Stream) -> None:
        if not stream.headers.get("content-type", "").startswith(_GRPC):
            # A client that speaks HTTP/2 to the API's socket without upgrade may send any request.
            stream.require_http1()
            return
        known = self._methods.get(stream.headers.get(":path", ""))
        if known is None:
            stream.finish(_UNIMPLEMENTED, "Method not found!")
            return
        with timeline.request(known[0].full_name, stream.headers):
            await self._answer(stream, known)

    async def _answer(self, stream: Stream, known: _Method) -> None:
        method, function, request_type, caller = known
        try:
            call = caller(stream.headers)
            if method.client_streaming:
                request = _requests(stream, request_type)
            else:
                data = await stream.read()
                if data is None:
                    stream.finish(_UNKNOWN, "the call has no request")
                    return
                request = request_type.FromString(data)
            if method.server_streaming:
                async with aclosing(cast(AsyncGenerator[Message, None], function(request, call))) as answers:
                    async for answer in answers:
                        stream.start()
                        await stream.send(answer.SerializeToString())
                stream.start()
            else:
                reply = await cast(Awaitable[Message], function(request, call))
                stream.start()
                await stream.send(reply.SerializeToString())
            stream.finish()
        except Exception as error:
            _fail(stream, method, error)


async def _requests(stream: Stream, request_type: Any) -> AsyncIterator[Any]:
    while (data := await stream.read()) is not None:
        yield request_type.FromString(data)


def _fail(stream: Stream, method: MethodDescriptor, error: Exception) -> None:
    if isinstance(error, WharfError):
        log.debug("%s: %s: %s", method.full_name, error.kind.value, error.message)
        details = error.status if isinstance(error, Detailed) else b""
        stream.finish(to_code(error.kind).value[0], error.message, details)
        return
    log.error("%s failed", method.full_name, exc_info=error)
    stream.finish(_UNKNOWN, f"{type(error).__name__}: {error}")
