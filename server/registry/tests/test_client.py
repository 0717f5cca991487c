"""The registry client: manifests, blobs, redirects, ranges, and answers that are no use."""

import asyncio
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from engine.common.errors import Kind, WharfError
from server.config.model import Config
from server.registry.auth import Credentials
from server.registry.client import Repository
from server.registry.oci import digest_of
from server.registry.reference import parse
from server.registry.responses import RegistryError, retry_after
from server.registry.tests.repositories import MANIFEST, SECRET, TYPE, errors, with_repository
from server.registry.tests.servers import Answer, Seen, scripted


def test_manifest_over_plain_http_on_loopback() -> None:
    with scripted(lambda request: (200, dict(TYPE), MANIFEST)) as server:
        data, media_type = with_repository(server.address, lambda repository: repository.manifest("1"))
    assert (data, media_type) == (MANIFEST, TYPE["content-type"])
    assert server.paths() == ["GET /v2/team/app/manifests/1"]


def test_head_tells_digest_type_and_size() -> None:
    fields = {**TYPE, "docker-content-digest": digest_of(MANIFEST)}
    with scripted(lambda request: (200, dict(fields), MANIFEST)) as server:
        head = with_repository(server.address, lambda repository: repository.head("1"))
    assert head == (digest_of(MANIFEST), TYPE["content-type"], len(MANIFEST))


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (
            (404, {}, errors("MANIFEST_UNKNOWN", "manifest unknown")),
            Kind.NOT_FOUND,
            "manifest unknown: manifest unknown",
        ),
        ((401, {}, b""), Kind.UNAUTHENTICATED, "unauthorized: authentication required"),
        ((403, {}, errors("DENIED", "go away")), Kind.PERMISSION_DENIED, "denied: go away"),
        ((500, {}, b"<html>oops</html>"), Kind.INTERNAL, "500"),
        ((200, {"content-type": "text/html"}, b"<html>a login page</html>"), Kind.INVALID_ARGUMENT, "sent no manifest"),
        ((200, {}, b'["a list"]'), Kind.INVALID_ARGUMENT, "sent no manifest"),
        ((302, {"location": "ftp://elsewhere/x"}, b""), Kind.INVALID_ARGUMENT, "without a location"),
    ],
)
def test_responses_that_are_not_a_manifest(answer: Answer, kind: Kind, sentence: str) -> None:
    with scripted(lambda request: (answer[0], dict(answer[1]), answer[2])) as server:
        with pytest.raises(WharfError) as caught:
            with_repository(server.address, lambda repository: repository.manifest("1"))
    assert caught.value.kind is kind
    assert sentence in caught.value.message


def test_a_manifest_is_checked_against_its_digest() -> None:
    wrong = "sha256:" + "00" * 32
    with scripted(lambda request: (200, dict(TYPE), MANIFEST)) as server:
        with pytest.raises(WharfError, match="manifest verification failed for digest"):
            with_repository(server.address, lambda repository: repository.manifest(wrong))


def test_redirects() -> None:
    """Followed without credentials, up to a limit."""

    def other(request: Seen) -> Answer:
        return (200, {}, b"blob") if request.path == "/storage" else (404, {}, b"")

    with scripted(other) as storage:

        def registry(request: Seen) -> Answer:
            if "authorization" not in request.headers:
                return 401, {"www-authenticate": 'Basic realm="x"'}, b""
            if request.path.endswith("/loop"):
                return 307, {"location": request.path}, b""
            return 307, {"location": f"http://{storage.address}/storage"}, b""

        async def read(repository: Repository, name: str) -> bytes:
            async with repository.blob(name) as (_, pieces):
                return b"".join([piece async for piece in pieces])

        with scripted(registry) as server:
            who = Credentials("user", SECRET)
            assert with_repository(server.address, lambda r: read(r, "sha256:x"), credentials=who) == b"blob"
            assert "authorization" not in storage.seen[0].headers
            with pytest.raises(WharfError, match="stopped after 10 redirects"):
                with_repository(server.address, lambda r: read(r, "loop"), credentials=who)


def test_redirects_from_tls(tmp_path: Path) -> None:
    """Also to plain HTTP, as in dockerd (compared with 26.1, including a registry with a verified certificate), without
    credentials."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    async def read(repository: Repository) -> bytes:
        await repository.manifest(digest_of(MANIFEST))
        async with repository.blob("sha256:x") as (_, pieces):
            return b"".join([piece async for piece in pieces])

    def registry(request: Seen) -> Answer:
        if "authorization" not in request.headers:
            return 401, {"www-authenticate": 'Basic realm="x"'}, b""
        return 307, {"location": f"http://{storage.address}{request.path}"}, b""

    def store(request: Seen) -> Answer:
        return (200, dict(TYPE), MANIFEST) if "/manifests/" in request.path else (200, {}, b"blob")

    with scripted(store) as storage, scripted(registry, tls) as server:
        config = Config(certs_dir=tmp_path)
        for verified in (False, True):
            if verified:
                (tmp_path / server.address).mkdir()
                authority.cert_pem.write_to_path(tmp_path / server.address / "ca.crt")
            who = Credentials("ali", SECRET)
            assert with_repository(server.address, read, config=config, credentials=who) == b"blob"
        assert len(storage.seen) == 4
        assert not any("authorization" in request.headers for request in storage.seen)


def test_too_many_requests_and_what_they_ask_for() -> None:
    with scripted(lambda request: (429, {"retry-after": "7"}, b"")) as server:
        with pytest.raises(RegistryError) as caught:
            with_repository(server.address, lambda repository: repository.manifest("1"))
    assert (caught.value.again, caught.value.after) == (True, 7.0)
    assert retry_after("100000") == 60.0
    assert retry_after("Fri, 01 Jan 1999 00:00:00 GMT") == 0.0
    assert retry_after("soon") == 0.0


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (errors("TOOMANYREQUESTS", "you have reached your limit"), "toomanyrequests: you have reached your limit"),
        (b'{"details": "slow down"}', "toomanyrequests: slow down"),
        (b"slow down\n", "toomanyrequests: slow down"),
        (b"{}", "429 Too Many Requests"),
        (b"", "429 Too Many Requests"),
    ],
)
def test_the_text_of_a_limit(body: bytes, sentence: str) -> None:
    """As dockerd 26.1 shows it, except for an answer without any text."""
    with scripted(lambda request: (429, {}, body)) as server:
        with pytest.raises(RegistryError) as caught:
            with_repository(server.address, lambda repository: repository.manifest("1"))
    assert caught.value.message.endswith(sentence)


def test_blobs_resume_only_where_the_registry_does() -> None:
    data = bytes(range(256)) * 10

    def ranged(request: Seen) -> Answer:
        start = int(request.headers["range"].removeprefix("bytes=").rstrip("-"))
        return 206, {"content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, data[start:]

    async def tail(repository: Repository) -> tuple[int, bytes]:
        async with repository.blob("sha256:x", 100) as (start, pieces):
            return start, b"".join([piece async for piece in pieces])

    with scripted(ranged) as server:
        assert with_repository(server.address, tail) == (100, data[100:])
    with scripted(lambda request: (200, {}, data)) as server:
        assert with_repository(server.address, tail) == (0, data)
    lies = {"content-range": "bytes 0-99/100"}
    with scripted(lambda request: (206, dict(lies), data)) as server:
        with pytest.raises(WharfError, match="another range"):
            with_repository(server.address, tail)
    with scripted(lambda request: (200, {"content-length": "99999"}, data)) as server:
        with pytest.raises(WharfError, match="unexpected EOF") as caught:
            with_repository(server.address, tail)
        assert isinstance(caught.value, RegistryError)
        assert caught.value.again


def test_a_registry_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.common import timeouts

    monkeypatch.setitem(timeouts._SECONDS, "registry.answer", 0.2)
    monkeypatch.setitem(timeouts._SECONDS, "registry.connect", 0.2)

    async def run() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with Repository(Config(certs_dir=Path("/nonexistent")), parse(f"127.0.0.1:{port}/a:1")) as repository:
                with pytest.raises(WharfError, match=r"registry\.(answer|connect): nothing for"):
                    await repository.manifest("1")

    asyncio.run(asyncio.wait_for(run(), 60))


def test_closing_a_stalled_body_does_not_block() -> None:
    """The registry stalls during the body; closing the response must not wait for the reading thread."""
    stalled, over = threading.Event(), threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            if not connection.recv(65536).startswith(b"GET /"):
                return  # a client that tries TLS first
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 1000)
            stalled.set()
            over.wait(60)

    async def left(repository: Repository) -> float:
        async with repository.blob(digest_of(b"")) as (_, pieces):
            reading = asyncio.ensure_future(anext(pieces))
            await asyncio.to_thread(stalled.wait, 60)
            await asyncio.sleep(0.3)  # longer than the gathering of bytes: the thread waits for more
            ends = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - ends
        assert await reading == b"x" * 1000
        return took

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:

        def serve() -> None:
            while not stalled.is_set():
                answer(listener.accept()[0])

        served = server.submit(serve)
        try:
            took = with_repository(f"127.0.0.1:{listener.getsockname()[1]}", left)
        finally:
            over.set()
        served.result(60)
    assert took < 30  # the deadline for a registry's next byte is longer
