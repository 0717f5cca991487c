"""Streaming responses: JSON messages (pull, push, build, load, events) and bytes (logs, export, save).

A failure before the first byte is an ordinary HTTP error; afterwards the status was sent, so the failure becomes the
last message of the stream: ``{"errorDetail":{"message":...},"error":...}``.
"""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.http.answers import dumps_escaped
from server.http.errors import report
from server.messages import error_message

END = b"\r\n"


class _StreamResponse(Response):
    """Sends the head with the first part, or at once if ``early`` (some clients wait for it).

    With ``errors_in_stream``, a failure never changes the status: it is a message in the stream even if it comes first.
    """

    def __init__(
        self,
        parts: AsyncIterable[bytes],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        early: bool = False,
        messages: bool = True,
        errors_in_stream: bool = False,
        name: str = "",
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        # Without Content-Length: the server uses chunked encoding, which docker-py relies on.
        self.raw_headers = [
            (b"content-type", media_type.encode("latin-1")),
            *((key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in (headers or {}).items()),
        ]
        self._parts = parts
        self._early = early
        self._messages = messages
        self._errors_in_stream = errors_in_stream
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def start() -> None:
            nonlocal started
            started = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            # An empty body message makes the server flush the head.
            await send({"type": "http.response.body", "body": b"", "more_body": True})

        iterator = aiter(self._parts)
        try:
            if self._early:
                await start()
            async for part in iterator:
                if not started:
                    await start()
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except Exception as error:
            if not started:
                if not self._errors_in_stream:
                    raise
                await start()
            report(error, self._name)
            if not self._messages:
                # A partial archive must not look complete: drop the connection.
                raise BrokenStream from error
            last = dumps_escaped(error_message(error)) + END
            await send({"type": "http.response.body", "body": last, "more_body": True})
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                with suppress(RuntimeError):
                    await close()
        if not started:
            await start()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class BrokenStream(Exception):
    """A stream of bytes failed midway; the connection must be dropped."""


def json_stream(
    messages: AsyncIterable[Mapping[str, Any]],
    *,
    media_type: str = "application/json",
    early: bool = False,
    errors_in_stream: bool = False,
    begin: bytes = b"",
    end: bytes = END,
    name: str = "",
) -> Response:
    """Sends each message as one JSON object in one chunk, between ``begin`` and ``end``, flushed at once. The iterator
    is closed on a disconnect."""

    async def lines() -> AsyncIterator[bytes]:
        iterator = aiter(messages)
        try:
            async for message in iterator:
                yield begin + dumps_escaped(message) + end
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    return _StreamResponse(lines(), media_type=media_type, early=early, errors_in_stream=errors_in_stream, name=name)


def line_stream(lines: AsyncIterable[bytes], *, media_type: str, name: str) -> Response:
    """As :func:`json_stream` with the head sent at once, for messages that are encoded already."""
    return _StreamResponse(lines, media_type=media_type, early=True, name=name)


def byte_stream(
    parts: AsyncIterable[bytes],
    *,
    media_type: str = "application/octet-stream",
    headers: Mapping[str, str] | None = None,
    early: bool = False,
    name: str = "",
) -> Response:
    """Sends bytes as they arrive; a failure midway drops the connection."""
    return _StreamResponse(parts, media_type=media_type, headers=headers, early=early, messages=False, name=name)
