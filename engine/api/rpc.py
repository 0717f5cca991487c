"""One connection to a containerd-compatible server: calls with a named deadline, the namespace and lease in the
headers, and every failure as a WharfError.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc.aio
from google.protobuf.message import Message
from grpc.aio import AioRpcError

from engine.api.errors import from_rpc_error, from_status
from engine.api.serving import encoded
from engine.api.types import LEASE_HEADER, NAMESPACE_HEADER
from engine.common import timeouts
from engine.common.errors import Kind, WharfError

#: What a stream gives at its end (missing in the type stubs).
EOF: object = getattr(grpc.aio, "EOF")  # noqa: B009

timeouts.define("engine.collect", 600.0)  # a delete that waits for the collector
timeouts.define("engine.end", 10.0)  # how a call has ended, once a write of it has failed

#: How often a call is repeated at most.
_REPEATS = 3

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
R_co = TypeVar("R_co", bound=Message, covariant=True)

#: The lease that calls are made under; set by ``Leases.hold``.
current_lease: ContextVar[str] = ContextVar("wharf_lease", default="")

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # a supervisor that is started again is found at once, not after a second or more
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def target_of(address: str) -> str:
    """gRPC's name for a socket given as a path or as a ``unix://`` URL."""
    return address if "://" in address else f"unix://{address}"


class Duplex(Protocol[M_contra, R_co]):
    """A call of many requests and many replies, one reply for each request."""

    async def exchange(self, request: M_contra | bytes) -> R_co:
        """Sends one message and takes the answer to it."""

    async def read(self) -> R_co:
        """The next answer. Raises WharfError for a call that has ended, of the kind that it ended with."""

    async def finish(self) -> None:
        """Says that no more requests come, and waits for the server's end of it, whatever that says."""

    def cancel(self) -> None:
        """Ends the call at once."""


class Caller(Protocol):
    """Whoever carries calls to a containerd-compatible server. Failures are WharfErrors."""

    namespace: str

    async def call(self, method: str, request: Message, reply: type[R]) -> R:
        """One request, one reply."""

    def stream(self, method: str, request: Message, reply: type[R]) -> AsyncIterator[R]:
        """One request, many replies; leaving the loop early cancels the call."""

    def duplex(self, method: str, request: type[M], reply: type[R]) -> Duplex[M, R]:
        """Many of both."""


class Connection:
    """The caller over gRPC. Made cheaply; ``open`` must be called in the event loop before the first call."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address = target_of(address)
        self.namespace = namespace
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Callable[..., object]] = {}
        #: How often the server went away: what it said of itself before may hold no longer.
        self.losses = 0

    def open(self) -> grpc.aio.Channel:
        """The channel, made on first use (it belongs to the running loop)."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        return self._channel

    async def ready(self, deadline: float) -> None:
        """Waits until the server takes connections; UNAVAILABLE after ``deadline`` seconds."""
        try:
            async with asyncio.timeout(deadline):
                await self.open().channel_ready()
        except TimeoutError:
            raise WharfError(Kind.UNAVAILABLE, f"no answer from {self.address} after {deadline:g} seconds") from None

    async def close(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            self._methods.clear()
            await channel.close(None)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        lease = current_lease.get()
        headers = ((NAMESPACE_HEADER, self.namespace),)
        return (*headers, (LEASE_HEADER, lease)) if lease else headers

    async def call(
        self,
        method: str,
        request: Message,
        reply: type[R],
        *,
        deadline: str | None = "engine.call",
        again: bool = False,
    ) -> R:
        """One request, one reply. ``deadline`` names an entry of ``timeouts``; None waits as long as it takes.

        A server that is away (a supervisor that died is started again at once) is waited for until the deadline.
        ``again``: the call may be made twice, so one that a server took along when it died is repeated.

        Raises WharfError of the kind that the server answered.
        """
        invoke = self._method("unary_unary", method, type(request), reply)
        left = _REPEATS if again else 0
        while True:
            try:
                answer: R = await invoke(  # type: ignore[misc]
                    request,
                    metadata=self.metadata(),
                    timeout=timeouts.seconds(deadline) if deadline else None,
                    wait_for_ready=True,
                )
            except AioRpcError as error:
                failure = from_rpc_error(error)
                self._count(failure)
                if failure.kind is Kind.UNAVAILABLE and left:
                    left -= 1
                    continue
                raise failure from None
            return answer

    def _count(self, failure: WharfError) -> None:
        if failure.kind is Kind.UNAVAILABLE:
            self.losses += 1

    async def stream(self, method: str, request: Message, reply: type[R]) -> AsyncIterator[R]:
        invoke = self._method("unary_stream", method, type(request), reply)
        call = invoke(request, metadata=self.metadata())
        try:
            async for answer in call:  # type: ignore[attr-defined]
                yield answer
        except AioRpcError as error:
            failure = from_rpc_error(error)
            self._count(failure)
            raise failure from None
        finally:
            call.cancel()  # type: ignore[attr-defined]

    def duplex(self, method: str, request: type[M], reply: type[R]) -> Duplex[M, R]:
        invoke = self._method("stream_stream", method, request, reply)
        return _Duplex(invoke(metadata=self.metadata()))  # type: ignore[arg-type]

    def _method(self, shape: str, method: str, request: type[Message], reply: type[Message]) -> Callable[..., object]:
        found = self._methods.get(method)
        if found is None:
            found = getattr(self.open(), shape)(
                method, request_serializer=encoded, response_deserializer=reply.FromString
            )
            self._methods[method] = found
        return found


class _Ends:
    """A call of gRPC's that believes what its server says of its end.

    Where the server's end of a call overtakes a write, the write fails, and gRPC puts an error of its own in the place
    of the status and the answers that are just coming (grpc/grpc#36066). They are waited for instead.
    """

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def set_internal_error(self, text: str) -> None:
        asyncio.get_running_loop().call_later(timeouts.seconds("engine.end"), self._no_status, text)

    def _no_status(self, text: str) -> None:
        if not self._call.done():
            self._call.set_internal_error(text)


class _Duplex(Generic[M, R]):
    def __init__(self, call: "grpc.aio.StreamStreamCall[M, R]") -> None:
        self._call = call
        if (inner := getattr(call, "_cython_call", None)) is not None:
            setattr(call, "_cython_call", _Ends(inner))  # noqa: B010

    async def exchange(self, request: M | bytes) -> R:
        try:
            await self._call.write(cast(M, request))  # bytes pass the serializer as they are
        except AioRpcError as error:
            raise from_rpc_error(error) from None
        except asyncio.InvalidStateError:
            pass  # the call has ended already: reading tells how
        return await self.read()

    async def read(self) -> R:
        try:
            answer = await self._call.read()
        except AioRpcError as error:
            raise from_rpc_error(error) from None
        if answer is EOF:
            raise from_status(await self._call.code(), await self._call.details() or "the stream ended early")
        return cast(R, answer)

    async def finish(self) -> None:
        with contextlib.suppress(AioRpcError, asyncio.InvalidStateError, grpc.aio.InternalError):
            await self._call.done_writing()
            while await self._call.read() is not EOF:
                pass

    def cancel(self) -> None:
        self._call.cancel()
