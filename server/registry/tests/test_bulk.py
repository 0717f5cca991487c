"""Layers over TLS, and failures before the response: an untrusted certificate, a stalled handshake."""

import asyncio
import os
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from engine.common.errors import Kind, WharfError
from server.config.model import Config
from server.registry.client import Repository
from server.registry.reference import parse
from server.registry.tests.servers import scripted


def repository(address: str, certs: Path) -> Repository:
    return Repository(Config(certs_dir=certs), parse(f"{address}/team/app:1"))


async def blob(found: Repository, offset: int = 0) -> bytes:
    async with found.blob("sha256:x", offset) as (_, pieces):
        return b"".join([piece async for piece in pieces])


def trusting(certs: Path, address: str, authority: trustme.CA) -> None:
    (certs / address).mkdir()
    authority.cert_pem.write_to_path(certs / address / "ca.crt")


def test_layers_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    data = os.urandom(5_000_000)

    async def read() -> None:
        async with repository(server.address, tmp_path) as found:
            for _ in range(3):
                assert await blob(found) == data
            assert await asyncio.gather(*(blob(found) for _ in range(5))) == [data] * 5

    with scripted(lambda _: (200, {}, data), tls) as server:
        trusting(tmp_path, server.address, authority)
        asyncio.run(asyncio.wait_for(read(), 60))
        assert len(server.seen) == 8


def test_an_untrusted_server_gets_no_request(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)

    async def read() -> None:
        async with repository(server.address, tmp_path) as found:
            await blob(found)

    with scripted(lambda _: (200, {}, b"blob"), tls) as server:
        trusting(tmp_path, server.address, trustme.CA())
        with pytest.raises(WharfError, match="tls: failed to verify certificate") as caught:
            asyncio.run(asyncio.wait_for(read(), 60))
    assert caught.value.kind is Kind.INTERNAL
    assert not server.seen


def test_a_cancelled_handshake(tmp_path: Path) -> None:
    """The server sends nothing: a cancelled client closes the connection at once."""
    begun = threading.Event()

    def silent() -> bytes:
        with listener.accept()[0] as connection:
            connection.settimeout(60)
            hello = connection.recv(65536)
            begun.set()
            assert hello[:1] == b"\x16"  # a TLS handshake
            return connection.recv(65536)

    async def left() -> None:
        async with repository(address, tmp_path) as found:
            reading = asyncio.create_task(blob(found))
            assert await asyncio.to_thread(begun.wait, 60)
            reading.cancel()
            await asyncio.wait((reading,))
            assert reading.cancelled()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        (tmp_path / address).mkdir()  # TLS only
        heard = server.submit(silent)
        asyncio.run(asyncio.wait_for(left(), 60))
        assert heard.result(25) == b""  # earlier than the deadline of a connection
