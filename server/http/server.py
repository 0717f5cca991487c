"""Accepts connections with uvicorn's configuration and protocol. uvicorn's own server wakes ten times per second and
makes unix sockets world-writable."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from socket import AF_UNIX, SO_KEEPALIVE, SOL_SOCKET, socket

from uvicorn.config import Config
from uvicorn.server import ServerState

from engine.common.sockets import BACKLOG
from server.http.application import Application
from server.http.cycle import CommonHeaders
from server.http.protocol import EngineProtocol
from server.http.tls import TlsConnection

log = logging.getLogger(__name__)


def _same(context: ssl.SSLContext) -> ssl.SSLContext:
    return context


class HttpServer:
    """Serves an ASGI app on sockets that are bound already."""

    def __init__(self, app: Application, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._config = Config(
            app,
            http=EngineProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self._config.load()
        self.state = ServerState()
        self.state.default_headers = CommonHeaders(headers)
        self._servers: list[asyncio.Server] = []

    def _protocol(self) -> EngineProtocol:
        return EngineProtocol(self._config, self.state, {})

    async def listen(
        self, sock: socket, context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None
    ) -> asyncio.Server:
        """Accepts on a listening socket, with TLS if a context is given, or a function that returns one for each
        connection. Close what it returns to end that."""
        loop = asyncio.get_running_loop()
        sock.settimeout(0)
        if sock.family == AF_UNIX:
            # Not create_unix_server: on Python 3.13 that unlinks the path at the end, which may be systemd's.
            server = await loop.create_server(self._protocol, sock=sock, backlog=BACKLOG)
        else:
            # Accepted sockets inherit it: a client that vanished silently is detected eventually.
            sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
            if context is None:
                server = await loop.create_server(self._protocol, sock=sock, backlog=BACKLOG)
            else:
                current = partial(_same, context) if isinstance(context, ssl.SSLContext) else context
                server = await loop.create_server(
                    lambda: TlsConnection(current(), self._protocol, loop), sock=sock, backlog=BACKLOG
                )
        self._servers.append(server)
        return server

    def drop(self, path: str) -> None:
        """Ends the connections of a unix socket at once."""
        for connection in list(self.state.connections):
            sock = connection.transport.get_extra_info("socket")
            if sock is not None and sock.family == AF_UNIX and sock.getsockname() == path:
                connection.transport.abort()

    async def close(self, grace: float) -> None:
        """Stops accepting, waits ``grace`` seconds for running requests, then cancels them."""
        for server in self._servers:
            server.close()
        for connection in list(self.state.connections):
            connection.shutdown()
        running = [task for task in self.state.tasks if not task.done()]
        if running:
            _, late = await asyncio.wait(running, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d requests did not end within %s s and are cancelled", len(late), grace)
                await asyncio.wait(late, timeout=5)
        for connection in list(self.state.connections):
            with suppress(Exception):
                connection.transport.abort()
