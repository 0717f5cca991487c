"""Clients that only connect: many at once, or without sending a request."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.containers import running
from compat_tests.support.engines import Engine, wharf
from compat_tests.support.host.processes import marked_processes, open_descriptors
from compat_tests.support.polling import until

CLIENTS = 1000
SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())
DEADLINE = 60.0


@contextlib.contextmanager
def stopped(engine: Engine) -> Iterator[None]:
    """Stop the engine's processes, so that none accepts connections."""
    pids = [process.pid for process in marked_processes(engine.resources.footprint.mark)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def refused(path: Path, count: int) -> int:
    """Return how many of so many clients find the queue full."""
    directory = os.open(path.parent, os.O_PATH)
    short = f"/proc/self/fd/{directory}/{path.name}"  # a socket's address has at most 107 bytes
    failed = 0
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, directory)
        for _ in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            try:
                sock.connect(short)
            except BlockingIOError:  # EAGAIN
                failed += 1
    return failed


def sockets(root: Path) -> list[Path]:
    """Return the listening sockets below a directory."""
    found = []
    for folder, _folders, files in os.walk(root):
        for path in (Path(folder, name) for name in files):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                if stat.S_ISSOCK(path.lstat().st_mode):
                    directory = os.open(path.parent, os.O_PATH)
                    try:
                        probe.connect(f"/proc/self/fd/{directory}/{path.name}")
                    finally:
                        os.close(directory)
                    found.append(path)
    return found


def test_a_thousand_clients_at_once(own_engine: Engine) -> None:
    """The queue of every socket is long enough: the API's, the supervisor's, a shim's."""
    engine = own_engine
    if engine.kind != "wharf":
        pytest.skip("the supervisor's and the shims' sockets are those of ours")
    with running(engine, {"HostConfig": {"NetworkMode": "none"}}):
        found = sockets(engine.resources.root)
        assert len(found) >= 4, found  # the API, the supervisor's two, the shim's
        clients = min(CLIENTS, SOMAXCONN)
        with stopped(engine):
            full = {str(path): count for path in found if (count := refused(path, clients))}
        assert not full
        assert engine.api.get("/_ping").status == 200


LEFT = [
    b"GET /containers/%b/attach/ws?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"POST /containers/%b/attach?stream=1&stdout=1&logs=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n\r\n",
    b"POST /grpc?%b HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /session?%b HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"GET /containers/%b/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n",
]


def test_clients_that_leave_before_their_answer(own_engine: Engine) -> None:
    """Clients that disconnect before their answer cause no log line."""
    engine = own_engine
    before = engine.daemon.written
    with running(engine, {"HostConfig": {"NetworkMode": "none"}}) as identity:
        for _ in range(40):
            for request in LEFT:
                with engine.api.raw() as sock:
                    sock.sendall(request % identity.encode())
        assert engine.api.get("/_ping").status == 200
    output = engine.daemon.tail(1_000_000, since=before)
    assert "Traceback" not in output, output


@pytest.fixture(scope="module")
def impatient() -> Iterator[Engine]:
    """An engine whose clients must send their request heads within two seconds."""
    patience = os.environ.get("WHARF_TIMEOUTS", "")
    os.environ["WHARF_TIMEOUTS"] = ",".join(filter(None, [patience, "http.head=2", "http.linger=2"]))
    try:
        with wharf("impatient") as engine:
            yield engine
    finally:
        os.environ["WHARF_TIMEOUTS"] = patience
        if not patience:
            del os.environ["WHARF_TIMEOUTS"]


def ended(sock: socket.socket, trickle: bytes) -> bool:
    """Whether the server closes the connection although the client sends bytes now and then."""
    end = time.monotonic() + DEADLINE
    sock.settimeout(0.2)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() < end:
            sock.sendall(trickle)
            with contextlib.suppress(TimeoutError):
                if not sock.recv(4096):
                    return True
        return False
    return True


@pytest.mark.parametrize(
    ("begin", "trickle"),
    [
        (b"", b""),
        (b"G", b""),
        (b"", b"\r\n"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\n", b"X: y\r\n"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\nGET /_ping HTTP/1.1\r\n", b"X: y\r\n"),
        (b"POST /nothing HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    ],
    ids=["nothing", "a byte", "empty lines", "a head", "a second head", "a body that nobody reads"],
)
def test_a_client_that_never_ends_its_head(impatient: Engine, begin: bytes, trickle: bytes) -> None:
    with impatient.api.raw() as sock:
        sock.sendall(begin)
        assert ended(sock, trickle)


def test_many_slow_clients_do_not_block_others(impatient: Engine) -> None:
    before = open_descriptors(impatient.daemon.pid)
    with contextlib.ExitStack() as stack:
        for number in range(200):
            sock = stack.enter_context(impatient.api.raw())
            sock.sendall(b"GET /_ping HTTP/1.1\r\n"[: number % 20])
        assert impatient.api.get("/_ping").status == 200
        assert until(lambda: open_descriptors(impatient.daemon.pid) <= before + 5, seconds=DEADLINE)
