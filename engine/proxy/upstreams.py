"""The containers' name servers: forwards a question to them and returns the answer."""

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.common.system.linux import CLONE_NEWNET, in_namespace
from engine.proxy import dnsmessage
from engine.proxy.reactor import READ, WRITE, Reactor, Timer

_TRY = 3.0  # seconds per server
_TRIES = 3  # servers per question
_DATAGRAM = 1 << 16  # bytes of the largest answer


class Upstream(NamedTuple):
    """A name server; ``host``: it is queried from the host's namespace."""

    address: str
    host: bool = False


class ForwardedQuery:
    """A question that is forwarded to the name servers, one after the other, over the transport that it arrived on."""

    def __init__(
        self,
        reactor: Reactor,
        path: str,
        data: bytes,
        upstreams: Sequence[Upstream],
        done: Callable[[bytes | None], None],
        *,
        stream: bool,
    ) -> None:
        self._reactor, self._path, self._data = reactor, path, data
        self._upstreams, self._done, self._stream = list(upstreams[:_TRIES]), done, stream
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._received = bytearray()
        self._kept: bytes | None = None

    def ask(self) -> None:
        """Queries the next server, or ends with the best answer so far."""
        self._drop()
        while self._upstreams:
            upstream = self._upstreams.pop(0)
            try:
                self._sock = self._open(upstream)
            except OSError:
                continue
            self._timer = self._reactor.later(_TRY, self.ask)
            self._received.clear()
            self._reactor.watch(self._sock, WRITE if self._stream else READ, self._ready)
            return
        self._done(self._kept)

    def _open(self, upstream: Upstream) -> socket.socket:
        def connect() -> socket.socket:
            family = socket.AF_INET6 if ":" in upstream.address else socket.AF_INET
            kind = socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            try:
                with contextlib.suppress(BlockingIOError):
                    sock.connect((upstream.address, 53))
                if not self._stream:
                    sock.send(self._data)
            except BaseException:
                sock.close()
                raise
            return sock

        if upstream.host:
            return connect()
        with in_namespace(self._path, CLONE_NEWNET):
            return connect()

    def _ready(self, events: int) -> None:
        sock = self._sock
        assert sock is not None
        try:
            if not self._stream:
                self._finish(sock.recv(_DATAGRAM))
                return
            if events & WRITE and not events & READ:
                sock.sendall(struct.pack(">H", len(self._data)) + self._data)
                self._reactor.change(sock, READ)
                return
            chunk = sock.recv(_DATAGRAM)
            if not chunk:
                raise ConnectionResetError
            self._received += chunk
            if len(self._received) >= 2:
                length = struct.unpack_from(">H", self._received)[0]
                if len(self._received) >= 2 + length:
                    self._finish(bytes(self._received[2 : 2 + length]))
        except BlockingIOError:
            return
        except OSError:
            self.ask()

    def _finish(self, answer: bytes) -> None:
        if not dnsmessage.same_id(answer, self._data):
            return  # a stray datagram: the real answer may still arrive
        if dnsmessage.code(answer) in (dnsmessage.SERVFAIL, dnsmessage.REFUSED) and self._upstreams:
            self._kept = answer
            self.ask()
            return
        self._drop()
        self._done(answer)

    def _drop(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._sock:
            self._reactor.forget(self._sock)
            self._sock.close()
            self._sock = None
