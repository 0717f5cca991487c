"""One request and its response, written in as few bytes' copies and system calls as there can be.

Head and body leave together, and what all answers have in common is encoded once a second: that is a third of what a
short answer costs.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from server.http.flow import Flow
from server.http.streams import BrokenStream

log = logging.getLogger(__name__)

_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}

# Names as Go writes them: scripts look for them in the output of curl.
_spelled: dict[bytes, bytes] = {}


def _line(name: bytes, value: bytes) -> bytes:
    """:raises RuntimeError: a value that would end its line."""
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


class Cycle:
    """The app's side of a request (``receive``) and of its response (``send``)."""

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: Flow,
        common: CommonHeaders,
        *,
        expects_continue: bool,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        """``on_response`` is called when the response is complete."""
        self.scope = scope
        self.keep_alive = keep_alive
        # What came of the body and was not asked for yet, and whether more comes.
        self.body = bytearray()
        self.more_body = True
        # Set whenever ``receive`` has something to look at.
        self.news = asyncio.Event()
        self.disconnected = False
        self.response_started = self.response_complete = False
        # The rest of a body is read and thrown away after the answer.
        self.lingers = False
        self._transport, self._flow, self._common = transport, flow, common
        self._on_response = on_response
        self._continues = expects_continue
        # None: neither was said.
        self._chunked: bool | None = None
        # Bytes of the body that are still due.
        self._due = 0
        # A head that waits for its body, to be written with it.
        self._head = b""
        self._headless = False

    async def run_asgi(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            # The client left or the daemon stops; half an answer must not look whole.
            if not self.response_complete:
                self._transport.abort()
            raise
        except BrokenStream:
            self._transport.abort()
        except Exception:
            log.exception("%s %s", self.scope["method"], self.scope["path"])
            self._transport.abort()
        else:
            if not self.response_complete and not self.disconnected:
                log.error("%s %s: no complete answer", self.scope["method"], self.scope["path"])
                self._transport.abort()
        finally:
            self._on_response = lambda: None

    async def receive(self) -> Message:
        """The next piece of the body, or the news that the client is gone or has its answer."""
        if self._continues and not self._transport.is_closing():
            self._continues = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.response_complete:
            self._flow.resume_reading()
            await self.news.wait()
            self.news.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """A message of the app: the head, then the body in any number of parts.

        :raises RuntimeError: the app doesn't keep to that.
        """
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if not self.response_started and message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        elif self.response_started and not self.response_complete and message["type"] == "http.response.body":
            self._body(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected message {message['type']}")

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """The whole response at once."""
        self._start(status, headers)
        self._body(body, last=True)

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self._continues = False
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._common.lines()]
        closes = False
        for name, value in headers:
            lines.append(_line(name, value))
            if name == b"content-length":
                self._due, self._chunked = int(value), False
            elif name == b"transfer-encoding":
                self._due, self._chunked = 0, True
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive, closes = False, True
        if not self.keep_alive and not closes:
            lines.append(b"Connection: close\r\n")
        self._headless = self.scope["method"] == "HEAD"
        if self._chunked is None and not self._headless and status not in (204, 304):
            self._chunked = True
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _body(self, body: Any, *, last: bool) -> None:
        parts = [self._head] if self._head else []
        self._head = b""
        if self._headless:
            self._due = 0
        elif self._chunked:
            if body:
                parts += (b"%x\r\n" % len(body), body, b"\r\n")
            if last:
                parts.append(b"0\r\n\r\n")
        else:
            self._due -= len(body)
            if self._due < 0:
                raise RuntimeError("the response is longer than its Content-Length")
            parts.append(body)
        self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        if last:
            self._end()

    def _end(self) -> None:
        if self._due:
            raise RuntimeError("the response is shorter than its Content-Length")
        if self.more_body and not self.keep_alive:
            # Closing now, with unread data, would reset the connection and eat the answer.
            self.lingers = self.keep_alive = True
        self.response_complete = True
        self.news.set()
        if not self.keep_alive:
            self._transport.close()
        self._on_response()
