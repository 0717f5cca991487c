"""The streams of an exec: stdin, terminal, detach keys, framing, the null device."""

from __future__ import annotations

import pytest

from compat_tests.clients.containers.exec.execs import create, inspect
from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.streams import Terminal, demultiplex, hijack


@pytest.mark.core
def test_stdin_and_its_end(engine: Engine, box: str) -> None:
    text = "".join(f"line {number}\n" for number in range(20000))
    assert engine.docker("exec", "-i", box, "cat", input=text).stdout == text
    assert engine.docker("exec", "-i", box, "wc", "-l", input=text).stdout.strip() == "20000"
    assert engine.docker("exec", "-i", box, "cat", input="").stdout == ""


@pytest.mark.core
def test_terminal_has_the_clients_size(engine: Engine, box: str) -> None:
    with Terminal(engine, "exec", "-it", box, "sh", rows=33, columns=99) as terminal:
        terminal.until(b"# ")
        terminal.enter(b"tty; echo T=$TERM\n")
        terminal.until(b"/dev/pts/")
        terminal.until(b"T=xterm")
        # The CLI sends the size after the start, perhaps a moment later.
        terminal.enter(b"until [ \"$(stty size)\" = '33 99' ]; do sleep 0.1; done; echo is-$((3+4))\n")
        terminal.until(b"is-7")
        terminal.resize(44, 111)
        terminal.enter(b"until [ \"$(stty size)\" = '44 111' ]; do sleep 0.1; done; echo is-$((4+4))\n")
        terminal.until(b"is-8")
        terminal.enter(b"exit 5\n")
        assert terminal.wait() == 5


def test_detach_keys(engine: Engine, box: str) -> None:
    identity = create(engine, box, "cat", Tty=True, AttachStdin=True, DetachKeys="ctrl-a,x")
    with hijack(engine, f"/exec/{identity}/start", {"Tty": True}) as stream:
        stream.write(b"hello\n")
        stream.until(b"hello\r\n")
        stream.write(b"\x01x")
        stream.read()


def test_response_head_and_framing(engine: Engine, box: str) -> None:
    def start(*, tty: bool, upgrade: bool, version: str) -> tuple[int, str, bytes]:
        identity = create(engine, box, "echo", "hi", Tty=tty)
        path = f"{version}/exec/{identity}/start"
        with hijack(engine, path, {"Detach": False, "Tty": tty}, upgrade=upgrade) as stream:
            return stream.status, stream.headers["Content-Type"], stream.read()

    raw, multiplexed = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
    framed = b"\x01\0\0\0\0\0\0\x03hi\n"
    assert start(tty=False, upgrade=True, version="/v1.42") == (101, multiplexed, framed)
    assert start(tty=False, upgrade=True, version="/v1.41") == (101, raw, framed)
    assert start(tty=False, upgrade=False, version="/v1.42") == (200, raw, framed)
    assert start(tty=True, upgrade=True, version="/v1.42") == (101, raw, b"hi\r\n")


def test_bytes_after_the_request_are_input(engine: Engine, box: str) -> None:
    if engine.kind == "dockerd":
        pytest.skip("dockerd loses them")
    identity = create(engine, box, "cat", AttachStdin=True)
    with hijack(engine, f"/exec/{identity}/start", {}, early=b"early ") as stream:
        stream.write(b"late")
        stream.end_input()
        assert demultiplex(stream.read()) == {1: b"early late"}
    assert inspect(engine, identity)["ExitCode"] == 0


def test_the_hosts_null_device_is_not_the_containers(engine: Engine, box: str) -> None:
    """crun changes the owner of an exec's streams to its user, who then would own the host's ``/dev/null``."""
    if engine.kind != "wharf":
        pytest.skip("containerd's own shim gives the host's: this would change it")
    script = "chmod 600 /proc/self/fd/0; echo gone >&0 && cat <&0"
    for user in ("0", "7:8"):
        done = engine.docker("exec", "-u", user, box, "sh", "-c", script)
        assert (done.stdout, done.stderr) == ("", "chmod: /proc/self/fd/0: Read-only file system\n")


def test_exit_does_not_wait_for_the_output_of_children(engine: Engine, box: str) -> None:
    identity = create(engine, box, "sh", "-c", "sleep 600 & echo started; exit 2")
    with hijack(engine, f"/exec/{identity}/start", {}) as stream:
        assert b"started\n" in stream.until(b"started\n")
        assert until(lambda: inspect(engine, identity)["ExitCode"] == 2, seconds=60)


@pytest.mark.core
def test_the_null_device_is_roots(engine: Engine) -> None:
    """Also if the user's own stdin is that device."""
    script = "stat -c '%u:%g %a' /dev/null; chmod 600 /dev/null; stat -c '%u:%g %a' /dev/null; sleep 600"
    for tty in (False, True):
        with container(engine, User="1000:1000", Cmd=["sh", "-c", script], Tty=tty) as box:
            owners = ["0:0 666", "0:0 666"]

            def seen(box: str = box) -> list[str]:
                return [line for line in engine.docker("logs", box).stdout.splitlines() if "chmod" not in line]

            assert until(lambda: len(seen()) == 2)
            assert seen() == owners
            done = engine.docker("exec", box, "sh", "-c", script.removesuffix("; sleep 600"), check=False)
            assert done.stdout.splitlines() == owners
