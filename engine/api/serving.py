"""Binds an object's coroutine methods to a gRPC service, one for each method of the service, in snake case::

    async def info(self, request: pb.InfoRequest, call: C) -> pb.InfoResponse                    # one → one
    async def status(self, request: pb.StatusRequest, call: C) -> AsyncIterator[...]             # one → many
    async def session(self, requests: AsyncIterator[...], call: C) -> AsyncIterator[...]         # many → many

``Return`` is ``return_``. A method that the object lacks answers UNIMPLEMENTED. ``call`` is the result of ``caller``
for the gRPC context. The object's ``decoders`` may hold a decoder for a method's requests. Replies may be bytes that
are already serialized. A WharfError becomes the status of its kind; any other exception is an internal error and is
logged.
"""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from keyword import iskeyword
from typing import Any, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from engine.api.errors import DETAILS, details, to_code
from engine.common.errors import WharfError
from engine.common.system.reserve import disk_error

log = logging.getLogger(__name__)


def handler(service: ServiceDescriptor, servicer: object, caller: Callable[[Any], object]) -> "grpc.GenericRpcHandler":  # type: ignore[type-arg]  # not subscriptable at run time
    """The gRPC handler of one service."""
    handlers = {}
    for method in service.methods:
        name = snake_case(method.name)
        function = getattr(servicer, f"{name}_" if iskeyword(name) else name, None)
        if function is not None:
            decode = getattr(servicer, "decoders", {}).get(method.name)
            handlers[method.name] = _method(method, function, caller, decode)
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def snake_case(name: str) -> str:
    """``ListPids`` → ``list_pids``, ``CloseIO`` → ``close_io``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def encoded(message: Message | bytes) -> bytes:
    """The serialized message; bytes are returned unchanged."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def _method(
    method: MethodDescriptor,
    function: Callable[..., object],
    caller: Callable[[Any], object],
    decode: Callable[[bytes], object] | None,
) -> Any:
    decode = decode or GetMessageClass(method.input_type).FromString
    encode = encoded
    if method.client_streaming or method.server_streaming:
        # Not an asynchronous generator: when a client cancels, gRPC would leave one suspended with its resources.
        async def stream(request: object, context: Any) -> None:
            try:
                async with aclosing(cast(AsyncGenerator[Message, None], function(request, caller(context)))) as answers:
                    async for answer in answers:
                        await context.write(answer)
            except Exception as error:
                await _fail(method, error, context)

        make = (
            grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(stream, request_deserializer=decode, response_serializer=encode)

    async def unary(request: Message, context: Any) -> Message:
        try:
            return await cast(Awaitable[Message], function(request, caller(context)))
        except Exception as error:
            await _fail(method, error, context)
            raise AssertionError("abort raises") from None

    return grpc.unary_unary_rpc_method_handler(unary, request_deserializer=decode, response_serializer=encode)


async def _fail(method: MethodDescriptor, error: Exception, context: Any) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    sent = disk_error(error)
    if isinstance(sent, WharfError):
        if status := details(sent):
            context.set_trailing_metadata(((DETAILS, status),))
        level = logging.DEBUG if sent is error else logging.WARNING
        log.log(level, "%s: %s: %s", method.full_name, sent.kind.value, sent.message)
        await context.abort(to_code(sent.kind), sent.message)
    log.error("%s failed", method.full_name, exc_info=error)
    await context.abort(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
