"""The embedded DNS server at 127.0.0.11 of containers on user networks.

Names of a container's networks are answered from memory. Other questions are forwarded to the container's name servers,
from inside its namespace, or from the host's if the server is on the host's own loopback.
"""

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.common.sockets import BACKLOG
from engine.common.system.linux import CLONE_NEWNET, in_namespace
from engine.proxy import dnsmessage
from engine.proxy.dnsmessage import Query
from engine.proxy.reactor import READ, WRITE, Reactor
from engine.proxy.upstreams import ForwardedQuery, Upstream

LISTEN = "127.0.0.11"
_IDLE = 30.0  # seconds until an idle TCP client is closed
_CONCURRENT = 1024  # forwarded questions that may wait for their answers; further ones are answered with SERVFAIL
_DATAGRAM = 1 << 16  # bytes of the largest question

Reply = Callable[[bytes], None]


class Zone(NamedTuple):
    """The names of one network. ``names``: lower case → [(IPv4, IPv6)], either may be empty."""

    name: str
    names: dict[str, list[tuple[str, str]]]
    pointers: dict[str, str]


class View:
    """The names visible to one container: its networks in order, its name servers, and for each network its own aliases
    of other containers' names (``links``: network → lower case alias → name)."""

    __slots__ = ("clients", "links", "netns", "tcp", "udp", "upstreams", "zones")

    def __init__(
        self,
        netns: str,
        zones: list[str],
        links: dict[str, dict[str, str]],
        upstreams: list[Upstream],
        sockets: tuple[socket.socket, socket.socket],
    ) -> None:
        self.netns, self.zones, self.links, self.upstreams = netns, zones, links, upstreams
        self.udp, self.tcp = sockets
        self.clients: set[_TcpClient] = set()


class Resolver:
    """All zones and views."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._zones: dict[str, Zone] = {}
        self._views: dict[str, View] = {}
        self._asking = 0
        self._turn = 0

    def __len__(self) -> int:
        return len(self._views)

    def views(self) -> list[str]:
        return list(self._views)

    def set_zone(
        self, key: str, name: str, records: dict[str, list[tuple[str, str]]], pointers: dict[str, str]
    ) -> None:
        """Replaces the names of one network."""
        self._zones[key] = Zone(name, records, pointers)

    def drop_zone(self, key: str) -> None:
        self._zones.pop(key, None)

    def zones(self) -> list[str]:
        return list(self._zones)

    def add(
        self,
        key: str,
        path: str,
        zones: Sequence[str],
        links: dict[str, dict[str, str]],
        upstreams: Sequence[Upstream],
    ) -> tuple[int, int]:
        """Serves a container, or replaces its view; returns the UDP and TCP ports at 127.0.0.11.

        :raises OSError: the namespace can't be entered, or a socket can't be created there.
        """
        view = self._views.get(key)
        if view is not None and view.netns == path:
            view.zones, view.links, view.upstreams = list(zones), links, list(upstreams)
            return view.udp.getsockname()[1], view.tcp.getsockname()[1]
        if view is not None:
            self.remove(key)
        with in_namespace(path, CLONE_NEWNET):
            sockets = udp, tcp = _sockets()
        view = View(path, list(zones), links, list(upstreams), sockets)
        self._views[key] = view
        self._reactor.watch(udp, READ, lambda _: self._datagram(view))
        self._reactor.watch(tcp, READ, lambda _: self._accept(view))
        return udp.getsockname()[1], tcp.getsockname()[1]

    def remove(self, key: str) -> None:
        view = self._views.pop(key, None)
        if view is None:
            return
        for client in tuple(view.clients):
            client.close()
        for sock in (view.udp, view.tcp):
            self._reactor.forget(sock)
            sock.close()

    def _datagram(self, view: View) -> None:
        for _ in range(64):  # limited: a flood from one container must not block the others
            try:
                data, address = view.udp.recvfrom(_DATAGRAM)
            except OSError:
                return
            self.ask(view, data, _datagram_reply(view.udp, address), stream=False)

    def _accept(self, view: View) -> None:
        with contextlib.suppress(OSError):
            sock, _ = view.tcp.accept()
            view.clients.add(_TcpClient(self._reactor, sock, self, view))

    def ask(self, view: View, data: bytes, reply: Reply, *, stream: bool) -> None:
        """Answers one question; calls ``reply`` at once or later, or never for a malformed one."""
        try:
            query = dnsmessage.parse(data)
        except dnsmessage.Malformed:
            if len(data) >= 12 and not data[2] & 0x80:
                self._forward(view, data, None, reply, stream=stream)
            return
        answer = self._local(view, query, stream=stream)
        if answer is not None:
            reply(answer)
            return
        self._forward(view, data, query, reply, stream=stream)

    def _local(self, view: View, query: Query, *, stream: bool) -> bytes | None:
        if query.klass != dnsmessage.IN:
            return None
        if query.type in (dnsmessage.A, dnsmessage.AAAA):
            found = self._lookup(view, query.name)
            if found is None:
                return None
            family = 0 if query.type == dnsmessage.A else 1
            addresses = [pair[family] for pair in found if pair[family]]
            if len(addresses) > 1:
                # Rotate the addresses, so that clients that use the first one are spread.
                self._turn = (self._turn + 1) % len(addresses)
                addresses = addresses[self._turn :] + addresses[: self._turn]
            return dnsmessage.addresses(query, addresses, stream=stream)
        if query.type == dnsmessage.PTR:
            address = dnsmessage.pointer_address(query.name)
            if address is None:
                return None
            for key in view.zones:
                zone = self._zones.get(key)
                if zone and address in zone.pointers:
                    return dnsmessage.pointers(query, (zone.pointers[address],), stream=stream)
            return None
        # A local name has no other record types, and a server outside must not answer for it.
        if self._lookup(view, query.name) is not None:
            return dnsmessage.addresses(query, (), stream=stream)
        return None

    def _lookup(self, view: View, name: str) -> list[tuple[str, str]] | None:
        aliased = [(key, target) for key in view.zones if (target := view.links.get(key, {}).get(name))]
        # An alias precedes a name, and hides it on its own network only.
        hidden = {key for key, _ in aliased}
        for key, looked_up in (*aliased, *((key, name) for key in view.zones if key not in hidden)):
            if (found := self._named(key, looked_up)) is not None:
                return found
        return None

    def _named(self, key: str, name: str) -> list[tuple[str, str]] | None:
        """The addresses of a name on one network."""
        zone = self._zones.get(key)
        if zone is not None:
            if name in zone.names:
                return zone.names[name]
            # "name.network" is the name on that network.
            suffix = f".{zone.name.lower()}"
            if name.endswith(suffix) and name[: -len(suffix)] in zone.names:
                return zone.names[name[: -len(suffix)]]
        return None

    def _forward(self, view: View, data: bytes, query: Query | None, reply: Reply, *, stream: bool) -> None:
        if not view.upstreams or self._asking >= _CONCURRENT:
            if query:
                reply(dnsmessage.failure(query, dnsmessage.SERVFAIL))
            return
        self._asking += 1

        def done(answer: bytes | None) -> None:
            self._asking -= 1
            if answer is not None:
                reply(answer)
            elif query:
                reply(dnsmessage.failure(query, dnsmessage.SERVFAIL))

        ForwardedQuery(self._reactor, view.netns, data, view.upstreams, done, stream=stream).ask()


def _sockets() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        udp.bind((LISTEN, 0))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            tcp.bind((LISTEN, 0))
            tcp.listen(BACKLOG)
        except BaseException:
            tcp.close()
            raise
    except BaseException:
        udp.close()
        raise
    return udp, tcp


def _datagram_reply(sock: socket.socket, address: Any) -> Reply:
    def reply(answer: bytes) -> None:
        with contextlib.suppress(OSError):  # the container has stopped, or its buffer is full
            sock.sendto(answer, address)

    return reply


class _TcpClient:
    """A client's TCP connection: any number of questions, answered in the order of the answers' arrival."""

    def __init__(self, reactor: Reactor, sock: socket.socket, resolver: Resolver, view: View) -> None:
        self._reactor, self._sock, self._resolver, self._view = reactor, sock, resolver, view
        sock.settimeout(0)
        self._received = bytearray()
        self._pending = bytearray()
        self._timer = reactor.later(_IDLE, self.close)
        reactor.watch(sock, READ, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE and self._pending:
                del self._pending[: self._sock.send(self._pending)]
                if not self._pending:
                    self._reactor.change(self._sock, READ)
            if events & ~WRITE:
                chunk = self._sock.recv(_DATAGRAM)
                if not chunk:
                    self.close()
                    return
                self._received += chunk
                self._questions()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def _questions(self) -> None:
        while len(self._received) >= 2:
            length = struct.unpack_from(">H", self._received)[0]
            if len(self._received) < 2 + length:
                return
            data = bytes(self._received[2 : 2 + length])
            del self._received[: 2 + length]
            self._timer.cancel()
            self._timer = self._reactor.later(_IDLE, self.close)
            self._resolver.ask(self._view, data, self._reply, stream=True)

    def _reply(self, answer: bytes) -> None:
        if self._sock.fileno() < 0:
            return
        self._pending += struct.pack(">H", len(answer)) + answer
        try:
            del self._pending[: self._sock.send(self._pending)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._reactor.change(self._sock, READ | WRITE if self._pending else READ)

    def close(self) -> None:
        self._timer.cancel()
        self._view.clients.discard(self)
        if self._sock.fileno() >= 0:
            self._reactor.forget(self._sock)
            self._sock.close()
