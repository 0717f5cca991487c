"""A proxy in front of a registry: records every request, and cuts, delays or answers those that a test selects."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from compat_tests.support.polling import until
from compat_tests.support.servers.loopback import DEADLINE, LoopbackServer, QuietHandler


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case

    @property
    def offset(self) -> int:
        """The start of the requested range; 0 for the whole."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@dataclass(frozen=True, slots=True)
class Cut:
    """Breaks the connection after this many bytes of the body (of an upload: of the request's body)."""

    after: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Sends this many bytes of the answer's body, then waits for ``go``."""

    after: int = 0
    go: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in place of the registry's."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Rule = Callable[[Seen], Cut | Hold | Reply | None]


class Gate(LoopbackServer):
    """``address`` replaces the registry's address in names. ``rule`` may be changed at any time."""

    def __init__(self, registry: str, rule: Rule = lambda seen: None) -> None:
        self.registry = registry
        self.rule = rule
        self.seen: list[Seen] = []
        self.left: list[Seen] = []  # requests whose client disconnected while they were delayed
        gate = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
                gate.seen.append(seen)
                with contextlib.suppress(ConnectionError, TimeoutError, http.client.HTTPException):
                    if gate._serve(self, seen):
                        return
                self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        super().__init__(Handler)

    def asked(self, method: str, part: str) -> list[Seen]:
        """Return the requests so far whose path contains this text."""
        return [seen for seen in list(self.seen) if seen.method == method and part in seen.path]

    # one request

    def _serve(self, handler: http.server.BaseHTTPRequestHandler, seen: Seen) -> bool:
        """Serve a request; return ``False`` if the connection can't be used again."""
        action = self.rule(seen)
        length = int(seen.headers.get("content-length", "0"))
        if isinstance(action, Reply):
            handler.rfile.read(length)
            handler.send_response(action.status)
            for name, value in {"Content-Length": str(len(action.body)), **action.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            if seen.method != "HEAD":
                handler.wfile.write(action.body)
            return True
        host, port = self.registry.split(":")
        upstream = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        try:
            upstream.putrequest(seen.method, seen.path, skip_host=True, skip_accept_encoding=True)
            for name, value in seen.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders()
            for piece in _pieces(handler.rfile.read, length):
                if isinstance(action, Cut) and length > action.after:
                    upstream.send(piece[: action.after])
                    return False
                upstream.send(piece)
            return self._answer(handler, seen, upstream.getresponse(), action)
        finally:
            upstream.close()

    def _answer(
        self,
        handler: http.server.BaseHTTPRequestHandler,
        seen: Seen,
        answer: http.client.HTTPResponse,
        action: Cut | Hold | None,
    ) -> bool:
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "connection", "transfer-encoding"):
                handler.send_header(name, value)
        handler.end_headers()
        if seen.method == "HEAD":
            return True
        sent = 0
        stop = action.after if action is not None else None
        while data := answer.read(min(65536, stop - sent) if stop is not None and stop > sent else 65536):
            if stop is not None and sent >= stop:
                if isinstance(action, Cut):
                    return False
                assert action is not None
                handler.wfile.flush()
                action.reached.set()
                if not self._held(handler, action):
                    self.left.append(seen)
                    return False
                stop = None
            handler.wfile.write(data)
            sent += len(data)
        return True

    def _held(self, handler: http.server.BaseHTTPRequestHandler, action: Hold) -> bool:
        """Wait for ``go``; return ``False`` if the client disconnects first."""
        handler.connection.settimeout(0.05)
        gone = False

        def over() -> bool:
            nonlocal gone
            try:
                gone = not handler.connection.recv(1)
            except TimeoutError:
                pass
            except ConnectionError:  # it closed with unread data, so its kernel reset the connection
                gone = True
            return gone or action.go.is_set()

        until(over, seconds=2 * DEADLINE)
        handler.connection.settimeout(None)
        return not gone


def _pieces(read: Callable[[int], bytes], length: int) -> Iterator[bytes]:
    while length > 0:
        piece = read(min(length, 65536))
        if not piece:
            raise ConnectionError("the client went away")
        length -= len(piece)
        yield piece
