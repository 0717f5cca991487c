"""One connection to a containerd-compatible server. Calls have a named deadline and send the namespace and the lease as
headers; every failure is raised as a WharfError."""

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

#: The value that a stream returns at its end (missing in the type stubs).
EOF: object = getattr(grpc.aio, "EOF")  # noqa: B009

timeouts.define("engine.collect", 600.0)  # a delete that waits for the garbage collector
timeouts.define("engine.end", 10.0)  # the status of a call after one of its writes has failed

#: The maximum number of repetitions of a call.
_REPEATS = 3

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
R_co = TypeVar("R_co", bound=Message, covariant=True)

#: The lease under which calls run; set by ``Leases.acquire``.
current_lease: ContextVar[str] = ContextVar("wharf_lease", default="")

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # Find a restarted supervisor at once, not after gRPC's default back-off of a second or more.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def target_of(address: str) -> str:
    """gRPC's target for a socket given as a path or as a ``unix://`` URL."""
    return address if "://" in address else f"unix://{address}"


class Duplex(Protocol[M_contra, R_co]):
    """A bidirectional stream with one reply for each request."""

    async def exchange(self, request: M_contra | bytes) -> R_co:
        """Sends one message and returns the reply to it."""

    async def read(self) -> R_co:
        """The next reply. Raises WharfError with the call's status when the call has ended."""

    async def finish(self) -> None:
        """Closes the request side and waits until the server ends the call, whatever its status."""

    def cancel(self) -> None:
        """Cancels the call at once."""


class Caller(Protocol):
    """Carries calls to a containerd-compatible server. Failures are WharfErrors."""

    namespace: str

    async def call(self, method: str, request: Message, reply: type[R]) -> R:
        """One request, one reply."""

    def stream(self, method: str, request: Message, reply: type[R]) -> AsyncIterator[R]:
        """One request, many replies; leaving the loop early cancels the call."""

    def duplex(self, method: str, request: type[M], reply: type[R]) -> Duplex[M, R]:
        """Many requests, many replies."""


class Connection:
    """The caller over gRPC. Creating it costs little; call ``open`` in the event loop before the first call."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address = target_of(address)
        self.namespace = namespace
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Callable[..., object]] = {}
        #: The number of times that the connection was lost. Cached answers of an earlier server may be outdated after
        #: it.
        self.losses = 0

    def open(self) -> grpc.aio.Channel:
        """The channel, opened on first use (it belongs to the running loop)."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        return self._channel

    async def ready(self, deadline: float) -> None:
        """Waits until the server accepts connections; raises UNAVAILABLE after ``deadline`` seconds."""
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
        """One request, one reply. ``deadline`` names an entry of ``timeouts``; None waits without a limit.

        The call waits for an absent server until the deadline (a supervisor that died is restarted at once). ``again``:
        the call is idempotent, so it is repeated when the server dies during it.

        Raises WharfError with the kind that the server answered.
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
    """Wraps gRPC's call so that the server's status wins over gRPC's own write error.

    Where the server's end of a call overtakes a write, the write fails, and gRPC replaces the status and the replies
    that are just arriving by an error of its own (grpc/grpc#36066). This wrapper waits for the real ones.
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
            await self._call.write(cast(M, request))  # bytes pass the serializer unchanged
        except AioRpcError as error:
            raise from_rpc_error(error) from None
        except asyncio.InvalidStateError:
            pass  # the call has ended already: ``read`` raises its status
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
