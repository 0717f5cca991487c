"""Servers of the tests, in a thread: on a free loopback port, or on an address that the caller chooses."""

from __future__ import annotations

import http.server
import socketserver
import threading
from types import TracebackType
from typing import Self

DEADLINE = 60.0


class ServerThread:
    """Serves during the block, in a thread."""

    def __init__(self, server: socketserver.BaseServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)


class LoopbackServer(ServerThread):
    """``handler`` is called for each connection, in a thread of its own.

    ``speaks``: the server class, HTTP by default.
    """

    def __init__(
        self,
        handler: type[socketserver.BaseRequestHandler],
        *,
        speaks: type[socketserver.TCPServer] = http.server.ThreadingHTTPServer,
    ) -> None:
        server = speaks(("127.0.0.1", 0), handler)
        super().__init__(server)
        self.address = f"127.0.0.1:{server.server_address[1]}"


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """A handler that writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
