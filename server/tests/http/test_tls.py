"""TLS clients that stall, and TLS versions that are no longer supported."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from engine.common import timeouts
from server.config.load import load
from server.sockets import tls_context
from server.tests.http.serving import DEADLINE, Serving, serving


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def api(tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.setitem(timeouts._SECONDS, "tls.handshake", 1.0)
    monkeypatch.setitem(timeouts._SECONDS, "http.head", 1.0)
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    path = str(tmp_path / "server.pem")
    (tmp_path / "daemon.json").write_text("{}")
    flags = ["--config-file", str(tmp_path / "daemon.json"), "--tls", "--tlscert", path, "--tlskey", path]
    context = tls_context(load(flags)[0])
    with serving(tmp_path, [], tls=context) as running:
        yield running


def hello(authority: trustme.CA) -> bytes:
    """The first message of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def ended(sock: socket.socket, pieces: Iterator[bytes]) -> bool:
    """Whether the server closes the connection while the client sends one piece after the other."""
    end = time.monotonic() + DEADLINE
    sock.settimeout(0.1)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() < end:
            sock.sendall(next(pieces, b""))
            with contextlib.suppress(TimeoutError):
                if not sock.recv(65536):
                    return True
        return False
    return True


@pytest.mark.parametrize("how", ["nothing", "half a hello", "byte by byte", "a hello and no more"])
def test_a_handshake_has_a_deadline(api: Serving, authority: trustme.CA, how: str) -> None:
    first = hello(authority)
    pieces = {
        "nothing": [],
        "half a hello": [first[: len(first) // 2]],
        "byte by byte": [bytes((byte,)) for byte in first],
        "a hello and no more": [first],
    }[how]
    with socket.create_connection(("127.0.0.1", api.tls_port)) as sock:
        assert ended(sock, iter(pieces))
    assert not api.server.state.connections


def test_a_head_has_a_deadline_after_the_handshake(api: Serving, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", api.tls_port)) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        sock.sendall(b"GET /_ping HTTP/1.1\r\n")
        sock.settimeout(DEADLINE)
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            assert sock.recv(1) == b""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_versions(api: Serving, authority: trustme.CA, version: ssl.TLSVersion, spoken: bool) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", api.tls_port), timeout=DEADLINE) as raw:
        if not spoken:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                context.wrap_socket(raw, server_hostname="localhost")
            return
        with context.wrap_socket(raw, server_hostname="localhost") as sock:
            assert sock.version() == version.name.replace("_", ".")


@pytest.mark.parametrize(
    ("offered", "selected"),
    [(["h2"], "h2"), (["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["x"], None)],
)
def test_http2_is_for_clients_that_offer_nothing_else(
    api: Serving, authority: trustme.CA, offered: list[str], selected: str | None
) -> None:
    """These are clients of gRPC; curl offers both, and its requests need HTTP/1.1."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(offered)
    with (
        socket.create_connection(("127.0.0.1", api.tls_port), timeout=DEADLINE) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        assert sock.selected_alpn_protocol() == selected
