"""Connections of an engine with a policy: clients with certificates, and the bound of connections."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
import trustme
from starlette.requests import Request
from starlette.responses import Response

from compat_tests.support.polling import until
from server.access.caller import Caller
from server.access.gate import Gate
from server.access.policy import Policy
from server.config.load import load
from server.http.hijack import hijack
from server.http.routing import ApiRoute, Audience
from server.sockets import tls_context
from server.tests.http.serving import DEADLINE, Serving, read_all, read_until, serving

LIMIT = 3
POLICY: dict[str, Any] = {
    "users": {"alice": "few", "bob": "few"},
    "administrators": {"certificates": ["carol"]},
    "roles": {"few": {"connections": LIMIT}},
}
REQUEST = b"GET /who HTTP/1.1\r\nHost: docker\r\n\r\n"
TAKE = b"POST /take HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"


class _Engine:
    """An engine without containers."""

    def seen_by(self, caller: Caller) -> object:
        return None

    def apply(self, policy: Policy) -> None:
        """Nothing depends on it."""

    def owner_of_process(self, pid: int) -> str | None:
        return None

    def caller_of_job(self, path: str) -> Caller | None:
        return None

    def caller_of_owner(self, owner: str) -> Caller:
        raise AssertionError(owner)

    def request_of(self, owner: str) -> AbstractContextManager[None]:
        raise AssertionError(owner)

    async def check_disk(self, owner: str) -> None:
        """There is enough."""


async def who(request: Request) -> Response:
    return Response(request.state.caller.user)


async def take(request: Request) -> None:
    """Keeps the connection until the client closes it."""
    taken = await hijack(request)
    await taken.send(taken.head())
    await asyncio.get_running_loop().sock_recv(taken.sock, 1)
    taken.close()


ROUTES = [
    ApiRoute("GET", "/who", who, audience=Audience.ALL, reads=True),
    ApiRoute("POST", "/take", take, audience=Audience.ALL),
    ApiRoute("GET", "/_ping", who, instant=lambda _: Response(b"OK"), audience=Audience.ALL, reads=True),
]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Serving]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("server", "alice", "bob", "carol", "mallory"):
        certificate = authority.issue_cert("localhost", common_name=name)
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    (tmp_path / "daemon.json").write_text("{}")
    path, ca = str(tmp_path / "server.pem"), str(tmp_path / "ca.pem")
    words = ["--config-file", str(tmp_path / "daemon.json"), "--tlsverify", "--tlscacert", ca]
    with serving(tmp_path, ROUTES, tls=tls_context(load([*words, "--tlscert", path, "--tlskey", path])[0])) as running:
        running.app.gate = Gate(_Engine(), Policy(POLICY), {})
        yield running
        running.app.gate = None


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def connect(api: Serving, directory: Path, name: str, stack: contextlib.ExitStack) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=directory / "ca.pem")
    context.load_cert_chain(directory / f"{name}.pem")
    raw = stack.enter_context(create_connection(("127.0.0.1", api.tls_port), DEADLINE))
    return stack.enter_context(context.wrap_socket(raw, server_hostname="localhost"))


def ask(sock: ssl.SSLSocket) -> str:
    sock.sendall(REQUEST)
    head = read_until(sock, b"\r\n\r\n")
    size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
    return head.split()[1].decode() + " " + sock.recv(int(size.split()[1])).decode()


def refusal(sock: ssl.SSLSocket, request: bytes) -> tuple[bytes, str]:
    """The status line of the answer after which the server closes, and the sentence."""
    sock.sendall(request)
    head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head.lower()
    return head.split(b" ")[1], json.loads(body)["message"]


def test_clients_with_certificates(api: Serving, tmp_path: Path, stack: contextlib.ExitStack) -> None:
    for name in ("alice", "carol"):
        assert ask(connect(api, tmp_path, name, stack)) == f"200 {name}"
    assert ask(connect(api, tmp_path, "mallory", stack)).startswith("403 ")


def test_connections_of_a_user_are_bounded(api: Serving, tmp_path: Path, stack: contextlib.ExitStack) -> None:
    own = [connect(api, tmp_path, "alice", stack) for _ in range(LIMIT)]
    sentence = f"the policy allows you {LIMIT} connections, and as many are open"
    for request in (REQUEST, b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"):
        assert refusal(connect(api, tmp_path, "alice", stack), request) == (b"429", sentence)
    assert [ask(sock) for sock in own] == ["200 alice"] * LIMIT
    for name in ("bob", "carol", "carol", "carol", "carol"):
        assert ask(connect(api, tmp_path, name, stack)) == f"200 {name}"
    own[0].close()
    assert until(lambda: ask(connect(api, tmp_path, "alice", stack)) == "200 alice")


def test_a_flood_of_refused_connections(api: Serving, tmp_path: Path, stack: contextlib.ExitStack) -> None:
    for _ in range(LIMIT + 80):
        with contextlib.suppress(OSError):
            connect(api, tmp_path, "alice", stack)
    assert until(lambda: len(api.server.state.connections) <= LIMIT + 64)
    assert ask(connect(api, tmp_path, "bob", stack)) == "200 bob"


def test_a_taken_over_connection_counts_until_its_end(
    api: Serving, tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    own = [connect(api, tmp_path, "alice", stack) for _ in range(LIMIT)]
    for sock in own:
        sock.sendall(TAKE)
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert refusal(connect(api, tmp_path, "alice", stack), REQUEST)[0] == b"429"
    own[0].close()
    assert until(lambda: ask(connect(api, tmp_path, "alice", stack)) == "200 alice")


def test_a_reload_keeps_the_count(api: Serving, tmp_path: Path, stack: contextlib.ExitStack) -> None:
    own = [connect(api, tmp_path, "alice", stack) for _ in range(LIMIT)]
    assert [ask(sock) for sock in own] == ["200 alice"] * LIMIT
    gate = api.app.gate
    assert gate is not None

    async def reload(limit: int) -> None:
        gate.reload(Policy({**POLICY, "roles": {"few": {"connections": limit}}}), {})

    api.run(reload(LIMIT))
    assert refusal(connect(api, tmp_path, "alice", stack), REQUEST)[0] == b"429"
    api.run(reload(LIMIT + 1))
    assert ask(connect(api, tmp_path, "alice", stack)) == "200 alice"
