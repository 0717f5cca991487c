"""The sockets to log servers: datagrams (UDP, unix) and streams (TCP, TLS, unix)."""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from engine.shim.logs.remote.delivery import Delivery
from engine.shim.loop import ERROR, HANGUP, READ, WRITE, Loop

if TYPE_CHECKING:
    import ssl

#: Seconds for the first connection: the container's start waits for it.
CONNECT = 10.0
_BATCH = 64
_READ = 16 << 10

#: Family, kind, address.
Address = tuple[int, int, str | tuple[Any, ...]]


def resolve(host: str, port: int, kind: int) -> list[Address]:
    """Resolves a name. Blocks.

    :raises OSError: the name has no address.
    """
    found: list[Address] = []
    for family, socktype, _protocol, _name, address in socket.getaddrinfo(host, port, type=kind):
        found.append((family, int(socktype), address))
    return found


class Datagrams(Delivery):
    """UDP and unix datagrams: one message per datagram."""

    sock: socket.socket | None

    def __init__(self, loop: Loop, addresses: Sequence[Address], *, limit: int, waits: bool) -> None:
        super().__init__(loop, limit=limit, waits=waits, patient=False, retry=1.0, attempts=0)
        self._addresses = addresses

    def open(self) -> None:
        """Connects the socket.

        :raises OSError: no address accepts a connection.
        """
        failure: OSError | None = None
        for family, _kind, address in self._addresses:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
                continue
            self.sock = sock
            self.connection_made()
            return
        raise failure or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    def connect(self) -> None:
        try:
            self.open()
        except OSError:
            self.connection_lost()

    def ready(self, events: int) -> None:
        if events & (ERROR | READ) and self.sock is not None:
            # An ICMP error for an earlier datagram, or an unrequested datagram: ignore it.
            with contextlib.suppress(OSError):
                self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self.sock.recv(_READ)
        if events & WRITE:
            self.flush()

    def flush(self) -> None:
        if not self.connected or self.sock is None:
            return
        while self.queue:
            message = self.queue[0]
            try:
                self.sock.send(message)
            except BlockingIOError:
                break
            except OSError as error:
                if self.sock.family == socket.AF_UNIX and error.errno != errno.EMSGSIZE:
                    self.connection_lost()
                    return
                # UDP guarantees no delivery: the message is lost.
                self.lost += 1
            self.sent(self.queue.popleft())
        self.after_flush()


class Stream(Delivery):
    """TCP, TLS and unix stream sockets."""

    sock: socket.socket | None

    def __init__(
        self,
        loop: Loop,
        addresses: Sequence[Address],
        *,
        limit: int,
        waits: bool,
        patient: bool = False,
        retry: float = 1.0,
        attempts: int = 0,
        tls: "ssl.SSLContext | None" = None,
        host: str = "",
    ) -> None:
        super().__init__(loop, limit=limit, waits=waits, patient=patient, retry=retry, attempts=attempts)
        self._addresses = addresses
        self._tls = tls
        self._host = host
        self._next = 0
        self._offset = 0
        self._shaking = False
        self.on_data: Callable[[bytes], None] | None = None

    def open(self) -> None:
        """Connects now. Blocks for at most ``CONNECT`` seconds per address.

        :raises OSError: the server can't be reached.
        """
        failure: OSError | None = None
        for family, kind, address in self._addresses:
            sock = socket.socket(family, kind)
            try:
                sock.settimeout(CONNECT)
                sock.connect(address)
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_hostname=self._host or None)
            except OSError as error:
                sock.close()
                failure = error
                continue
            sock.settimeout(0)
            self.sock = sock
            self.connection_made()
            return
        raise failure or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    def connect(self) -> None:
        family, kind, address = self._addresses[self._next % len(self._addresses)]
        self._next += 1
        self.sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            self.sock.connect(address)
        except BlockingIOError:
            if family == socket.AF_UNIX:
                # Not EINPROGRESS: the server's connection queue is full.
                self.connection_lost()
            else:
                self.watch(WRITE)
            return
        except OSError:
            self.connection_lost()
            return
        self._reached()

    def _reached(self) -> None:
        if self._tls is not None and self.sock is not None:
            self.watch(0)
            try:
                self.sock = self._tls.wrap_socket(
                    self.sock, server_hostname=self._host or None, do_handshake_on_connect=False
                )
            except OSError:
                self.connection_lost()
                return
            self._shaking = True
            self._shake()
        else:
            self.connection_made()

    def _shake(self) -> None:
        import ssl

        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self.watch(READ)
        except ssl.SSLWantWriteError:
            self.watch(WRITE)
        except OSError:
            self.connection_lost()
        else:
            self._shaking = False
            self.connection_made()

    def ready(self, events: int) -> None:
        if self.sock is None:
            return
        if self._shaking:
            self._shake()
            return
        if not self.connected:
            if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.connection_lost()
            else:
                self._reached()
            return
        if events & (READ | HANGUP | ERROR) and not self._read():
            self.connection_lost()
            return
        if events & WRITE:
            self.flush()

    def _read(self) -> bool:
        """Reads the server's data (fluentd's receipts); False: it has disconnected."""
        assert self.sock is not None
        try:
            while data := self.sock.recv(_READ):
                if self.on_data is not None:
                    self.on_data(data)
        except BlockingIOError:
            return True
        except OSError as error:
            return self._wants(error)
        return False

    def _wants(self, error: OSError) -> bool:
        """Handles TLS's equivalents of EAGAIN."""
        if self._tls is None:
            return False
        import ssl

        return isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError)

    def flush(self) -> None:
        if not self.connected or self.sock is None:
            return
        while self.queue:
            try:
                written = self._write()
            except BlockingIOError:
                break
            except OSError as error:
                if self._wants(error):
                    break
                self.connection_lost()
                return
            self._offset += written
            while self.queue and self._offset >= len(self.queue[0]):
                message = self.queue.popleft()
                self._offset -= len(message)
                self.sent(message)
        self.after_flush()

    def _write(self) -> int:
        assert self.sock is not None
        parts: list[bytes | memoryview] = list(islice(self.queue, _BATCH))
        if self._offset:
            parts[0] = memoryview(parts[0])[self._offset :]
        if self._tls is not None:
            return self.sock.send(b"".join(parts))
        return self.sock.sendmsg(parts, (), socket.MSG_NOSIGNAL)

    def reset(self) -> None:
        self._offset = 0
        self._shaking = False
