"""One connection to a containerd-compatible server. Calls have a named deadline and send the namespace and the lease as
headers; every failure is raised as a WharfError."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextvars import ContextVar
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from engine.api.errors import from_status
from engine.api.http2.connection import Connection as Peer
from engine.api.http2.headers import Header
from engine.api.http2.stream import Limits, Stream
from engine.api.serving import encoded
from engine.api.types import LEASE_HEADER, NAMESPACE_HEADER
from engine.common import timeline, timeouts
from engine.common.errors import Kind, WharfError, internal

timeouts.define("engine.collect", 600.0)  # a delete that waits for the garbage collector

#: The maximum number of repetitions of a call.
_REPEATS = 3

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
R_co = TypeVar("R_co", bound=Message, covariant=True)

#: The lease under which calls run; set by ``Leases.acquire``.
current_lease: ContextVar[str] = ContextVar("wharf_lease", default="")

#: What a server of containerd's API may use. Many calls wait for the exit of a container.
SERVER_LIMITS = Limits(message=64 << 20, calls=1 << 20)
#: Seconds between two attempts to connect: a supervisor that died is restarted at once.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5


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
    """The caller over gRPC: it connects when it is first used, and again after the connection was lost. Creating it
    costs little; it belongs to one event loop."""

    def __init__(self, address: str, namespace: str, *, peer: str = "containerd", waits: bool = True) -> None:
        """``address``: the path of a unix socket, or its ``unix://`` URL. ``namespace``: "" sends none. ``peer``: the
        server, for the sentence about a lost connection. ``waits``: calls wait for an absent server; otherwise it is
        UNAVAILABLE."""
        self.address = address if "://" in address else f"unix://{address}"
        self.namespace = namespace
        self._name = peer
        self._waits = waits
        self._peer: Peer | None = None
        self._connecting: asyncio.Task[Peer] | None = None
        #: The number of times that the connection was lost. Cached answers of an earlier server may be outdated after
        #: it.
        self.losses = 0

    async def _open_connection(self) -> Peer:
        path = self.address.removeprefix("unix://")
        self._peer = await Peer.connect(path, limits=SERVER_LIMITS, peer=self._name)
        return self._peer

    async def _connect(self, *, wait: bool) -> Peer:
        """The connection. ``wait``: for a server that is absent; otherwise that is UNAVAILABLE."""
        pause = _FIRST_PAUSE
        while self._peer is None or not self._peer.usable:
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.create_task(self._open_connection())
            try:
                return await asyncio.shield(self._connecting)
            except OSError as error:
                if not wait:
                    raise WharfError(Kind.UNAVAILABLE, f"{self.address}: {error.strerror or error}") from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return self._peer

    async def ready(self, deadline: float) -> None:
        """Waits until the server answers; raises UNAVAILABLE after ``deadline`` seconds."""
        try:
            async with asyncio.timeout(deadline):
                while not (peer := await self._connect(wait=True)).usable or not peer.greeted.is_set():
                    await peer.greeted.wait()
        except TimeoutError:
            raise WharfError(Kind.UNAVAILABLE, f"no answer from {self.address} after {deadline:g} seconds") from None

    async def close(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.abort()
            await peer.closed

    def metadata(self) -> tuple[tuple[str, str], ...]:
        lease = current_lease.get()
        headers = ((NAMESPACE_HEADER, self.namespace),) if self.namespace else ()
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

        The call waits for an absent server until the deadline (a supervisor that died is restarted at once), unless the
        connection was made without ``waits``. ``again``: the call is idempotent, so it is repeated when the server dies
        during it.

        Raises WharfError with the kind that the server answered.
        """
        left = _REPEATS if again else 0
        async with timeouts.limit(deadline) if deadline else contextlib.nullcontext():
            while True:
                try:
                    return reply.FromString(await self._call(method, encoded(request)))
                except WharfError as failure:
                    self._count(failure)
                    if failure.kind is not Kind.UNAVAILABLE or not left:
                        raise
                    left -= 1

    async def _call(self, method: str, request: bytes) -> bytes:
        peer = await self._connect(wait=self._waits)
        stream = peer.request(method, self.metadata(), request)
        try:
            if not stream.sent:
                await _send(stream, request)
                stream.done_writing()
            answer = await stream.reply()
            _check(stream)
            if (phases := stream.headers.get(timeline.PHASES_HEADER)) is not None:
                timeline.current().add_returned(phases)
        finally:
            stream.cancel()
        if answer is None:
            raise internal(f"{method}: no answer")
        return answer

    def _count(self, failure: WharfError) -> None:
        if failure.kind is Kind.UNAVAILABLE:
            self.losses += 1

    async def stream(self, method: str, request: Message, reply: type[R]) -> AsyncIterator[R]:
        message, stream = encoded(request), None
        try:
            try:
                peer = await self._connect(wait=False)
                stream = peer.request(method, self.metadata(), message)
                if not stream.sent:
                    await _send(stream, message)
                    stream.done_writing()
            except WharfError as failure:
                self._count(failure)
                raise
            while (answer := await self._next(stream)) is not None:
                yield reply.FromString(answer)
        finally:
            if stream is not None:
                stream.cancel()

    async def _next(self, stream: Stream) -> bytes | None:
        try:
            answer = await stream.read()
            if answer is None:
                _check(stream)
        except WharfError as failure:
            self._count(failure)
            raise
        return answer

    def duplex(self, method: str, request: type[M], reply: type[R]) -> Duplex[M, R]:
        return _Duplex(self._open(method, self.metadata()), reply)

    async def _open(self, method: str, metadata: Sequence[Header]) -> Stream:
        return (await self._connect(wait=False)).request(method, metadata)


async def _send(stream: Stream, message: bytes) -> None:
    """Sends a message; the server's error wins over a write that fails because the server has ended the call."""
    try:
        await stream.send(message)
    except WharfError:
        if stream.status_received:
            _check(stream)
        raise


def _check(stream: Stream) -> None:
    """Raises the error with which the server has ended the call."""
    code, message, details = stream.outcome()
    if code:
        raise from_status(code, message, details)


class _Duplex(Generic[M, R]):
    """Opens the call with its first message."""

    def __init__(self, opening: Coroutine[object, object, Stream], reply: type[R]) -> None:
        self._opening = opening
        self._reply = reply
        self._stream: Stream | None = None

    async def exchange(self, request: M | bytes) -> R:
        if self._stream is None:
            self._stream = await self._opening
        await _send(self._stream, encoded(request))
        return await self.read()

    async def read(self) -> R:
        assert self._stream is not None, "a request comes first"
        answer = await self._stream.read()
        if answer is None:
            _check(self._stream)
            raise internal("the stream ended early")
        return self._reply.FromString(answer)

    async def finish(self) -> None:
        stream = self._stream
        if stream is None:
            return
        with contextlib.suppress(WharfError):
            stream.done_writing()
            while await stream.read_buffered():
                pass

    def cancel(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
        else:
            self._opening.close()
