"""Binds published ports and relays the traffic that the firewall's rules don't translate.

The kernel's rules translate nearly all traffic before it reaches these sockets. The rest is: ``::1`` (which can't be
translated), an IPv6 address of the host for a container that has only IPv4 and vice versa, and all traffic if the
engine runs with ``--iptables=false``.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.common.sockets import BACKLOG
from engine.proxy.reactor import ERROR, HANGUP, READ, WRITE, Reactor, Timer

_CHUNK = 1 << 16  # bytes of one read, and of the largest datagram
_HIGH_WATER = 1 << 18  # bytes that wait for one side of a TCP connection before the other is no longer read
_UDP_IDLE = 90.0  # seconds until a UDP client without traffic is forgotten, as in docker-proxy
_UDP_CLIENTS = 4096  # per port: forged senders must not use up the descriptors
_CONNECT = 30.0  # seconds for the connection to the container
_SCTP = 132  # IPPROTO_SCTP
_PKTINFO = 8  # IP_PKTINFO, missing in Python's socket before 3.14


class Listen(NamedTuple):
    """Host ports ``port`` … ``port + size - 1`` at ``host``, forwarded to those from ``to_port`` on of ``to``.

    ``both``: ``host`` is ``::`` and the same sockets serve IPv4. Without ``carry`` the ports are only bound, so that no
    other program gets them.
    """

    protocol: str
    host: str
    port: int
    to: str
    to_port: int
    size: int = 1
    both: bool = False
    carry: bool = True


class InUse(OSError):
    """Another program has the port."""

    def __init__(self, number: int, host: str, port: int) -> None:
        super().__init__(number, os.strerror(number))
        self.host = host
        self.port = port


class Publications:
    """The published ports of each owner."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._owners: dict[str, list[_BoundPort]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def owners(self) -> list[str]:
        return list(self._owners)

    def publish(self, owner: str, listens: Sequence[Listen]) -> None:
        """Binds all ports, or none.

        :raises InUse, OSError: a port can't be bound.
        """
        bound: list[_BoundPort] = []
        try:
            for listen in listens:
                # One at a time: if a later port fails, the earlier ones must be closed.
                bound.extend(self._bind(listen, step) for step in range(listen.size))
        except BaseException:
            for item in bound:
                item.close()
            raise
        self._owners.setdefault(owner, []).extend(bound)

    def release(self, owner: str) -> None:
        for item in self._owners.pop(owner, ()):
            item.close()

    def _bind(self, listen: Listen, step: int) -> "_BoundPort":
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        port = listen.port + step
        kind = socket.SOCK_DGRAM if listen.protocol == "udp" else socket.SOCK_STREAM
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, _SCTP if listen.protocol == "sctp" else 0)
        except OSError as error:
            if listen.protocol == "sctp" and error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                return _BoundPort(self._reactor, None)  # a kernel without SCTP sockets: only rules can serve the port
            raise
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if listen.both else 1)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((listen.host, port))
                if kind == socket.SOCK_STREAM:
                    sock.listen(BACKLOG)
            except OSError as error:
                host = "0.0.0.0" if listen.both and not _is_free(kind, "0.0.0.0", port) else listen.host
                raise InUse(error.errno or errno.EADDRINUSE, host, port) from None
        except BaseException:
            sock.close()
            raise
        if not listen.carry or listen.protocol == "sctp":
            return _BoundPort(self._reactor, sock)
        target = (listen.to, listen.to_port + step)
        if kind == socket.SOCK_STREAM:
            return _TcpListener(self._reactor, sock, target)
        return _UdpListener(self._reactor, sock, target)


def _is_free(kind: int, host: str, port: int) -> bool:
    """Whether an IPv4 port is free: tells which family blocked a socket for both."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
        except OSError:
            return False
    return True


class _BoundPort:
    """A port that is bound without relaying."""

    __slots__ = ("_reactor", "_sock")

    def __init__(self, reactor: Reactor, sock: socket.socket | None) -> None:
        self._reactor = reactor
        self._sock = sock

    def close(self) -> None:
        if self._sock:
            self._reactor.forget(self._sock)
            self._sock.close()
            self._sock = None


class _TcpListener(_BoundPort):
    """Accepts clients and connects each to the container."""

    __slots__ = ("_target",)

    def __init__(self, reactor: Reactor, sock: socket.socket, target: tuple[str, int]) -> None:
        super().__init__(reactor, sock)
        self._target = target
        reactor.watch(sock, READ, self._accept)

    def _accept(self, _: int) -> None:
        if self._sock is None:
            return
        try:
            client, _address = self._sock.accept()
        except OSError:
            return  # the client left before the accept, or no fd is free: the next accept may succeed
        _Connection(self._reactor, client, self._target)


def _connect(target: tuple[str, int], kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        sock.connect(target)
    except BlockingIOError:
        pass
    except BaseException:
        sock.close()
        raise
    return sock


class _Connection:
    """Copies two streams to each other; the end of one is forwarded while the other continues."""

    __slots__ = ("_buffers", "_connected", "_ended", "_reactor", "_shut", "_socks", "_timer")

    def __init__(self, reactor: Reactor, client: socket.socket, target: tuple[str, int]) -> None:
        self._reactor = reactor
        client.settimeout(0)
        try:
            server = _connect(target, socket.SOCK_STREAM)
        except OSError:
            client.close()
            return
        self._socks = (client, server)
        self._buffers = (bytearray(), bytearray())  # bytes to send to client, to server
        self._ended = [False, False]  # end of file was read from client, from server
        self._shut = [False, False]  # shut down for writing to client, to server
        self._connected = False
        self._timer: Timer = reactor.later(_CONNECT, self._close)
        for side in (0, 1):
            reactor.watch(self._socks[side], 0, self._handler(side))
        self._update()

    def _handler(self, side: int) -> Callable[[int], None]:
        return lambda events: self._ready(side, events)

    def _ready(self, side: int, events: int) -> None:
        try:
            if not self._connected:
                if side == 1:
                    number = self._socks[1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if number:
                        raise OSError(number, os.strerror(number))
                    self._connected = True
                    self._timer.cancel()
                elif events & ~READ:
                    raise ConnectionResetError
            elif events & WRITE and self._buffers[side]:
                sent = self._socks[side].send(self._buffers[side])
                del self._buffers[side][:sent]
            if self._connected and not self._ended[side] and events & ~WRITE:
                self._read(side)
            elif self._ended[side] and events & (HANGUP | ERROR):
                # Both directions are shut down; epoll would report the hangup forever.
                self._reactor.forget(self._socks[side])
            self._forward_eof()
            self._update()
        except BlockingIOError:
            self._update()
        except OSError:
            self._close()

    def _read(self, side: int) -> None:
        other = 1 - side
        if len(self._buffers[other]) >= _HIGH_WATER:
            return
        data = self._socks[side].recv(_CHUNK)
        if not data:
            self._ended[side] = True
            return
        if not self._buffers[other]:
            with contextlib.suppress(BlockingIOError):
                data = data[self._socks[other].send(data) :]
        self._buffers[other].extend(data)

    def _forward_eof(self) -> None:
        for side in (0, 1):
            other = 1 - side
            if self._ended[side] and not self._buffers[other] and not self._shut[other] and self._connected:
                self._shut[other] = True
                with contextlib.suppress(OSError):
                    self._socks[other].shutdown(socket.SHUT_WR)

    def _update(self) -> None:
        if all(self._shut):
            self._close()
            return
        for side in (0, 1):
            events = 0
            if self._connected and not self._ended[side] and len(self._buffers[1 - side]) < _HIGH_WATER:
                events |= READ
            if self._buffers[side] or (side == 1 and not self._connected):
                events |= WRITE
            if self._reactor.watches(self._socks[side]):
                self._reactor.change(self._socks[side], events)

    def _close(self) -> None:
        self._timer.cancel()
        for sock in self._socks:
            if sock.fileno() >= 0:
                self._reactor.forget(sock)
                sock.close()


class _UdpListener(_BoundPort):
    """Datagrams: each client gets its own socket towards the container until it has been idle."""

    __slots__ = ("_clients", "_target")

    def __init__(self, reactor: Reactor, sock: socket.socket, target: tuple[str, int]) -> None:
        super().__init__(reactor, sock)
        self._target = target
        self._clients: dict[object, _UdpClient] = {}
        # The answer's source address must be the address that the client used.
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)
        reactor.watch(sock, READ, self._receive)

    def _receive(self, _: int) -> None:
        if self._sock is None:
            return
        try:
            data, ancillary, _flags, address = self._sock.recvmsg(_CHUNK, 256)
        except OSError:
            return
        key = (address, *(item[2] for item in ancillary))
        client = self._clients.get(key)
        if client is None and len(self._clients) >= _UDP_CLIENTS:
            return  # dropped, as on a congested network
        if client is None:
            try:
                upstream = _connect(self._target, socket.SOCK_DGRAM)
            except OSError:
                return
            client = _UdpClient(self._reactor, self._sock, upstream, address, _source(ancillary))
            client.on_close = lambda: self._clients.pop(key, None)
            self._clients[key] = client
        client.send(data)

    def close(self) -> None:
        for client in tuple(self._clients.values()):
            client.close()
        super().close()


def _source(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """The ancillary data with which an answer leaves from the address that the client's datagram was sent to."""
    found = []
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _PKTINFO:
            # struct in_pktinfo: put the local address into the field that the kernel reads as the source.
            index, local, _ = struct.unpack("=i4s4s", data[:12])
            found.append((level, kind, struct.pack("=i4s4s", 0 if local[0] != 127 else index, local, local)))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            found.append((level, kind, data))
    return found


class _UdpClient:
    """One client of a port: the datagrams from the container to ``upstream`` are sent to ``address`` through ``back``,
    with ``source`` as the ancillary data that chooses the source address."""

    __slots__ = ("_address", "_back", "_busy", "_reactor", "_source", "_timer", "_upstream", "on_close")

    def __init__(
        self,
        reactor: Reactor,
        back: socket.socket,
        upstream: socket.socket,
        address: Any,
        source: list[tuple[int, int, bytes]],
    ) -> None:
        self._reactor, self._back, self._upstream = reactor, back, upstream
        self._address, self._source = address, source
        self.on_close: Callable[[], object] = lambda: None
        self._busy = False
        self._timer = reactor.later(_UDP_IDLE, self._idle)
        reactor.watch(upstream, READ, self._answer)

    def send(self, data: bytes) -> None:
        self._busy = True
        with contextlib.suppress(OSError):  # a refused datagram is lost, as on any network
            self._upstream.send(data)

    def _answer(self, _: int) -> None:
        with contextlib.suppress(OSError):
            data = self._upstream.recv(_CHUNK)
            self._busy = True
            self._back.sendmsg([data], self._source, 0, self._address)

    def _idle(self) -> None:
        if not self._busy:
            self.close()
            return
        self._busy = False
        self._timer = self._reactor.later(_UDP_IDLE, self._idle)

    def close(self) -> None:
        self._timer.cancel()
        if self._upstream.fileno() >= 0:
            self._reactor.forget(self._upstream)
            self._upstream.close()
        self.on_close()
