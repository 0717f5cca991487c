"""A proxy in front of a registry: records each request, and cuts, delays or answers those that a test selects."""

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
class RecordedRequest:
    """A request that the proxy received."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case

    @property
    def offset(self) -> int:
        """The start of the requested range; 0 for the whole."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection after this many bytes of the body (of an upload: of the request's body)."""

    after: int


@dataclass(frozen=True, slots=True)
class Delay:
    """Send this many bytes of the answer's body, then waits for ``resume``."""

    after: int = 0
    resume: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in place of the registry's."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Rule = Callable[[RecordedRequest], Cut | Delay | Reply | None]


class RegistryProxy(LoopbackServer):
    """A proxy whose ``address`` replaces the registry's in names.

    ``rule`` selects what to do with a request, ``None`` to forward it; a test may change it at any time.
    """

    def __init__(self, registry: str, rule: Rule = lambda request: None) -> None:
        self.registry = registry
        self.rule = rule
        self.requests: list[RecordedRequest] = []
        self.sent = 0  # bytes of answers' bodies
        self.disconnected: list[RecordedRequest] = []  # requests whose client disconnected while they were delayed
        proxy = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                request = RecordedRequest(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
                proxy.requests.append(request)
                with contextlib.suppress(ConnectionError, TimeoutError, http.client.HTTPException):
                    if proxy._serve(self, request):
                        return
                self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        super().__init__(Handler)

    def requests_for(self, method: str, part: str) -> list[RecordedRequest]:
        """Return the requests so far whose path contains this text."""
        return [request for request in list(self.requests) if request.method == method and part in request.path]

    def _serve(self, handler: http.server.BaseHTTPRequestHandler, request: RecordedRequest) -> bool:
        """Serve a request; return ``False`` if the connection can't be used again."""
        action = self.rule(request)
        length = int(request.headers.get("content-length", "0"))
        if isinstance(action, Reply):
            handler.rfile.read(length)
            handler.send_response(action.status)
            for name, value in {"Content-Length": str(len(action.body)), **action.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            if request.method != "HEAD":
                handler.wfile.write(action.body)
            return True
        host, port = self.registry.split(":")
        upstream = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        try:
            upstream.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders()
            for piece in _pieces(handler.rfile.read, length):
                if isinstance(action, Cut) and length > action.after:
                    upstream.send(piece[: action.after])
                    return False
                upstream.send(piece)
            return self._answer(handler, request, upstream.getresponse(), action)
        finally:
            upstream.close()

    def _answer(
        self,
        handler: http.server.BaseHTTPRequestHandler,
        request: RecordedRequest,
        answer: http.client.HTTPResponse,
        action: Cut | Delay | None,
    ) -> bool:
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "connection", "transfer-encoding"):
                handler.send_header(name, value)
        handler.end_headers()
        if request.method == "HEAD":
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
                if not self._wait(handler, action):
                    self.disconnected.append(request)
                    return False
                stop = None
            handler.wfile.write(data)
            sent += len(data)
            self.sent += len(data)
        return True

    def _wait(self, handler: http.server.BaseHTTPRequestHandler, action: Delay) -> bool:
        """Wait for ``resume``; return ``False`` if the client disconnects first."""
        handler.connection.settimeout(0.05)
        disconnected = False

        def over() -> bool:
            nonlocal disconnected
            try:
                disconnected = not handler.connection.recv(1)
            except TimeoutError:
                pass
            except ConnectionError:  # it closed with unread data, so its kernel reset the connection
                disconnected = True
            return disconnected or action.resume.is_set()

        until(over, seconds=2 * DEADLINE)
        handler.connection.settimeout(None)
        return not disconnected


def _pieces(read: Callable[[int], bytes], length: int) -> Iterator[bytes]:
    while length > 0:
        piece = read(min(length, 65536))
        if not piece:
            raise ConnectionError("the client disconnected")
        length -= len(piece)
        yield piece
