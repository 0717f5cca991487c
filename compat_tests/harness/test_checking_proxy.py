"""The proxy that checks answers reports what deviates, and changes nothing."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.api import UnixConnection, dial
from compat_tests.support.servers.checking_proxy import CheckingProxy, Exchange
from compat_tests.support.servers.loopback import QuietHandler, ServerThread

DEADLINE = 30.0


class _Engine(QuietHandler):
    """Answers a ping, a version that deviates, an endless stream, and echoes hijacked connections."""

    protocol_version = "HTTP/1.1"
    gone = threading.Event()

    def do_HEAD(self) -> None:
        self._head(200, "Content-Length: 5")

    def do_GET(self) -> None:
        if self.path == "/events":
            self._head(200, "Content-Type: application/json", "Transfer-Encoding: chunked")
            self.wfile.write(b"2\r\n{}\r\n")
            self.rfile.read(1)
            self.gone.set()
            return
        body = json.dumps({"Version": 1} if self.path.endswith("/version") else []).encode()
        self._head(200, "Content-Type: application/json", "Transfer-Encoding: chunked")
        for part in (body[:1], body[1:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self) -> None:
        self._head(101, "Connection: Upgrade", "Upgrade: tcp")
        while data := self.rfile.read1(1000):
            self.wfile.write(data)
        self.wfile.write(b"the end")
        self.close_connection = True

    def _head(self, status: int, *lines: str) -> None:
        self.wfile.write("\r\n".join((f"HTTP/1.1 {status} -", "Api-Version: 1.55", *lines, "", "")).encode())

    def address_string(self) -> str:
        return ""


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[CheckingProxy]:
    _Engine.gone.clear()
    path = tmp_path / "engine.sock"
    with ServerThread(socketserver.ThreadingUnixStreamServer(str(path), _Engine)):
        yield CheckingProxy(path, tmp_path / "proxy.sock")


def test_a_deviation_is_reported(proxy: CheckingProxy) -> None:
    with proxy:
        connection = UnixConnection(proxy.path, timeout=DEADLINE)
        for method, path, expected in (
            ("HEAD", "/_ping", b""),
            ("GET", "/v1.55/images/json", b"[]"),
            ("GET", "/v1.55/version", b'{"Version": 1}'),
        ):
            connection.request(method, path)
            assert connection.getresponse().read() == expected
        connection.close()
    assert [exchange.method for exchange in proxy.exchanges] == ["HEAD", "GET", "GET"]
    [deviation] = proxy.deviations
    assert deviation.startswith("GET /version (API 1.55): ")
    assert ".Version is 1, not string" in deviation


def test_a_hijacked_connection_passes_with_its_half_close(proxy: CheckingProxy) -> None:
    sent = bytes(range(256)) * 4000
    with proxy, dial(proxy.path, timeout=DEADLINE) as client:

        def send() -> None:
            client.sendall(b"POST /containers/x/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + sent)
            client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        received = b"".join(iter(lambda: client.recv(65536), b""))
        thread.join(DEADLINE)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert body == sent + b"the end"
    assert proxy.exchanges == [Exchange("POST", "/containers/x/attach", 101)]


def test_an_engine_notices_that_a_client_has_gone(proxy: CheckingProxy) -> None:
    with proxy:
        with dial(proxy.path, timeout=DEADLINE) as client:
            client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
            received = b""
            while not received.endswith(b"{}\r\n"):  # a part of a stream is there at once
                received += client.recv(1000)
        assert _Engine.gone.wait(DEADLINE)
    assert not proxy.deviations
