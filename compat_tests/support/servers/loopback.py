"""Servers of the tests, in a thread, on a free loopback port."""

from __future__ import annotations

import http.server
import socketserver
import threading
from types import TracebackType
from typing import Self

DEADLINE = 60.0


class LoopbackServer:
    """Serves during the block. ``handler`` is called for each connection, in a thread of its own.

    ``speaks``: the server class, HTTP by default.
    """

    def __init__(
        self,
        handler: type[socketserver.BaseRequestHandler],
        *,
        speaks: type[socketserver.TCPServer] = http.server.ThreadingHTTPServer,
    ) -> None:
        self._server = speaks(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """A handler that writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
