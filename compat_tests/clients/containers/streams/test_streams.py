"""Streams under load: TLS, slow and disconnected clients, a killed daemon, many containers at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support import as_user, engines
from compat_tests.support.containers import container
from compat_tests.support.engines import Wharf
from compat_tests.support.host.ports import free_ports
from compat_tests.support.host.processes import open_descriptors, status_value
from compat_tests.support.polling import until
from compat_tests.support.streams import demultiplex, hijack

MIB = 1 << 20
NO_LOG = {"LogConfig": {"Type": "none", "Config": {}}}


class Secure:
    """An engine that also listens with TLS, and the CLI's flags for it."""

    def __init__(self, engine: Wharf, address: str, folder: Path) -> None:
        self.engine = engine
        self.flags = ["-H", address, "--tlsverify", "--tlscacert", str(folder / "ca.pem")]
        self.flags += ["--tlscert", str(folder / "client.pem"), "--tlskey", str(folder / "client.key")]


@pytest.fixture(scope="module")
def secure(request: pytest.FixtureRequest) -> Iterator[Secure]:
    if request.config.getoption("--engine") not in (None, "wharf", as_user.KIND):
        pytest.skip("only with our own supervisor")
    trustme = pytest.importorskip("trustme")
    with tempfile.TemporaryDirectory(prefix="wharf-test-tls-") as name:
        folder, address = Path(name), f"tcp://127.0.0.1:{free_ports()}"
        with engines.wharf("streams", *_listening(folder, trustme.CA(), address)) as engine:
            engine.load_busybox()
            yield Secure(engine, address, folder)


def _listening(folder: Path, authority: Any, address: str) -> list[str]:
    """Create keys for both sides in ``folder``; return the daemon's flags."""
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    user = as_user.CURRENT.name if as_user.CURRENT is not None else "client"
    for name, identity in (("server", "127.0.0.1"), ("client", "client@example.org")):
        issued = authority.issue_cert(identity, common_name=user)
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    flags = ["-H", address, "--tlsverify", "--tlscacert", str(folder / "ca.pem")]
    flags += ["--tlscert", str(folder / "server.pem"), "--tlskey", str(folder / "server.key")]
    return flags


def peak_memory(pid: int) -> int:
    """Return the peak memory of a process, in bytes."""
    return status_value(pid, "VmHWM:") << 10


def shim_of(engine: Wharf, box: str) -> int:
    """Return the parent of the container's first process."""
    return status_value(engine.api.get(f"/containers/{box}/json").json()["State"]["Pid"], "PPid:")


def started(engine: Wharf, identity: str) -> dict[str, Any]:
    """Return an exec once it has, or has had, a process: the response head may come before that."""
    found: dict[str, Any] = {}

    def begun() -> bool:
        found.update(engine.api.get(f"/exec/{identity}/json").json())
        return found["Pid"] > 0 or found["ExitCode"] is not None

    assert until(begun), found
    return found


def test_run_and_exec_over_tls(secure: Secure) -> None:
    engine = secure.engine

    def docker(*args: str, input: str = "") -> tuple[int, str, str]:
        done = engine.docker(*secure.flags, *args, input=input, check=False)
        return done.status, done.stdout, done.stderr

    run = ("run", "--rm", "-i", "--network", "none", "busybox")
    text = "".join(f"{number}\n" for number in range(50_000))
    assert docker(*run, "cat", input=text) == (0, text, "")
    assert docker(*run, "wc", "-l", input=text)[:2] == (0, "50000\n")
    assert docker(*run, "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    with container(engine, Cmd=["sleep", "600"]) as box:
        assert docker("exec", "-i", box, "cat", input=text) == (0, text, "")
        assert docker("exec", box, "sh", "-c", "exit 5")[0] == 5


def test_streams_use_bounded_memory(secure: Secure) -> None:
    engine, size = secure.engine, 192 * MIB
    before = peak_memory(engine.daemon.pid)
    command = ["sh", "-c", f"read go; exec dd if=/dev/zero bs=1M count={size // MIB}"]
    with container(engine, Cmd=command, OpenStdin=True, HostConfig=NO_LOG) as box:
        shim = shim_of(engine, box)
        with hijack(engine, f"/containers/{box}/attach?stream=1&stdin=1&stdout=1") as stream:
            stream.write(b"go\n")
            got, peak = 0, 0
            while data := stream.sock.recv(MIB):
                got += len(data)
                if got < size // 2:
                    continue
                peak = peak or peak_memory(shim)
            assert got >= size
        assert peak < 64 * MIB
    assert peak_memory(engine.daemon.pid) < before + 32 * MIB


def test_slow_reader_uses_no_memory_and_loses_nothing(secure: Secure) -> None:
    engine, size = secure.engine, 48 * MIB
    with container(engine, Cmd=["sleep", "600"], HostConfig=NO_LOG) as box:
        before = peak_memory(engine.daemon.pid)
        shim = shim_of(engine, box)
        body = {"AttachStdout": True, "Cmd": ["dd", "if=/dev/zero", "bs=1M", f"count={size // MIB}"]}
        identity = engine.api.post(f"/containers/{box}/exec", body).json()["Id"]
        with hijack(engine, f"/exec/{identity}/start", {}) as stream:
            # Without a reader it still exits: the unread output is in a file.
            pid = started(engine, identity)["Pid"]
            assert until(lambda: not Path(f"/proc/{pid}").exists(), seconds=90)
            assert peak_memory(shim) < 64 * MIB
            assert sum(map(len, demultiplex(stream.read()).values())) == size
        assert peak_memory(engine.daemon.pid) < before + 32 * MIB
        assert engine.api.get(f"/exec/{identity}/json").json()["ExitCode"] == 0


def test_disconnected_clients_free_descriptors(secure: Secure) -> None:
    engine = secure.engine
    with container(engine, Cmd=["cat"], OpenStdin=True) as box:
        shim = shim_of(engine, box)
        assert engine.docker("exec", box, "true").status == 0
        before = open_descriptors(shim)
        daemon = open_descriptors(engine.daemon.pid)
        for number in range(12):
            body = {"AttachStdin": True, "AttachStdout": True, "Cmd": ["cat"], "Tty": bool(number % 2)}
            identity = engine.api.post(f"/containers/{box}/exec", body).json()["Id"]
            stream = hijack(engine, f"/exec/{identity}/start", {"Tty": bool(number % 2)})
            attached = hijack(engine, f"/containers/{box}/attach?stream=1&stdin=1&stdout=1")
            follower = engine.api.raw(timeout=60)
            follower.sendall(f"GET /containers/{box}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
            for each in (stream, attached):
                each.write(b"unfinished")
            for sock in (stream.sock, attached.sock, follower):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
            if number % 2:
                # A terminal has no end of input, so its process stays, as with dockerd.
                found = started(engine, identity)
                if found["Running"]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(found["Pid"], signal.SIGKILL)
        # Without a terminal they exit at the end of their input.
        assert until(lambda: len(engine.api.get(f"/containers/{box}/top").json()["Processes"]) == 1)
        # Some descriptors are opened once, on first use.
        assert until(lambda: open_descriptors(shim) <= before + 4), open_descriptors(shim)
        assert until(lambda: open_descriptors(engine.daemon.pid) <= daemon + 4), open_descriptors(engine.daemon.pid)
        assert engine.docker("exec", box, "echo", "well").stdout == "well\n"


def test_sessions_continue_without_the_daemon(secure: Secure) -> None:
    engine = secure.engine
    with container(engine, Cmd=["cat"], OpenStdin=True) as box:
        body = {"AttachStdin": True, "AttachStdout": True, "Cmd": ["cat"]}
        identity = engine.api.post(f"/containers/{box}/exec", body).json()["Id"]
        with (
            hijack(engine, f"/exec/{identity}/start", {}) as stream,
            hijack(engine, f"/containers/{box}/attach?stream=1&stdin=1&stdout=1") as attached,
        ):
            for each in (stream, attached):
                each.write(b"before\n")
                each.until(b"before\n")
            engine.kill("wharfd")
            for each in (stream, attached):
                each.write(b"without\n")
                each.until(b"without\n")
            engine.start()
            for each in (stream, attached):
                each.write(b"after\n")
                each.until(b"after\n")
            stream.end_input()
            assert stream.read() == b""
        assert engine.docker("logs", box).stdout == "before\nwithout\nafter\n"
        assert engine.docker("exec", box, "echo", "new").stdout == "new\n"


def test_output_of_many_containers_that_exit_at_once(secure: Secure) -> None:
    engine = secure.engine

    def one(number: int) -> bool:
        script = f"echo out {number}; echo err {number} >&2; exit {number % 7}"
        flags = ("run", "--rm", "--network", "none", "busybox")
        done = engine.docker(*flags, "sh", "-c", script, check=False)
        return (done.status, done.stdout, done.stderr) == (number % 7, f"out {number}\n", f"err {number}\n")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(36)))
