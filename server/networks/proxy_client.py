"""The client of wharf-proxy: starts it at the first use, finds a running one, and restarts it if it dies.

This module keeps the state that the proxy must have, so that a new proxy can get it.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.common.sockets import BACKLOG
from engine.common.system import daemon
from engine.proxy.forward import Listen
from engine.proxy.proxy import VERSION
from engine.proxy.upstreams import Upstream

log = logging.getLogger(__name__)

_LENGTH = struct.Struct(">I")
_TRIES = 3  # the number of successive proxies that may die during one request
Names = Mapping[str, Sequence[tuple[str, str]]]


class PortInUse(WharfError):
    """Another program of the host has a port."""

    def __init__(self, host: str, port: int, text: str) -> None:
        super().__init__(Kind.INTERNAL, text)
        self.host = host
        self.port = port


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """The parameters of one container's name service (see ``resolver.View``)."""

    netns: str
    zones: tuple[str, ...]
    links: Mapping[str, Mapping[str, str]]
    upstreams: tuple[Upstream, ...]

    def wire(self) -> dict[str, Any]:
        return {
            "op": "view",
            "netns": self.netns,
            "zones": self.zones,
            "links": dict(self.links),
            "upstreams": [(item.address, item.host) for item in self.upstreams],
        }


@dataclass(frozen=True, slots=True)
class Zone:
    """The names of one network (see ``resolver.Zone``)."""

    name: str
    names: Names
    pointers: Mapping[str, str]

    def wire(self) -> dict[str, Any]:
        return {"op": "zone", "name": self.name, "names": dict(self.names), "pointers": dict(self.pointers)}


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    task: "asyncio.Task[None]"
    waiting: dict[int, "asyncio.Future[dict[str, Any]]"] = field(default_factory=dict)


class Forwarder:
    """The proxy of one engine.

    :param path: its socket, in a directory that only root can enter.
    :param rewired: called when a container's name service got other ports (after a restart of the proxy).
    """

    def __init__(self, path: str, rewired: Callable[[str, int, int], Awaitable[None]] | None = None) -> None:
        self._path = path
        self._rewired = rewired
        self._connection: _Connection | None = None
        self._lock = asyncio.Lock()
        self._number = 0
        self._closing = False
        self._healing: asyncio.Task[None] | None = None
        self._listens: dict[str, list[Listen]] = {}
        self._zones: dict[str, Zone] = {}
        self._views: dict[str, ViewRequest] = {}

    @property
    def running(self) -> bool:
        return self._connection is not None

    async def recover(
        self,
        listens: Mapping[str, Sequence[Listen]],
        views: Mapping[str, ViewRequest],
        zones: Mapping[str, Zone],
    ) -> dict[str, tuple[int, int]]:
        """After a start of wharfd: connects to a running proxy and sends it the state.

        Returns the name service's (UDP, TCP) ports of each view. Ports that can't be bound any more are logged: the
        rules still forward their traffic.
        """
        self._listens = {owner: list(items) for owner, items in listens.items()}
        self._views = dict(views)
        self._zones = dict(zones)
        for _ in range(_TRIES):
            async with self._lock:
                found = self._connection is not None or await self._connect()
                if not found and not self._needed:
                    return {}
                if not found:
                    await self._start()
                # The proxy may die meanwhile: the next one gets everything.
                with contextlib.suppress(_Lost):
                    return await self._send_state()
        raise WharfError(Kind.UNAVAILABLE, "wharf-proxy does not stay alive")

    @property
    def _needed(self) -> bool:
        return bool(self._listens or self._views)

    async def publish(self, owner: str, listens: Sequence[Listen]) -> None:
        """Binds (and where needed serves) ports.

        :raises PortInUse: nothing was bound.
        """
        request = {"op": "publish", "owner": owner, "listens": [tuple(item) for item in listens]}
        sent = asyncio.ensure_future(self._request(request))
        try:
            answer = await asyncio.shield(sent)
        except asyncio.CancelledError:
            # The proxy has them already, and no later request would release them.
            await asyncio.wait([sent])
            await self._request({"op": "release", "owner": owner})
            raise
        _raise(answer)
        self._listens.setdefault(owner, []).extend(listens)

    async def release(self, owner: str) -> None:
        """Releases all ports of an owner; does nothing if it has none."""
        if self._listens.pop(owner, None) and self._connection:
            await self._request({"op": "release", "owner": owner})

    async def set_zone(self, key: str, zone: Zone) -> None:
        """Sets the names of a network. They are sent later if no container's name service runs."""
        self._zones[key] = zone
        if self._connection or self._views:
            _raise(await self._request({**zone.wire(), "key": key}))

    async def drop_zone(self, key: str) -> None:
        if self._zones.pop(key, None) and self._connection:
            await self._request({"op": "drop_zone", "key": key})

    async def view(self, key: str, request: ViewRequest) -> tuple[int, int]:
        """Starts a container's name service, or changes its view; returns the UDP and TCP ports."""
        answer = await self._request({**request.wire(), "key": key})
        _raise(answer)
        self._views[key] = request
        return answer["udp"], answer["tcp"]

    async def drop_view(self, key: str) -> None:
        if self._views.pop(key, None) and self._connection:
            await self._request({"op": "drop_view", "key": key})

    async def close(self, *, end: bool) -> None:
        """Disconnects from the proxy, which continues; with ``end`` the proxy is stopped."""
        self._closing = True
        if self._healing:
            self._healing.cancel()
        if self._connection is None and end:
            async with self._lock:
                await self._connect()
        connection = self._connection
        if connection is None:
            return
        if end:
            with contextlib.suppress(WharfError):
                await self._ask(connection, {"op": "quit"})
        connection.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connection.task
        connection.writer.close()
        self._connection = None

    async def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        for _ in range(_TRIES):
            connection = self._connection or await self._revive()
            try:
                return await self._ask(connection, request)
            except _Lost:
                continue
        raise WharfError(Kind.UNAVAILABLE, "wharf-proxy does not stay alive")

    async def _revive(self) -> _Connection:
        async with self._lock:
            if self._connection is None:
                if not await self._connect():
                    await self._start()
                if self._needed or self._zones:
                    await self._send_state()
            assert self._connection is not None
            return self._connection

    async def _ask(self, connection: _Connection, request: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        number = self._number
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        connection.waiting[number] = future
        data = json.dumps({**request, "n": number}, separators=(",", ":")).encode()
        try:
            connection.writer.write(_LENGTH.pack(len(data)) + data)
            async with timeouts.limit("network.proxy"):
                return await future
        finally:
            connection.waiting.pop(number, None)

    async def _connect(self) -> bool:
        """Connects to a running proxy; returns False if there is none with the same version. Call it under the lock."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        connection = _Connection(reader, writer, asyncio.current_task())  # type: ignore[arg-type]
        connection.task = asyncio.create_task(self._read(connection), name="proxy-answers")
        try:
            hello = await self._ask(connection, {"op": "hello"})
            if hello["version"] != VERSION:
                with contextlib.suppress(_Lost):
                    await self._ask(connection, {"op": "quit"})
                await connection.task
                return False
        except _Lost:
            return False
        except BaseException:
            # Only this task references its reader, which would be garbage-collected while it waits.
            connection.task.cancel()
            raise
        self._connection = connection
        return True

    async def _start(self) -> None:
        """Starts a proxy on a socket that is bound here: the first request waits in its queue."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            old = os.umask(0o177)
            try:
                listener.bind(self._path)
            finally:
                os.umask(old)
            listener.listen(BACKLOG)
            await asyncio.to_thread(daemon.start, "engine.proxy.proxy", stdin=listener.fileno())
        finally:
            listener.close()
        if not await self._connect():
            raise WharfError(Kind.UNAVAILABLE, "wharf-proxy did not start")

    async def _send_state(self) -> dict[str, tuple[int, int]]:
        """Makes the proxy's state equal to this object's; unchanged parts keep running."""
        connection = self._connection
        assert connection is not None
        hello = await self._ask(connection, {"op": "hello"})
        for owner in set(hello["owners"]) - set(self._listens):
            await self._ask(connection, {"op": "release", "owner": owner})
        for key in set(hello["views"]) - set(self._views):
            await self._ask(connection, {"op": "drop_view", "key": key})
        for key in set(hello["zones"]) - set(self._zones):
            await self._ask(connection, {"op": "drop_zone", "key": key})
        for owner in set(self._listens) - set(hello["owners"]):
            listens = [tuple(item) for item in self._listens[owner]]
            answer = await self._ask(connection, {"op": "publish", "owner": owner, "listens": listens})
            if "error" in answer:
                log.warning("ports of endpoint %s cannot be bound: %s", owner, answer["error"])
        for key, zone in self._zones.items():
            await self._ask(connection, {**zone.wire(), "key": key})
        ports = {}
        for key, view in self._views.items():
            answer = await self._ask(connection, {**view.wire(), "key": key})
            if "error" in answer:
                log.warning("no name service for container %s: %s", key, answer["error"])
                continue
            ports[key] = (answer["udp"], answer["tcp"])
        return ports

    async def _read(self, connection: _Connection) -> None:
        lost = False  # it died, and the task was not cancelled
        try:
            while True:
                (length,) = _LENGTH.unpack(await connection.reader.readexactly(_LENGTH.size))
                answer = json.loads(await connection.reader.readexactly(length))
                future = connection.waiting.pop(answer["n"], None)
                if future and not future.done():
                    future.set_result(answer)
        except (asyncio.IncompleteReadError, OSError):
            lost = True
        finally:
            connection.writer.close()
            for future in connection.waiting.values():
                if not future.done():
                    future.set_exception(_Lost())
            connection.waiting.clear()
            if self._connection is connection:
                self._connection = None
                if lost and self._needed and not self._closing:
                    log.warning("wharf-proxy ended; starting another")
                    self._healing = asyncio.create_task(self._heal(), name="proxy-heal")

    async def _heal(self) -> None:
        try:
            async with self._lock:
                if self._connection is not None:
                    return
                if not await self._connect():
                    await self._start()
                ports = await self._send_state()
            if self._rewired:
                for key, (udp, tcp) in ports.items():
                    await self._rewired(key, udp, tcp)
        except (WharfError, OSError) as error:
            log.error("wharf-proxy cannot be started: %s", error)


class _Lost(WharfError):
    """The proxy died before it answered."""

    def __init__(self) -> None:
        super().__init__(Kind.UNAVAILABLE, "wharf-proxy ended")


def _raise(answer: Mapping[str, Any]) -> None:
    if "error" not in answer:
        return
    if "port" in answer:
        raise PortInUse(answer["host"], answer["port"], answer["error"])
    raise WharfError(Kind.INTERNAL, f"wharf-proxy: {answer['error']}")
