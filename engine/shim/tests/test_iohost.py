"""A real I/O host with simulated processes: it exits with the processes that it serves, whoever reports their exit."""

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.shim import iohost, protocol, zygote
from engine.shim.protocol import Json
from engine.shim.tests.harness import PATIENCE, Forked, Refused, gone, until


class Process:
    """Has the FIFO ends that containerd's shim has."""

    def __init__(self, paths: Json) -> None:
        self.paths = [Path(str(paths[name])) for name in ("stdout", "stderr")]
        self._fds = [os.open(path, os.O_WRONLY) for path in self.paths]

    def write(self, data: bytes) -> None:
        os.write(self._fds[0], data)

    def exit(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


class Host(Forked):
    control_name = iohost.SOCKET

    def leave(self) -> None:
        """As a daemon that dies."""
        self._control.close()

    def open(self, exec_id: str = "", *, driver: str = "none") -> Process:
        return Process(self.ask("open", exec_id=exec_id, **self.stdio(driver=driver)))

    def started(self, exec_id: str = "") -> Process:
        process = self.open(exec_id)
        self.ask("started", exec_id=exec_id)
        return process

    def over(self, exec_id: str = "") -> None:
        """As a daemon that gets a process's exit event."""
        self.ask("exited", exec_id=exec_id)
        self.ask("close", exec_id=exec_id)

    @property
    def processes(self) -> object:
        return self.ask("state")["processes"]

    def gone(self) -> bool:
        return gone(self.shim_pid)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    parent = zygote.start()
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    bundle = tmp_path / "io"
    bundle.mkdir()
    protocol.send_blocking(parent.sock, {"what": "iohost", "bundle": str(bundle)}, [theirs.fileno()])
    theirs.close()
    received = protocol.receive_blocking(parent.sock)
    assert received is not None
    made = Host(bundle, ours, int(str(received[0]["pid"])))
    yield made
    made.leave()
    with contextlib.suppress(ProcessLookupError):
        os.kill(made.shim_pid, signal.SIGKILL)
    parent.sock.close()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(parent.pid, 0)


def test_it_exits_with_the_last_process(host: Host) -> None:
    first, second = host.started(), host.started("e")
    client = host.attach(exec_id="e")
    second.write(b"some")
    second.exit()
    host.over("e")
    assert client.read_all() == b"some"
    assert host.processes == [""]
    client.close()
    first.exit()
    host.over()
    until(host.gone, "the host leaves")
    assert not list(host.bundle.iterdir())


def test_execs_end_with_their_container(host: Host) -> None:
    """Their exit is not reported: the event was lost, or the container's came first."""
    first, second = host.started(), host.started("e")
    client = host.attach(exec_id="e")
    second.write(b"last words")
    first.exit()
    host.over()
    second.exit()
    assert client.read_all() == b"last words"
    client.close()
    until(host.gone, "the host leaves")


def test_an_exec_that_starts_while_its_container_ends(host: Host) -> None:
    first, failed, late = host.started(), host.open("failed"), host.open("late")
    client = host.attach(exec_id="failed")
    first.exit()
    host.over()
    # The client that starts them still waits for containerd's answer.
    assert host.processes == ["failed", "late"]
    failed.exit()
    host.ask("abandon", exec_id="failed")
    assert client.ended() == "unstarted"
    client.close()
    late.exit()
    host.ask("started", exec_id="late")
    until(host.gone, "the host leaves")


def test_a_log_that_cannot_be_opened(host: Host) -> None:
    with pytest.raises(Refused, match="failed to initialize logging driver"):
        host.open(driver="nosuch")
    until(host.gone, "the host leaves")
    assert not list(host.bundle.iterdir())


def test_a_new_process_while_a_client_is_slow(host: Host) -> None:
    first = host.started()
    slow = host.attach()
    first.exit()
    host.over()  # it waits until the client has closed its end
    again = host.started()
    client = host.attach()  # it listens
    host.reconnect()
    assert host.processes == [""]
    again.write(b"again")
    again.exit()
    slow.close()
    host.over()
    assert client.read_all() == b"again"
    client.close()
    until(host.gone, "the host leaves")


def test_the_state_of_a_dead_daemon_is_discarded(host: Host) -> None:
    ran, never = host.started(), host.open("e")
    host.leave()
    ran.exit()
    never.exit()
    host.reconnect()
    assert host.processes == ["", "e"]
    host.ask("discard")
    until(host.gone, "the host leaves")
    assert not list(host.bundle.iterdir())


def test_without_daemon_and_directory(host: Host) -> None:
    process = host.started()
    host.leave()
    shutil.rmtree(host.bundle)
    assert not host.gone()  # its container may still run
    process.write(b"more")
    process.exit()
    until(host.gone, "the host leaves")


def test_it_exits_with_its_daemon_without_a_process(host: Host) -> None:
    host.leave()
    until(host.gone, "the host leaves")
