"""One request and its response, written with few copies and system calls.

uvicorn's own cycle checks every byte of every header and writes head and body separately, a third of the cost of a
short response. Here the common part of all responses is encoded once per second.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, cast

from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from server.http.streams import BrokenStream

log = logging.getLogger(__name__)

# Header names as Go writes them: scripts match them in the output of curl.
_spelled: dict[bytes, bytes] = {}


def _line(name: bytes, value: bytes) -> bytes:
    """A header line.

    :raises RuntimeError: the value contains a line break.
    """
    spelled = _spelled.get(name)
    if spelled is None:
        spelled = _spelled[name] = b"-".join(part.capitalize() for part in name.split(b"-"))
    if b"\n" in value or b"\r" in value or b"\0" in value:
        raise RuntimeError(f"invalid value of the header {name!r}")
    return spelled + b": " + value + b"\r\n"


class CommonHeaders(list[tuple[bytes, bytes]]):
    """The headers of every response, and the date."""

    def __init__(self, fixed: Sequence[tuple[bytes, bytes]]) -> None:
        super().__init__(fixed)
        self._fixed = b"".join(_line(name, value) for name, value in fixed)
        self._second = 0
        self._lines = b""

    def lines(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode()
            self._second, self._lines = now, self._fixed + b"Date: " + date + b"\r\n"
        return self._lines


class Part:
    """A part of a response's body that many clients get: ``body``, and ``chunk``, the body in chunked encoding."""

    __slots__ = ("body", "chunk")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.chunk = b"%x\r\n%b\r\n" % (len(body), body)


class Cycle(RequestResponseCycle):
    """The app's side of a request (``receive``) and of its response (``send``)."""

    lingers = False
    # A head that is kept back, to be written with its body.
    _head = b""
    _headless = False

    async def run_asgi(self, app: ASGI3Application) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            # The client disconnected or the daemon stops; a partial response must not look complete.
            if not self.response_complete:
                self.transport.abort()
            raise
        except BrokenStream:
            self.transport.abort()
        except Exception:
            # An answered error was reported already: Starlette raises it again.
            if not self.response_complete:
                log.exception("%s %s", self.scope["method"], self.scope["path"])
                self.transport.abort()
        else:
            if not self.response_complete and not self.disconnected:
                log.error("%s %s: the response is incomplete", self.scope["method"], self.scope["path"])
                self.transport.abort()
        finally:
            self.on_response = lambda: None

    async def send(self, message: ASGISendEvent) -> None:
        """Handles a message of the app: the head, then the body in any number of parts.

        :raises RuntimeError: the app sends other messages.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started and message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        elif self.response_started and not self.response_complete and message["type"] == "http.response.body":
            self._body(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected message {message['type']}")

    def push(self, part: Part) -> bool:
        """Sends a part of a response that goes on, and returns whether it was sent. It is not sent before the head is
        written, and while the client reads too slowly: :meth:`send` waits then."""
        if self._head or self.flow.write_paused or self.disconnected or not self.chunked_encoding:
            return False
        self.transport.write(part.chunk)
        return True

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Sends the whole response at once."""
        self._start(status, headers)
        self._body(body, last=True)

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status], cast(CommonHeaders, self.default_headers).lines()]
        closes = False
        for name, value in headers:
            lines.append(_line(name, value))
            if name == b"content-length":
                self.expected_content_length, self.chunked_encoding = int(value), False
            elif name == b"transfer-encoding":
                self.expected_content_length, self.chunked_encoding = 0, True
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive, closes = False, True
        if not self.keep_alive and not closes:
            lines.append(b"Connection: close\r\n")
        self._headless = self.scope["method"] == "HEAD"
        if self.chunked_encoding is None and not self._headless and status not in (204, 304):
            self.chunked_encoding = True
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _body(self, body: Any, *, last: bool) -> None:
        parts = [self._head] if self._head else []
        self._head = b""
        if self._headless:
            self.expected_content_length = 0
        elif self.chunked_encoding:
            if body:
                parts += (b"%x\r\n" % len(body), body, b"\r\n")
            if last:
                parts.append(b"0\r\n\r\n")
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the response is longer than its Content-Length")
            parts.append(body)
        self.transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        if last:
            self._end()

    def _end(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("the response is shorter than its Content-Length")
        if self.more_body and not self.keep_alive:
            # Closing now, with unread data, would reset the connection and lose the response.
            self.lingers = self.keep_alive = True
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
