"""What clients see when processes of the engine are killed: the supervisor, a container's shim, wharfd.

Streams belong to the shim, so they continue without either daemon; exits are known after the restart.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import threading
from typing import Any

import pytest

from compat_tests.support.containers import container, state
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import listeners, marked_processes
from compat_tests.support.polling import until
from compat_tests.support.streams import demultiplex, frames, hijack

SUPERVISOR = "wharf-supervis"
SHIM = "wharf-shim"
DEADLINE = 60.0


@pytest.fixture(autouse=True)
def wharf_only(own_engine: Engine) -> None:
    if own_engine.kind != "wharf":
        pytest.skip("the embedded supervisor and its shims only")


def exec_of(engine: Engine, identity: str, *cmd: str, **more: Any) -> str:
    body = {"Cmd": list(cmd), "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, **more}
    answer = engine.api.post(f"/containers/{identity}/exec", body)
    assert answer.status == 201, answer.body
    return str(answer.json()["Id"])


def read_line(client: subprocess.Popen[bytes]) -> bytes:
    assert client.stdout is not None
    return client.stdout.readline()


def test_run_continues_without_the_supervisor(own_engine: Engine) -> None:
    engine = own_engine
    args = ("run", "--rm", "-i", "--network", "none", "busybox", "sh", "-c", "echo one; read x; echo $x; exit 4")
    with engine.popen(*args) as client:
        try:
            assert read_line(client) == b"one\n"
            engine.kill(SUPERVISOR)
            out, err = client.communicate(b"two\n", timeout=DEADLINE)
            assert (out, err, client.returncode) == (b"two\n", b"", 4)
        finally:
            client.kill()


def test_run_ends_when_its_shim_dies(own_engine: Engine) -> None:
    engine = own_engine
    with engine.popen("run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo one; sleep 600") as client:
        try:
            assert read_line(client) == b"one\n"
            engine.kill(SHIM)
            out, _ = client.communicate(timeout=DEADLINE)
            assert (out, client.returncode) == (b"", 137)
        finally:
            client.kill()


def test_attached_streams_live_without_the_daemons(own_engine: Engine) -> None:
    """Both daemons are killed; the client continues to write, and its input is in the log."""
    engine = own_engine
    config: dict[str, Any] = {"Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
    with container(engine, **config) as identity:
        with hijack(engine, f"/containers/{identity}/attach?stream=1&stdin=1&stdout=1") as stream:
            stream.write(b"before\n")
            assert frames(stream.until(b"before\n")) == [(1, b"before\n")]
            engine.kill("wharfd")
            engine.kill(SUPERVISOR)
            stream.write(b"without\n")
            assert frames(stream.until(b"without\n")) == [(1, b"without\n")]
            engine.start()
            stream.write(b"after\n")
            assert frames(stream.until(b"after\n")) == [(1, b"after\n")]
            stream.end_input()
            assert stream.read() == b""
        assert until(lambda: state(engine, identity)["Status"] == "exited")
        assert state(engine, identity)["ExitCode"] == 0
        assert engine.docker("logs", identity).stdout == "before\nwithout\nafter\n"


def test_exit_while_both_daemons_are_dead(own_engine: Engine) -> None:
    engine = own_engine
    config: dict[str, Any] = {"Cmd": ["sh", "-c", "read x; echo $x; exit 9"], "OpenStdin": True, "StdinOnce": True}
    with container(engine, **config) as identity:
        with hijack(engine, f"/containers/{identity}/attach?stream=1&stdin=1&stdout=1") as stream:
            engine.kill("wharfd")
            engine.kill(SUPERVISOR)
            stream.write(b"last words\n")
            assert demultiplex(stream.read()) == {1: b"last words\n"}
        engine.start()
        assert until(lambda: state(engine, identity)["Status"] == "exited")
        assert state(engine, identity)["ExitCode"] == 9
        assert engine.docker("logs", identity).stdout == "last words\n"


def test_exec_continues_without_the_supervisor(own_engine: Engine) -> None:
    """The exec exits while the supervisor is dead; its status is still known."""
    engine = own_engine
    with container(engine, Cmd=["sleep", "600"]) as identity:
        name = exec_of(engine, identity, "sh", "-c", "echo one; read x; echo $x; exit 3")
        with hijack(engine, f"/exec/{name}/start", {"Detach": False, "Tty": False}) as stream:
            assert frames(stream.until(b"one\n")) == [(1, b"one\n")]
            engine.kill(SUPERVISOR)
            stream.write(b"two\n")
            assert demultiplex(stream.read()) == {1: b"two\n"}

        def ended() -> bool:
            found = engine.api.get(f"/exec/{name}/json").json()
            return not found["Running"] and found["ExitCode"] == 3

        assert until(ended), engine.api.get(f"/exec/{name}/json").json()
        # New execs work too.
        assert engine.docker("exec", identity, "echo", "again").stdout == "again\n"


def test_an_execs_stream_lives_without_wharfd(own_engine: Engine) -> None:
    engine = own_engine
    with container(engine, Cmd=["sleep", "600"]) as identity:
        name = exec_of(engine, identity, "cat")
        with hijack(engine, f"/exec/{name}/start", {"Detach": False, "Tty": False}) as stream:
            stream.write(b"one\n")
            stream.until(b"one\n")
            engine.kill("wharfd")
            engine.start()
            stream.write(b"two\n")
            assert frames(stream.until(b"two\n")) == [(1, b"two\n")]
            stream.end_input()
            assert stream.read() == b""
        assert state(engine, identity)["Running"]
        assert engine.docker("exec", identity, "echo", "again").stdout == "again\n"


def test_exec_ends_when_its_shim_dies(own_engine: Engine) -> None:
    engine = own_engine
    with container(engine, Cmd=["sleep", "600"]) as identity:
        with engine.popen("exec", identity, "sh", "-c", "echo one; sleep 600") as client:
            try:
                assert read_line(client) == b"one\n"
                engine.kill(SHIM)
                client.communicate(timeout=DEADLINE)
                assert client.returncode == 137
            finally:
                client.kill()
        assert until(lambda: state(engine, identity)["Status"] == "exited")
        assert state(engine, identity)["ExitCode"] == 137
        # The container can be started again.
        assert engine.api.post(f"/containers/{identity}/start").status == 204


def test_logs_follow_without_the_supervisor_and_lose_nothing_with_a_shim(own_engine: Engine) -> None:
    engine = own_engine
    script = "i=0; while read x; do echo line $i; i=$((i+1)); done"
    with container(engine, Cmd=["sh", "-c", script], OpenStdin=True) as identity:
        with hijack(engine, f"/containers/{identity}/attach?stream=1&stdin=1&stdout=1") as stream:
            with engine.popen("logs", "-f", identity) as client:
                try:
                    stream.write(b"\n")
                    assert read_line(client) == b"line 0\n"
                    engine.kill(SUPERVISOR)
                    stream.write(b"\n")
                    assert read_line(client) == b"line 1\n"
                    stream.until(b"line 1\n")
                    engine.kill(SHIM)
                    out, _ = client.communicate(timeout=DEADLINE)
                    assert out == b""
                finally:
                    client.kill()
        assert until(lambda: state(engine, identity)["Status"] == "exited")
        assert engine.docker("logs", identity).stdout == "line 0\nline 1\n"


@pytest.mark.parametrize("victim", [SUPERVISOR, SHIM, "wharfd"])
def test_killed_during_a_stop(own_engine: Engine, victim: str) -> None:
    """Whatever the request answers, the container exits, and its exit is known."""
    engine = own_engine
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done"
    # The shim exists only until the timeout; the other processes continue after it.
    patience = 60 if victim == SHIM else 1
    with container(engine, Cmd=["sh", "-c", script]) as identity:
        assert until(lambda: engine.docker("logs", identity).stdout == "ready\n")

        answers: list[int] = []

        def stop() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answers.append(engine.api.post(f"/containers/{identity}/stop", t=patience).status)

        stopping = threading.Thread(target=stop)
        stopping.start()
        try:
            assert until(lambda: "asked" in engine.docker("logs", identity).stdout)
            engine.kill(victim)
        finally:
            stopping.join(DEADLINE)
        if victim == "wharfd":
            engine.start()
        if answers != [204]:
            assert victim != SHIM
            assert engine.api.post(f"/containers/{identity}/stop", t=0).status in (204, 304)
        assert until(lambda: state(engine, identity)["Status"] == "exited")
        assert state(engine, identity)["ExitCode"] == 137
        assert engine.docker("logs", identity).stdout.startswith("ready\nasked\n")


def test_wait_survives_the_supervisor(own_engine: Engine) -> None:
    engine = own_engine
    with container(engine, Cmd=["sleep", "600"]) as identity:
        answers: list[Any] = []
        waiting = threading.Thread(
            target=lambda: answers.append(engine.api.post(f"/containers/{identity}/wait").json())
        )
        waiting.start()
        engine.kill(SUPERVISOR)
        assert until(lambda: engine.api.post(f"/containers/{identity}/kill").status == 204)
        waiting.join(DEADLINE)
        assert [answer["StatusCode"] for answer in answers] == [137]


def test_containers_keep_the_limits_that_wharfd_was_started_with(own_engine: Engine) -> None:
    """Both daemons raise their own limits; a restarted supervisor or zygote passes on the original ones."""
    engine = own_engine

    def limit() -> str:
        return engine.docker("run", "--rm", "--network", "none", "busybox", "sh", "-c", "ulimit -Sn").stdout

    first = limit()
    engine.kill(SUPERVISOR)
    assert limit() == first
    engine.kill("wharf-zygote")
    assert limit() == first


def test_an_upgrade_after_a_crash_replaces_the_supervisor(own_engine: Engine) -> None:
    """The crash leaves the supervisor running although its installation is gone from the disk."""
    engine = own_engine
    note = engine.resources.root / "run/containerd/installation"
    with container(engine, Cmd=["sleep", "600"]) as identity:
        engine.docker("start", identity)
        for origin, same in ((note.read_text(), True), ("another installation", False)):
            (before,) = engine.find(SUPERVISOR)
            engine.kill("wharfd")
            note.write_text(origin)
            engine.start()
            assert ([process.pid for process in engine.find(SUPERVISOR)] == [before.pid]) is same
            assert engine.docker("exec", identity, "echo", "alive").stdout == "alive\n"


def test_commit_interrupted_by_a_crash_unpauses(own_engine: Engine) -> None:
    engine = own_engine
    fill = "head -c 200000000 /dev/urandom > /big; echo made; sleep 600"
    with container(engine, Cmd=["sh", "-c", fill]) as identity:
        engine.docker("start", identity)
        assert until(lambda: "made" in engine.docker("logs", identity).stdout)
        with engine.popen("commit", identity) as client:
            # The commit may finish before the check; then the container is already unpaused.
            until(lambda: client.poll() is not None or state(engine, identity)["Paused"])
            engine.kill("wharfd")
            client.communicate(timeout=DEADLINE)
        engine.start()
        assert until(lambda: state(engine, identity)["Status"] == "running")
    engine.docker("image", "prune", "--force")


def test_the_proxy_of_a_killed_daemon_has_the_mark_of_its_engine(own_engine: Engine) -> None:
    """The scripts that stop an engine find its processes by a variable (deploy/engine.sh): a proxy without it kept its
    ports for two minutes."""
    own_engine.docker("run", "-d", "-p", "80", "busybox", "sleep", "1000")
    (proxy,) = listeners(own_engine.resources.root / "run/proxy.sock")
    own_engine.kill("wharfd")
    assert proxy in marked_processes(own_engine.resources.footprint.mark)
    own_engine.start()
    own_engine.remove_all()
