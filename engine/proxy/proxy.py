"""wharf-proxy: one process for all published ports and the name service of all containers.

It outlives wharfd, so that names resolve and ports stay bound while wharfd restarts. It exits when it has served
nothing for a while, or when no wharfd can reach it any more because its socket was unlinked. wharfd finds it by its
socket, ``<exec root>/proxy.sock``, which it inherits as its standard input. Requests and answers are JSON objects, each
after its length (4 bytes, big endian).
"""

import contextlib
import json
import os
import resource
import socket
import struct
import sys
from typing import Any

from engine.proxy.forward import InUse, Listen, Publications
from engine.proxy.reactor import READ, WRITE, Reactor
from engine.proxy.resolver import Resolver
from engine.proxy.upstreams import Upstream

#: Incremented whenever the requests change: wharfd replaces a proxy of another version.
VERSION = 2
_IDLE = 60.0  # seconds without anything to serve, or without its socket's name; it exits after two such periods
_LENGTH = struct.Struct(">I")


class Proxy:
    """Handles wharfd's requests. Each request is answered with ``{"n": …}`` and ``error`` or its result."""

    def __init__(self, reactor: Reactor, listener: socket.socket) -> None:
        self._reactor = reactor
        self._listener = listener
        self._clients: set[_Client] = set()
        self.publications = Publications(reactor)
        self.resolver = Resolver(reactor)
        self._busy = True
        self._path = listener.getsockname()
        self._identity = _identity(self._path)
        listener.settimeout(0)
        reactor.watch(listener, READ, self._accept)
        reactor.later(_IDLE, self._idle)

    def _accept(self, _: int) -> None:
        with contextlib.suppress(OSError):
            sock, _address = self._listener.accept()
            self._clients.add(_Client(self._reactor, sock, self))

    def forget(self, client: "_Client") -> None:
        self._clients.discard(client)

    def reachable(self) -> bool:
        """Whether the socket's path still refers to this process's socket: the exec root of a killed engine may have
        been removed, and a starting engine creates a new proxy if it finds no socket."""
        return self._identity is not None and _identity(self._path) == self._identity

    def _idle(self) -> None:
        # Two periods: a proxy that has just become idle may be needed again soon.
        serves = bool(len(self.publications) or len(self.resolver))
        needed = serves and (bool(self._clients) or self.reachable())
        if not needed and not self._busy:
            self._reactor.stop()
            return
        self._busy = needed
        self._reactor.later(_IDLE, self._idle)

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        self._busy = True
        try:
            return _OPERATIONS[request["op"]](self, request)
        except InUse as error:
            return {"error": error.strerror, "errno": error.errno, "host": error.host, "port": error.port}
        except OSError as error:
            return {"error": f"{request['op']}: {error}", "errno": error.errno}

    def hello(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "owners": self.publications.owners(),
            "views": self.resolver.views(),
            "zones": self.resolver.zones(),
        }

    def publish(self, request: dict[str, Any]) -> dict[str, Any]:
        self.publications.publish(request["owner"], [Listen(*fields) for fields in request["listens"]])
        return {}

    def release(self, request: dict[str, Any]) -> dict[str, Any]:
        self.publications.release(request["owner"])
        return {}

    def zone(self, request: dict[str, Any]) -> dict[str, Any]:
        names = {name: [(v4, v6) for v4, v6 in pairs] for name, pairs in request["names"].items()}
        self.resolver.set_zone(request["key"], request["name"], names, request["pointers"])
        return {}

    def drop_zone(self, request: dict[str, Any]) -> dict[str, Any]:
        self.resolver.drop_zone(request["key"])
        return {}

    def view(self, request: dict[str, Any]) -> dict[str, Any]:
        upstreams = [Upstream(address, bool(host)) for address, host in request["upstreams"]]
        udp, tcp = self.resolver.add(request["key"], request["netns"], request["zones"], request["links"], upstreams)
        return {"udp": udp, "tcp": tcp}

    def drop_view(self, request: dict[str, Any]) -> dict[str, Any]:
        self.resolver.remove(request["key"])
        return {}

    def quit(self, _: dict[str, Any]) -> dict[str, Any]:
        # After the answer was sent.
        self._reactor.later(0, self._reactor.stop)
        return {}


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode; None: there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


_OPERATIONS = {
    "hello": Proxy.hello,
    "publish": Proxy.publish,
    "release": Proxy.release,
    "zone": Proxy.zone,
    "drop_zone": Proxy.drop_zone,
    "view": Proxy.view,
    "drop_view": Proxy.drop_view,
    "quit": Proxy.quit,
}


class _Client:
    """One connection of wharfd."""

    def __init__(self, reactor: Reactor, sock: socket.socket, proxy: Proxy) -> None:
        self._reactor, self._sock, self._proxy = reactor, sock, proxy
        sock.settimeout(0)
        self._received = bytearray()
        self._pending = bytearray()
        reactor.watch(sock, READ, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                del self._pending[: self._sock.send(self._pending)]
            if events & ~WRITE:
                chunk = self._sock.recv(1 << 16)
                if not chunk:
                    self._close()
                    return
                self._received += chunk
                self._requests()
            if self._pending:
                with contextlib.suppress(BlockingIOError):
                    del self._pending[: self._sock.send(self._pending)]
            self._reactor.change(self._sock, READ | WRITE if self._pending else READ)
        except BlockingIOError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            self._close()

    def _requests(self) -> None:
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            if len(self._received) < _LENGTH.size + length:
                return
            request = json.loads(self._received[_LENGTH.size : _LENGTH.size + length])
            del self._received[: _LENGTH.size + length]
            answer = json.dumps({"n": request["n"], **self._proxy.handle(request)}).encode()
            self._pending += _LENGTH.pack(len(answer)) + answer

    def _close(self) -> None:
        self._proxy.forget(self)
        self._reactor.forget(self._sock)
        self._sock.close()


def main() -> None:
    """Serves until idle. Standard input is the listening socket; the daemon that started this process may end before
    it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    path = listener.getsockname()
    reactor = Reactor()
    proxy = Proxy(reactor, listener)
    reactor.run()
    if proxy.reachable():  # don't unlink another proxy's socket
        with contextlib.suppress(OSError):
            os.unlink(path)
    sys.exit(0)


if __name__ == "__main__":
    main()
