"""Authorization plugins on real sockets: streams, connections that are taken over, clients that leave, TLS."""

import asyncio
import base64
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.requests import Request
from starlette.responses import Response

from server.http import params
from server.http.answers import json_answer
from server.http.hijack import hijack
from server.http.routing import ApiRoute
from server.http.streams import byte_stream, json_stream
from server.plugins.discovery import Plugins
from server.plugins.tests.plugins import Answer, Plugin
from server.tests.http.serving import DEADLINE, Serving, read_all, read_until, serving

REQUEST, RESPONSE = "AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes"
DENY: dict[str, Any] = {"Allow": False, "Msg": "not you"}
DENIED = b'{"message":"authorization denied by plugin gate: not you"}\n'
END = b"Host: d\r\nConnection: close\r\n\r\n"

handled: list[str] = []


async def echo(request: Request) -> Response:
    handled.append(request.method)
    return json_answer((await params.raw_body(request)).decode())


async def taken(request: Request) -> None:
    connection = await hijack(request)
    await connection.send(connection.head("application/vnd.docker.raw-stream") + b"raw")
    connection.close()


async def endless(request: Request) -> Response:
    handled.append("endless")

    async def messages() -> AsyncIterator[dict[str, Any]]:
        yield {"first": True}
        await asyncio.Event().wait()

    return json_stream(messages())


async def archive(request: Request) -> Response:
    size = int(request.query_params["size"])

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(size // 1024):
            yield b"x" * 1024

    return byte_stream(parts(), media_type="application/x-tar")


ROUTES = (
    ApiRoute("GET", "/_ping", echo, instant=lambda _: Response(b"OK")),
    ApiRoute("POST", "/echo", echo),
    ApiRoute("GET", "/echo", echo),
    ApiRoute("POST", "/taken", taken),
    ApiRoute("GET", "/endless", endless, waits=True),
    ApiRoute("GET", "/archive", archive, waits=True),
)


class Gate(Plugin):
    """``request`` and ``response``: what it answers. ``asked``: set when it is asked about a response."""

    def __init__(self, path: Path) -> None:
        self.request: Answer = {"Allow": True}
        self.response: Answer = {"Allow": True}
        self.asked = threading.Event()
        super().__init__(path, ["authz"])
        self.instead |= {REQUEST: lambda _: self.request, RESPONSE: self._response}

    def _response(self, _body: dict[str, Any]) -> Answer:
        self.asked.set()
        return self.response

    def __enter__(self) -> "Gate":
        return self

    def last(self) -> tuple[str, dict[str, Any]]:
        return self.calls[-1]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def api(tmp_path: Path, authority: trustme.CA) -> Iterator[Serving]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    handled.clear()
    with serving(tmp_path, ROUTES, context) as running:
        yield running


def authorize(api: Serving, *names: str) -> None:
    api.run(api.app.authorize(names, Plugins((Path(api.path).parent,), ())))


@pytest.fixture
def gate(api: Serving, tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate.sock") as plugin:
        authorize(api, "gate")
        yield plugin
        authorize(api)


def test_a_connection_from_before_has_no_way_around_them(api: Serving, gate: Gate) -> None:
    authorize(api)
    with api.connect() as sock:

        def status(path: bytes) -> bytes:
            sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: d\r\n\r\n")
            head = read_until(sock, b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            while length:
                length -= len(sock.recv(length))
            return head.split()[1]

        assert (status(b"/_ping"), status(b"/echo")) == (b"200", b"200")
        gate.request = DENY
        authorize(api, "gate")
        assert (status(b"/_ping"), status(b"/echo"), status(b"/v1.41/_ping")) == (b"403", b"403", b"403")
        authorize(api)
        assert (status(b"/_ping"), status(b"/echo")) == (b"200", b"200")


def test_pipelined_requests_are_shown_one_by_one(api: Serving, gate: Gate) -> None:
    body = b'{"a": 1}'
    one = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    smuggled = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
    api.ask(smuggled + one + body + b"GET /echo HTTP/1.1\r\n" + END)
    shown = [(call["RequestMethod"], call.get("RequestBody", "")) for method, call in gate.calls if method == REQUEST]
    assert shown == [("POST", ""), ("POST", base64.b64encode(body).decode()), ("GET", "")]


def test_a_client_that_waits_for_continue(api: Serving, gate: Gate) -> None:
    head = (
        b"POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\n" + END
    )
    with api.connect() as sock:
        sock.sendall(head)
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"{}")
        assert read_all(sock).endswith(b'"{}"\n')
    gate.request = DENY
    with api.connect() as sock:
        # The body is needed for the decision; what isn't JSON is refused before it is sent.
        sock.sendall(head.replace(b"application/json", b"text/plain"))
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_a_connection_that_is_taken_over(api: Serving, gate: Gate) -> None:
    upgrade = b"POST /taken HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    gate.response = DENY
    assert api.ask(upgrade).endswith(b"\r\n\r\nraw")
    assert gate.asked.wait(DEADLINE)
    method, shown = gate.last()
    assert method == RESPONSE
    assert "ResponseStatusCode" not in shown
    assert {"Api-Version", "Ostype"} <= shown["ResponseHeaders"].keys()
    gate.request = DENY
    assert api.ask(upgrade).startswith(b"HTTP/1.1 403 ")


def test_a_client_that_leaves_a_stream(api: Serving, gate: Gate) -> None:
    with api.connect() as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\n" + END)
        read_until(sock, b'{"first":true}')
    assert gate.asked.wait(DEADLINE)
    assert gate.last()[0] == RESPONSE
    assert "ResponseStatusCode" not in gate.last()[1]


def test_a_client_that_leaves_while_they_are_asked(api: Serving, gate: Gate) -> None:
    asked, left = threading.Event(), threading.Event()

    def waits(_: dict[str, Any]) -> Answer:
        asked.set()
        left.wait(DEADLINE)
        return {"Allow": True}

    gate.instead[REQUEST] = waits
    with api.connect() as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\n" + END)
        assert asked.wait(DEADLINE)
    left.set()
    gate.instead[REQUEST] = lambda _: {"Allow": True}
    api.ask(b"GET /echo HTTP/1.1\r\n" + END)
    assert handled == ["GET"]


@pytest.mark.parametrize(("size", "withheld"), [(65536, True), (65536 + 1024, False)])
def test_an_archive(api: Serving, gate: Gate, size: int, *, withheld: bool) -> None:
    request = b"GET /archive?size=%d HTTP/1.1\r\n" % size + END
    assert api.ask(request).count(b"x" * 1024) == size // 1024
    _, shown = gate.last()
    assert "ResponseBody" not in shown
    assert shown.get("ResponseStatusCode") == (200 if withheld else None)
    gate.response = DENY
    head, _, body = api.ask(request).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 " if withheld else b"HTTP/1.1 200 ")
    assert body == DENIED if withheld else DENIED in body


def test_the_client_certificate(api: Serving, gate: Gate, authority: trustme.CA) -> None:
    client = authority.issue_cert("ada@example.org", common_name="Ada")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client.configure_cert(context)
    with (
        socket.create_connection(("127.0.0.1", api.tls_port), DEADLINE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
    ):
        sock.sendall(b"GET /echo HTTP/1.1\r\n" + END)
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")
    for method, shown in gate.calls[1:]:
        assert method in (REQUEST, RESPONSE)
        assert (shown["User"], shown["UserAuthNMethod"]) == ("Ada", "TLS")
        leaf = base64.b64decode(shown["RequestPeerCertificates"][0]).decode()
        assert leaf.split() == client.cert_chain_pems[0].bytes().decode().split()
    assert json.loads(api.ask(b"GET /echo HTTP/1.1\r\n" + END).rpartition(b"\r\n\r\n")[2]) == ""
    assert not {"User", "UserAuthNMethod", "RequestPeerCertificates"} & gate.last()[1].keys()
