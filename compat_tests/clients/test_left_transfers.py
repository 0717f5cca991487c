"""Archives and pulls whose client goes away in the middle: nothing of them stays, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from compat_tests.clients.transfers import blobs_in, fresh, ingested, tags
from compat_tests.engines import Engine
from compat_tests.images import busybox_layer, docker_archive, oci_archive
from compat_tests.traces import until

pytestmark = pytest.mark.root

MIB = 1 << 20


@pytest.fixture(autouse=True)
def images_as_before(engine: Engine) -> Iterator[None]:
    before = tags(engine)
    yield
    for tag in tags(engine) - before:
        engine.api.delete(f"/images/{tag}", force=1)


@contextlib.contextmanager
def sending(engine: Engine, path: str, body: bytes, upto: int) -> Iterator[socket.socket]:
    """A client that sends so much of a body, and then says nothing more."""
    with contextlib.closing(engine.api.raw()) as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:upto])
        yield sock


@pytest.mark.core
@pytest.mark.parametrize("archived", [oci_archive, docker_archive])
def test_a_load_that_stalls_and_is_left(engine: Engine, archived: type[object]) -> None:
    archive = archived("left:1", [busybox_layer(), *fresh(1, 4 * MIB)])  # type: ignore[call-arg]
    assert isinstance(archive, bytes)
    blobs, begun = blobs_in(engine), ingested(engine)
    upto = len(archive) // 4 * 3
    with sending(engine, "/images/load?quiet=1", archive, upto) as sock:
        assert until(lambda: ingested(engine) > begun, seconds=60)
        # The same image from somebody else: it does not wait for the one who stalls.
        assert "Loaded image: left:1" in engine.docker("load", input=archive).stdout
        engine.docker("rmi", "left:1")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert until(lambda: ingested(engine) == begun, seconds=60)
    assert until(lambda: not blobs_in(engine) - blobs, seconds=60), blobs_in(engine) - blobs
    assert "Loaded image: left:1" in engine.docker("load", input=archive).stdout


@pytest.mark.core
def test_an_import_that_is_left(engine: Engine) -> None:
    begun, before = ingested(engine), blobs_in(engine)
    data = fresh(1, 8 * MIB)[0]
    path = "/images/create?fromSrc=-&repo=left&tag=imported"
    with sending(engine, path, data, len(data) // 4 * 3):
        assert until(lambda: ingested(engine) > begun, seconds=60)
    assert until(lambda: ingested(engine) == begun, seconds=60)
    assert not blobs_in(engine) - before
    assert engine.api.get("/images/left:imported/json").status == 404
    assert engine.docker("import", "-", "left:imported", input=data).stdout.startswith("sha256:")


def test_a_save_that_is_left(engine: Engine) -> None:
    """What is saved is held no longer than somebody reads it."""
    engine.docker("load", "-q", input=docker_archive("left:saved", [busybox_layer(), *fresh(1, 8 * MIB)]))
    before = blobs_in(engine)
    with contextlib.closing(engine.api.raw()) as sock:
        sock.sendall(b"GET /images/left:saved/get HTTP/1.1\r\nHost: d\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        engine.docker("rmi", "left:saved")
        assert blobs_in(engine) == before
    assert until(lambda: len(before - blobs_in(engine)) >= 3, seconds=60)
