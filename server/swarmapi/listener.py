"""A TCP port of this node for other nodes, with TLS."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from engine.common.errors import Kind, WharfError
from engine.common.sockets import BACKLOG, join_host_port
from server.http.server import HttpServer
from server.swarm.operations.addresses import split
from server.swarm.remote.identity import Identity
from server.swarmapi.deferred import App, DeferredApp

log = logging.getLogger(__name__)

#: Seconds of silence after which the kernel asks whether the other side is there, and how often it asks; milliseconds
#: after which it gives up unacknowledged data. A node that vanished would keep its streams for many minutes.
_IDLE, _INTERVAL, _PROBES, _USER_TIMEOUT = 15, 5, 3, 30_000

#: Seconds for requests that are under way when the port is closed.
_GRACE = 1.0

#: Seconds between two attempts to open a port that is in use.
_AGAIN = 10.0


class SwarmListener:
    """Serves what ``load`` returns, with the certificate that ``identity`` has when a connection begins. ``load``: see
    ``DeferredApp``."""

    def __init__(self, load: Callable[[], App], identity: Identity) -> None:
        self._server = HttpServer(DeferredApp(load), [])
        self._identity = identity
        self._sock: socket.socket | None = None

    async def open(self, address: str) -> str:
        """Binds an IP address with a port, 0: any; returns the address with its port.

        :raises WharfError: INVALID_ARGUMENT: it is no address; UNAVAILABLE: it is in use, or none of this machine.
        """
        parts = split(address)
        if parts is None or not parts[1].isdecimal():
            raise WharfError(Kind.INVALID_ARGUMENT, f"could not parse listen address {address}")
        host, port = parts[0], int(parts[1])
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            sock = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")
        except (OSError, OverflowError) as error:
            # create_server adds the address to the text of the error.
            reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)).lower()
            sentence = f"failed to listen on remote API address: listen tcp {address}: bind: {reason}"
            raise WharfError(Kind.UNAVAILABLE, sentence) from None
        for option, value in (
            (socket.TCP_KEEPIDLE, _IDLE),
            (socket.TCP_KEEPINTVL, _INTERVAL),
            (socket.TCP_KEEPCNT, _PROBES),
            (socket.TCP_USER_TIMEOUT, _USER_TIMEOUT),
        ):
            # Accepted sockets inherit them.
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self._sock = sock
        await self._server.listen(sock, self._identity.server)
        return join_host_port(*sock.getsockname()[:2])

    async def close(self) -> None:
        """Ends streams at once, and waits a moment for other requests."""
        await self._server.close(_GRACE)
        if self._sock is not None:
            self._sock.close()


class PatientListener:
    """Opens ``listener`` on ``address`` as soon as the address is free: for a port without which this node works, such
    as that of several nodes on one machine. ``lacking``: what is missing until then, for the log."""

    def __init__(self, listener: SwarmListener, address: str, lacking: str, again: float = _AGAIN) -> None:
        self._listener = listener
        self._address = address
        self._lacking = lacking
        self._again = again
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Returns after the first attempt."""
        if not await self._attempt():
            self._opening = asyncio.create_task(self._retry(), name=f"listen {self._address}")

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._listener.close()

    async def _attempt(self) -> bool:
        try:
            await self._listener.open(self._address)
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            if self._opening is None:
                log.warning("%s: %s", self._lacking, error.message)
            return False
        return True

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(self._again)
            if await self._attempt():
                log.info("listening on %s now", self._address)
                return
