"""A proxy between a client and an engine's unix socket that checks the engine's JSON answers.

Every byte passes unchanged and at once, in both directions, and so does the end of one direction: hijacked connections,
streams and HTTP/2 work as without the proxy.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import queue
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from compat_tests.support.servers.loopback import ServerThread
from compat_tests.swagger.check import Deviation, check

_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and the status of its answer. ``target``: the path as it was sent."""

    method: str
    target: str
    status: int


class CheckingProxy(ServerThread):
    """Listens on the socket ``path`` during the block and connects each client to the engine's socket.

    ``exchanges`` and ``deviations`` are complete after the block, whose end waits for the clients' connections.
    """

    def __init__(self, engine: Path, path: Path) -> None:
        self.path = path
        self.exchanges: list[Exchange] = []
        self.deviations: list[str] = []
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as upstream:
                    upstream.connect(str(engine))
                    _Connection(proxy, self.request, upstream).serve()

        super().__init__(socketserver.ThreadingUnixStreamServer(str(path), Handler))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.path.unlink(missing_ok=True)

    def answered(self, exchange: Exchange, headers: http.client.HTTPMessage, body: bytes) -> None:
        """Record an answer and check it; its body is empty if it is no JSON document."""
        self.exchanges.append(exchange)
        media_type, newest = (headers.get(name, "") for name in ("Content-Type", "Api-Version"))
        try:
            check(exchange.method, exchange.target, exchange.status, media_type, newest, body)
        except Deviation as deviation:
            self.deviations.append(str(deviation))


class _Forwarded(io.RawIOBase):
    """What ``source`` sends. A read passes what it returns on to ``target``, and the end, too."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source = source
        self._target = target

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._source.recv_into(buffer)
        if count:
            self._target.sendall(buffer[:count])
        else:
            self._target.shutdown(socket.SHUT_WR)
        return count


class _Connection:
    """One client's connection: a thread reads the requests, the caller's the answers."""

    def __init__(self, proxy: CheckingProxy, client: socket.socket, engine: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._engine = engine
        # Method and target of each request that has no answer yet; None: what follows is not HTTP/1.1.
        self._requests: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()

    def serve(self) -> None:
        thread = threading.Thread(target=self._pass_requests, daemon=True)
        thread.start()
        self._pass_answers()
        thread.join()

    def _pass_requests(self) -> None:
        with _end_of(self._client, self._engine):
            stream = io.BufferedReader(_Forwarded(self._client, self._engine), _CHUNK)
            try:
                while line := stream.readline():
                    method, target, protocol = line.decode("latin-1").split()
                    if protocol != "HTTP/1.1":
                        break
                    headers = http.client.parse_headers(stream)
                    self._requests.put((method, target))
                    if "Upgrade" in headers:
                        break
                    _drain(_body(stream, headers, until_end=False))
            finally:
                self._requests.put(None)
            _drain(_rest(stream))

    def _pass_answers(self) -> None:
        with _end_of(self._engine, self._client):
            stream = io.BufferedReader(_Forwarded(self._engine, self._client), _CHUNK)
            request = None
            while stream.peek(1):
                request = request or self._requests.get()
                if request is None:
                    break
                status = int(stream.readline().split()[1])
                headers = http.client.parse_headers(stream)
                if status == 100:
                    continue
                exchange = Exchange(*request, status)
                body = b""
                if status == 101 or exchange.method == "HEAD" or status in (204, 304):
                    pass
                elif headers.get_content_type() == "application/json":
                    body = b"".join(_body(stream, headers, until_end=True))
                else:
                    _drain(_body(stream, headers, until_end=True))
                self._proxy.answered(exchange, headers, body)
                request = None
                if status == 101:
                    break
            _drain(_rest(stream))


@contextlib.contextmanager
def _end_of(source: socket.socket, target: socket.socket) -> Iterator[None]:
    """End the connection of ``target`` as soon as ``source`` is closed in both directions, or the block fails."""
    with contextlib.suppress(OSError):  # one side has gone
        try:
            yield
            # After the end of one direction the other continues. Without registered events, the poll reports POLLHUP.
            poll = select.poll()
            poll.register(source, 0)
            poll.poll()
        finally:
            target.shutdown(socket.SHUT_RDWR)


def _body(
    stream: io.BufferedReader[_Forwarded], headers: http.client.HTTPMessage, *, until_end: bool
) -> Iterator[bytes]:
    """Yield the parts of a message's body. ``until_end``: a body without a length ends with the connection."""
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        while size := int(stream.readline().partition(b";")[0], 16):
            yield from _exactly(stream, size)
            stream.readline()
        while stream.readline().strip():
            pass  # trailers
    elif "Content-Length" in headers:
        yield from _exactly(stream, int(headers["Content-Length"]))
    elif until_end:
        yield from _rest(stream)


def _exactly(stream: io.BufferedReader[_Forwarded], size: int) -> Iterator[bytes]:
    while size and (data := stream.read1(min(size, _CHUNK))):
        size -= len(data)
        yield data


def _rest(stream: io.BufferedReader[_Forwarded]) -> Iterator[bytes]:
    while data := stream.read1(_CHUNK):
        yield data


def _drain(parts: Iterator[bytes]) -> None:
    for _ in parts:
        pass
