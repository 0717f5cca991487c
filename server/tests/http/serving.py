"""A small API on real sockets for the tests of the HTTP layer, in a thread with its own loop."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from server.app import EngineApp
from server.http.routing import ApiRoute
from server.http.server import HttpServer
from server.http.versioning import common_headers

DEADLINE = 60.0


@dataclass
class Serving:
    """The addresses of the server, and its loop."""

    path: str
    loop: asyncio.AbstractEventLoop
    server: HttpServer
    app: EngineApp
    tls_port: int = 0

    def run(self, work: Coroutine[object, object, object]) -> None:
        """Runs it on the server's loop."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(self.path)
        return sock

    def ask(self, request: bytes) -> bytes:
        """Sends the request, and reads until the server closes."""
        with self.connect() as sock:
            sock.sendall(request)
            return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Reads up to and including ``end``, byte by byte so that no later byte is consumed."""
    data = b""
    while not data.endswith(end):
        part = sock.recv(1)
        if not part:
            break
        data += part
    return data


@contextmanager
def serving(directory: Path, routes: Sequence[ApiRoute], tls: ssl.SSLContext | None = None) -> Iterator[Serving]:
    """Serves ``routes`` on a unix socket in ``directory`` (and on loopback with TLS)."""
    path = str(directory / "api.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    loop = uvloop.new_event_loop()
    app = EngineApp(routes, None)
    server = HttpServer(app, common_headers(experimental=False))
    running = Serving(path, loop, server, app)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    try:
        running.run(server.listen(listener))
        if tls is not None:
            tcp = socket.socket()
            tcp.bind(("127.0.0.1", 0))
            running.tls_port = tcp.getsockname()[1]
            running.run(server.listen(tcp, tls))
        yield running
    finally:
        running.run(server.close(5))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
