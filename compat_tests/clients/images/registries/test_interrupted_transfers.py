"""Transfers whose client disconnects or stalls: nothing of them stays, and other clients don't wait for them."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from compat_tests.support import engines
from compat_tests.support.disk import blobs_in, ingest_size
from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, docker_archive, oci_archive
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry
from compat_tests.support.servers.registry_proxy import Delay, RecordedRequest, Reply
from compat_tests.support.transfers import proxied, unique_layers

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("remove_new_images")


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """host:port of a server with a full accept queue: a connect waits."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        host, port = server.getsockname()
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect((host, port))
        yield f"{host}:{port}"


@contextlib.contextmanager
def sending(engine: Engine, path: str, body: bytes, upto: int) -> Iterator[socket.socket]:
    """A client that sends part of a body and then stalls."""
    with contextlib.closing(engine.api.raw()) as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:upto])
        yield sock


@pytest.mark.core
@pytest.mark.parametrize("archived", [oci_archive, docker_archive])
def test_stalled_and_interrupted_load(engine: Engine, archived: type[object]) -> None:
    archive = archived("left:1", [busybox_layer(), *unique_layers(1, 4 * MIB)])  # type: ignore[call-arg]
    assert isinstance(archive, bytes)
    blobs, begun = blobs_in(engine), ingest_size(engine)
    upto = len(archive) // 4 * 3
    with sending(engine, "/images/load?quiet=1", archive, upto) as sock:
        assert until(lambda: ingest_size(engine) > begun, seconds=60)
        # Another client with the same image does not wait for the stalled one.
        assert "Loaded image: left:1" in engine.docker("load", input=archive).stdout
        engine.docker("rmi", "left:1")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert until(lambda: ingest_size(engine) <= begun, seconds=60)
    assert until(lambda: not blobs_in(engine) - blobs, seconds=60), blobs_in(engine) - blobs
    assert "Loaded image: left:1" in engine.docker("load", input=archive).stdout


@pytest.mark.core
def test_interrupted_import(engine: Engine) -> None:
    begun, before = ingest_size(engine), blobs_in(engine)
    data = unique_layers(1, 8 * MIB)[0]
    path = "/images/create?fromSrc=-&repo=left&tag=imported"
    with sending(engine, path, data, len(data) // 4 * 3):
        assert until(lambda: ingest_size(engine) > begun, seconds=60)
    assert until(lambda: ingest_size(engine) <= begun, seconds=60)
    assert not blobs_in(engine) - before
    assert engine.api.get("/images/left:imported/json").status == 404
    assert engine.docker("import", "-", "left:imported", input=data).stdout.startswith("sha256:")


def test_interrupted_save(engine: Engine) -> None:
    """The lease of a save ends when its reader disconnects."""
    before = blobs_in(engine)
    engine.docker("load", "-q", input=docker_archive("left:saved", [busybox_layer(), *unique_layers(1, 8 * MIB)]))
    own = blobs_in(engine) - before
    assert len(own) >= 3
    with contextlib.closing(engine.api.raw()) as sock:
        sock.sendall(b"GET /images/left:saved/get HTTP/1.1\r\nHost: d\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        engine.docker("rmi", "left:saved")
        assert own <= blobs_in(engine)
    assert until(lambda: not own & blobs_in(engine), seconds=60)


def test_stop_does_not_wait_for_registries(plain_registry: Registry) -> None:
    """A registry that stalls, and one that accepts no connection."""
    delay = Delay(MIB)

    def delayed(request: RecordedRequest) -> Delay | None:
        return delay if request.method == "GET" and "/blobs/" in request.path else None

    with pytest.MonkeyPatch.context() as patch, deaf() as elsewhere, contextlib.ExitStack() as stack:
        patch.setenv("WHARF_TIMEOUTS", "registry.connect=3600,registry.answer=3600")
        engine = stack.enter_context(engines.wharf("stopped"))
        away = Reply(307, b"", {"Location": f"http://{elsewhere}/blob"})
        for repository, rule in (
            ("held", delayed),
            ("deaf", lambda request: away if request.method == "GET" and "/blobs/" in request.path else None),
        ):
            proxy, _ = stack.enter_context(
                proxied(plain_registry, f"stopped/{repository}", unique_layers(1, 2 * MIB), rule)
            )
            client = stack.enter_context(engine.popen("pull", f"{proxy.address}/stopped/{repository}:1"))
            stack.callback(client.kill)
            assert until(lambda proxy=proxy: bool(proxy.requests_for("GET", "/blobs/")), seconds=60)  # type: ignore[misc]
        assert delay.reached.wait(60)
        assert engine.daemon.stop() == 0  # fails after a minute
        delay.resume.set()
