"""An HTTP proxy on loopback: tunnels (CONNECT) and absolute-form requests, to addresses that the test assigns."""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from compat_tests.support.servers.loopback import DEADLINE, LoopbackServer


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A request to the proxy: ``CONNECT host:port``, or a method and a full URL."""

    method: str
    target: str
    authorization: str

    @property
    def host(self) -> str:
        return self.target if self.method == "CONNECT" else urlsplit(self.target).netloc


class HttpProxy(LoopbackServer):
    """A proxy on loopback. ``hosts``: the address for each host:port; others are refused with 502."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self.hosts = dict(hosts)
        self.requests: list[ProxyRequest] = []
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    proxy._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        super().__init__(Handler, speaks=Server)

    def requested_hosts(self) -> set[tuple[str, str]]:
        """Return (method, host) of all requests: CONNECT, or "plain" for every other method."""
        return {
            (request.method if request.method == "CONNECT" else "plain", request.host)
            for request in list(self.requests)
        }

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(DEADLINE)
        received = b""
        while b"\r\n\r\n" not in received:
            data = client.recv(65536)
            if not data:
                return
            received += data
        head, _, _ = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        request = ProxyRequest(method, target, headers.get("proxy-authorization", ""))
        self.requests.append(request)
        if request.host not in self.hosts:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        host, _, port = self.hosts[request.host].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE) as upstream:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:  # servers accept the absolute form; later requests of the connection go to the same host
                upstream.sendall(received)
            _relay(client, upstream)


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Forward in both directions until either side closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            ready = selector.select(DEADLINE)
            if not ready:
                return
            for key, _ in ready:
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)
