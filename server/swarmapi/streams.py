"""Answers that go on for as long as the caller reads. One that reads slowly, or not at all, is bounded."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.http.errors import report
from server.http.streams import BrokenStream
from server.swarm.remote import wire

log = logging.getLogger(__name__)

timeouts.define("swarm.reader", 60.0)  # the receiver of a stream makes room for the next part

T = TypeVar("T")


async def newest(source: AsyncIterator[T], period: float) -> AsyncGenerator[T | None, None]:
    """The newest value of ``source`` when the reader asks for one: values that came meanwhile are dropped. None: none
    came for ``period`` seconds."""
    slot: list[T] = []
    ready = asyncio.Event()

    async def pump() -> None:
        async for value in source:
            slot[:] = [value]
            ready.set()

    pumping = asyncio.create_task(pump(), name="swarm-stream")
    pumping.add_done_callback(lambda task: ready.set())
    try:
        while True:
            if slot:
                yield slot.pop()
                continue
            if pumping.done():
                pumping.result()
                return
            ready.clear()
            try:
                async with asyncio.timeout(period):
                    await ready.wait()
            except TimeoutError:
                yield None
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)


async def paced(source: AsyncIterator[T], period: float) -> AsyncGenerator[T | None, None]:
    """Every value of ``source``, read when the reader asks for it. None: none came for ``period`` seconds."""

    async def following() -> list[T]:
        async for value in source:
            return [value]
        return []

    reading: asyncio.Task[list[T]] | None = None
    try:
        while True:
            reading = reading or asyncio.create_task(following(), name="swarm-stream")
            await asyncio.wait((reading,), timeout=period)
            if not reading.done():
                yield None
                continue
            found, reading = reading.result(), None
            if not found:
                return
            yield found[0]
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if isinstance(source, AsyncGenerator):
            await source.aclose()


def log_failure(error: BaseException, request: str) -> None:
    """Logs an error that is answered. That this manager can't serve the request now is the expected answer of one that
    has lost the others, or whose state moves: the caller asks again."""
    if isinstance(error, WharfError) and error.kind is Kind.UNAVAILABLE:
        log.debug("%s: %s", request, error.message)
    else:
        report(error, request)


class Slots:
    """Bounds the streams of each caller."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count: Counter[str] = Counter()

    @contextlib.contextmanager
    def taken(self, node_id: str) -> Iterator[None]:
        """:raises WharfError: RESOURCE_EXHAUSTED."""
        if self._count[node_id] >= self._most:
            raise WharfError(Kind.RESOURCE_EXHAUSTED, f"node {node_id} has {self._most} streams already")
        self._count[node_id] += 1
        try:
            yield
        finally:
            self._count[node_id] -= 1
            if not self._count[node_id]:
                del self._count[node_id]


class _Stream(Response):
    media_type = "application/octet-stream"

    def __init__(self, parts: AsyncGenerator[bytes, None]) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = [(b"content-type", str(self.media_type).encode())]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A disconnect cancels the handler.
        scope["extensions"]["connection"].disconnect_cancels = True
        async with contextlib.aclosing(self._parts) as parts:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            # An empty body message makes the server flush the head.
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            async for part in parts:
                try:
                    async with timeouts.limit("swarm.reader"):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                except WharfError as error:
                    raise BrokenStream from error
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def lines(documents: AsyncGenerator[dict[str, Any] | None, None], check: Callable[[], None]) -> Response:
    """One line of JSON for each document; None: an empty line. ``check`` is called before each one, and raises when the
    caller may read no more. An error is the last line."""

    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(documents):
                async for document in documents:
                    check()
                    yield b"\n" if document is None else orjson.dumps(document) + b"\n"
        except Exception as error:
            log_failure(error, "a stream of the swarm")
            yield orjson.dumps({wire.ERROR: wire.error_document(error)}) + b"\n"

    return _Stream(parts())


def content(chunks: AsyncGenerator[bytes, None]) -> Response:
    """The chunks as they are. After an error the connection is dropped."""

    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        except Exception as error:
            log_failure(error, "a stream of the swarm")
            raise BrokenStream from error

    return _Stream(parts())


def frames(chunks: AsyncGenerator[bytes | None, None]) -> Response:
    """Each chunk after its length in four bytes; an empty one says that the stream goes on. After an error the
    connection is dropped."""

    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    yield (len(chunk).to_bytes(4, "big") + chunk) if chunk else bytes(4)
        except Exception as error:
            log_failure(error, "a stream of the swarm")
            raise BrokenStream from error

    return _Stream(parts())
