"""Large numbers: event subscribers that must all get every event, and a container that publishes many ports.

``python -m compat_tests.hostile.connections.crowds`` starts an engine of its own, with 1,000 subscribers and 2,000
ports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import sys
import time
from urllib.parse import quote

from compat_tests.support import engines
from compat_tests.support.engines import Engine
from compat_tests.support.host.traces import nft
from compat_tests.support.polling import until

SERVE = "for p in {ports}; do while true; do echo served-$p | nc -l -p $p; done & done; wait"


class Subscribers:
    """Connections to ``GET /events`` that one thread reads; a context manager."""

    def __init__(self, engine: Engine, count: int, container: str) -> None:
        filters = quote(json.dumps({"container": [container], "event": ["create", "start", "die", "destroy"]}))
        request = f"GET /events?filters={filters} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        self._stack = contextlib.ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self.received: dict[int, bytearray] = {}
        try:
            for _ in range(count):
                sock = self._stack.enter_context(engine.api.raw())
                sock.sendall(request)
                sock.setblocking(False)
                self._selector.register(sock, selectors.EVENT_READ)
                self.received[sock.fileno()] = bytearray()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Subscribers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, enough: bytes, *, seconds: float = 90) -> int:
        """Read until every connection has these bytes, or the time is up; return how many have."""
        end = time.monotonic() + seconds
        waiting = {fd for fd, data in self.received.items() if enough not in data}
        while waiting and time.monotonic() < end:
            for key, _ in self._selector.select(timeout=1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                with contextlib.suppress(BlockingIOError):
                    piece = sock.recv(1 << 16)
                    assert piece, "the engine hung up"
                    self.received[key.fd] += piece
                if enough in self.received[key.fd]:
                    waiting.discard(key.fd)
        return len(self.received) - len(waiting)


def subscribers(engine: Engine, count: int) -> None:
    """Every subscriber gets every event in order; the engine answers others meanwhile, and frees all resources."""
    before = engine.api.get("/info").json()["NEventsListener"]
    with Subscribers(engine, count, "crowd") as crowd:
        assert crowd.read(b"\r\n\r\n") == count, "not every subscription was answered"
        assert engine.api.get("/info").json()["NEventsListener"] == before + count
        for _ in range(3):
            engine.docker("run", "--rm", "--network", "none", "--name", "crowd", "busybox", "true")
            assert engine.api.get("/_ping").status == 200
        engine.docker("create", "--network", "none", "--name", "crowd", "--label", "the=last", "busybox", "true")
        engine.docker("rm", "crowd")
        assert crowd.read(b'"Action":"destroy","Actor":{"ID":"' + _last(crowd)) == count
        actions = ["create", "start", "die", "destroy"] * 3 + ["create", "destroy"]
        for data in crowd.received.values():
            assert _actions(bytes(data)) == actions
    assert until(lambda: engine.api.get("/info").json()["NEventsListener"] == before)


def _events(data: bytes) -> list[dict[str, object]]:
    """Parse the events of a chunked answer."""
    lines = data.partition(b"\r\n\r\n")[2].split(b"\r\n")
    return [json.loads(line) for chunk in lines for line in chunk.splitlines() if line.startswith(b"{")]


def _actions(data: bytes) -> list[object]:
    return [event["Action"] for event in _events(data)]


def _last(crowd: Subscribers) -> bytes:
    """Return the id of the last container, from the first subscriber that received it."""
    assert crowd.read(b'"the":"last"') == len(crowd.received)
    actor = next(
        event["Actor"]
        for event in _events(bytes(next(iter(crowd.received.values()))))
        if isinstance(event["Actor"], dict) and event["Actor"]["Attributes"].get("the") == "last"
    )
    assert isinstance(actor, dict)
    return str(actor["ID"]).encode()


def ports(engine: Engine, count: int) -> None:
    """One container with single ports: all are shown, reachable, and released."""
    first = 2000
    served = sorted({first, first + count // 2, first + count - 1})
    names = [f"{port}/tcp" for port in range(first, first + count)]
    script = SERVE.format(ports=" ".join(map(str, served)))
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", script],
        "ExposedPorts": {name: {} for name in names},
        "HostConfig": {"PortBindings": {name: [{"HostIp": "127.0.0.1"}] for name in names}},
    }
    table = ("list", "table", "inet", f"wharf-{engine.resources.bridge}")
    answer = engine.api.request("POST", "/containers/create", query={"name": "ports"}, data=body)
    assert answer.status == 201, answer.body
    try:
        started = engine.api.request("POST", "/containers/ports/start", timeout=300)
        assert started.status == 204, started.body
        settings = engine.api.get("/containers/ports/json").json()["NetworkSettings"]
        assert sorted(settings["Ports"]) == sorted(names)
        hosts = {name: int(bindings[0]["HostPort"]) for name, bindings in settings["Ports"].items()}
        assert len(set(hosts.values())) == count
        for port in served:
            assert until(lambda port=port: _says(hosts[f"{port}/tcp"]) == f"served-{port}\n"), port  # type: ignore[misc]
        rules = nft(*table)
        assert all(f"tcp . {host} :" in rules for host in hosts.values())
        # A deleted part of the table is restored.
        nft("flush", "map", *table[2:], "ports4")
        assert until(lambda: all(f"tcp . {host} :" in nft(*table) for host in list(hosts.values())[::97]))
        assert engine.api.get("/_ping").status == 200
    finally:
        engine.docker("rm", "-f", "ports")
    assert until(lambda: not any(f"tcp . {host} :" in nft(*table) for host in hosts.values()))
    for host in hosts.values():
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            assert until(lambda host=host, sock=sock: _binds(sock, host)), host  # type: ignore[misc]


def _says(port: int) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            return sock.recv(100).decode()
    except OSError:
        return ""


def _binds(sock: socket.socket, port: int) -> bool:
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.hostile.connections.crowds", description=__doc__)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--ports", type=int, default=2000)
    parser.add_argument("--engine", choices=("wharf", "containerd"), default="wharf")
    arguments = parser.parse_args()
    with engines.on_backend(arguments.engine, "crowds") as engine:
        for what, count, play in (
            ("subscribers", arguments.subscribers, subscribers),
            ("ports", arguments.ports, ports),
        ):
            began = time.monotonic()
            play(engine, count)
            print(f"{count} {what}: {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
