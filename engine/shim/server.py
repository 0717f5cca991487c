"""The unix sockets of shims and I/O hosts, and the connections to them (``engine.shim.protocol``)."""

import os
import socket
from collections import deque
from collections.abc import Callable, Mapping

from engine.shim import protocol
from engine.shim.loop import READ, WRITE, Loop
from engine.shim.protocol import Json, ProtocolError, RequestError

Request = Callable[["Peer", Json, bytes, list[int]], None]

# Bytes after which a peer that doesn't read its answers is disconnected: it can ask for the state when it reconnects.
_MAX_UNSENT = 4 << 20


class Peer:
    """One connection that exchanges frames; either side may close it at any time."""

    def __init__(
        self, loop: Loop, sock: socket.socket, on_request: Request, on_close: Callable[["Peer"], None]
    ) -> None:
        sock.settimeout(0)
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._on_request = on_request
        self._on_close = on_close
        self._decoder = protocol.Decoder()
        self._out: deque[bytes] = deque()
        # The descriptor to send with the first byte of the queue; -1: none.
        self._passed = -1
        self._fds: list[int] = []
        self.open = True
        loop.add(self._fd, READ, self._ready)

    def send(self, message: Mapping[str, object], *, fd: int = -1) -> None:
        """Queues one frame; a closed peer ignores it. Takes ownership of ``fd``, which is sent with the first frame."""
        if not self.open:
            if fd >= 0:
                os.close(fd)
            return
        assert fd < 0 or not self._out
        self._passed = fd
        self._out.append(protocol.encode(message))
        self._flush()

    def reply(self, request: Mapping[str, object], **result: object) -> None:
        self.send({"id": request.get("id"), "ok": result})

    def refuse(self, request: Mapping[str, object], error: RequestError) -> None:
        self.send({"id": request.get("id"), "error": error.to_json()})

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.open and events & ~WRITE:
            self._read()

    def _read(self) -> None:
        try:
            data, fds = protocol.receive_with_fds(self._sock)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._fds.extend(fds)
        if not data:
            self.close()
            return
        try:
            for message, tail in self._decoder.feed(data):
                taken, self._fds = self._fds, []
                self._handle(message, tail, taken)
        except ProtocolError as error:
            self.send({"error": {"kind": "invalid argument", "message": str(error)}})
            self.close()

    def _handle(self, message: Json, tail: bytes, fds: list[int]) -> None:
        try:
            self._on_request(self, message, tail, fds)
        except RequestError as error:
            self.refuse(message, error)
        finally:
            # A handler that keeps a descriptor removes it from the list.
            for fd in fds:
                os.close(fd)

    def _flush(self) -> None:
        try:
            while self._out:
                sent = protocol.send_with_fds(self._sock, self._out[0], [self._passed] if self._passed >= 0 else ())
                self._drop_passed()
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                    break
                self._out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if sum(map(len, self._out)) > _MAX_UNSENT:
            self.close()
            return
        self._loop.modify(self._fd, READ | (WRITE if self._out else 0))

    def _drop_passed(self) -> None:
        if self._passed >= 0:
            os.close(self._passed)
            self._passed = -1

    def close(self) -> None:
        """Closes at once. A few bytes that were just sent still arrive: the socket accepts them at once or never."""
        if not self.open:
            return
        self.open = False
        self._loop.remove(self._fd)
        self._sock.close()
        self._drop_passed()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._on_close(self)


class Server:
    """Listens at a path and creates peers. ``on_gone``: a peer has closed; ``on_last_gone``: the last one has."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        on_request: Request,
        *,
        on_last_gone: Callable[[], None] | None = None,
        on_gone: Callable[[Peer], None] | None = None,
    ) -> None:
        self._on_gone = on_gone
        self._loop = loop
        self._path = path
        self._on_request = on_request
        self._on_last_gone = on_last_gone
        self.peers: set[Peer] = set()
        self._listener = protocol.listen(path)
        self._identity = os.stat(path).st_ino
        loop.add(self._listener.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            self.add(sock)

    def add(self, sock: socket.socket) -> Peer:
        peer = Peer(self._loop, sock, self._on_request, self._closed)
        self.peers.add(peer)
        return peer

    def _closed(self, peer: Peer) -> None:
        self.peers.discard(peer)
        if self._on_gone is not None:
            self._on_gone(peer)
        if not self.peers and self._on_last_gone is not None:
            self._on_last_gone()

    def broadcast(self, message: Mapping[str, object]) -> None:
        for peer in tuple(self.peers):
            peer.send(message)

    def stop_listening(self) -> None:
        """Stops accepting, and unlinks the socket unless another process has replaced it."""
        if self._listener.fileno() < 0:
            return
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        try:
            if os.stat(self._path).st_ino == self._identity:
                os.unlink(self._path)
        except FileNotFoundError:
            pass
