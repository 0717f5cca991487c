"""A container's terminal exists as long as its process, whether or not a process has it open."""

from __future__ import annotations

import time

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.streams import Terminal, hijack

pytestmark = pytest.mark.core

CLOSE = "exec </dev/null >/dev/null 2>&1"


def wait_for_log(engine: Engine, identity: str, line: str) -> None:
    assert until(lambda: line in engine.docker("logs", identity).stdout.splitlines())


def test_the_console_works_after_its_process_closed_it(engine: Engine) -> None:
    """systemd closes the console during its boot and opens it again."""
    with container(engine, Cmd=["sh", "-c", f"echo first; {CLOSE}; echo 1 >/closed; sleep 100"], Tty=True) as box:
        assert until(lambda: engine.docker("exec", box, "test", "-e", "/closed", check=False).status == 0)
        for word in ("A", "B"):
            engine.docker("exec", box, "sh", "-c", f"echo {word} >/dev/console")
            wait_for_log(engine, box, word)
        assert engine.docker("logs", box).stdout.splitlines() == ["first", "A", "B"]


def test_input_and_size_reach_a_terminal_that_was_closed(engine: Engine) -> None:
    """A client attaches while no process has the terminal open; the process that opens it reads what was typed."""
    script = f"{CLOSE}; until [ -e /open ]; do sleep 0.1; done; exec </dev/console >/dev/console; stty size; read x; "
    script += "echo got-$x; sleep 100"
    with container(engine, Cmd=["sh", "-c", script], Tty=True, OpenStdin=True) as box:
        assert until(lambda: "/dev/null" in engine.docker("exec", box, "readlink", "/proc/1/fd/0").stdout)
        with hijack(engine, f"/containers/{box}/attach?stream=1&stdin=1&stdout=1&stderr=1") as stream:
            assert engine.api.post(f"/containers/{box}/resize?h=33&w=99").status == 200
            stream.write(b"typed\n")
            engine.docker("exec", box, "touch", "/open")
            stream.until(b"33 99\r\n")
            stream.until(b"got-typed\r\n")
            stream.write(b"\x10\x11")  # the detach keys
            stream.read()
        assert engine.docker("inspect", "-f", "{{.State.Running}}", box).stdout == "true\n"
        with hijack(engine, f"/containers/{box}/attach?stream=1&stdout=1") as stream:
            engine.docker("exec", box, "sh", "-c", "echo again >/dev/console")
            stream.until(b"again\r\n")
            engine.docker("kill", box)
            stream.read()


def test_terminal_output_is_complete_at_exit(engine: Engine) -> None:
    """The process exits with unread output; its terminal's buffer is read to the end."""
    script = f"seq 20000; {CLOSE}; echo last >/dev/console"
    with container(engine, start=False, Cmd=["sh", "-c", script], Tty=True) as box:
        assert engine.docker("start", "-a", box).stdout.splitlines()[-2:] == ["20000", "last"]
        assert engine.docker("logs", box).stdout.splitlines() == [*map(str, range(1, 20001)), "last"]


def test_an_exec_ends_with_its_process_and_not_with_its_terminals_last_user(engine: Engine) -> None:
    """Children keep the exec's terminal open, before and after the exec's process closes it."""
    with container(engine, Cmd=["sleep", "600"]) as box:
        began = time.monotonic()
        with Terminal(engine, "exec", "-it", box, "sh", "-c", "trap '' HUP; sleep 300 & seq 3000; exit 3") as terminal:
            terminal.until(b"2999\r\n3000\r\n")
            assert terminal.wait() == 3
        assert time.monotonic() - began < 60
        script = f"exec 3>&1; {CLOSE}; sleep 1; echo late >&3; exec 3>&-; sleep 1; exit 4"
        with Terminal(engine, "exec", "-it", box, "sh", "-c", script) as terminal:
            terminal.until(b"late\r\n")
            assert terminal.wait() == 4
        # An exec's own terminal, by name, after every process has closed it.
        script = f"t=$(tty); {CLOSE}; sleep 1; echo back >$t; exit 5"
        with Terminal(engine, "exec", "-it", box, "sh", "-c", script) as terminal:
            terminal.until(b"back\r\n")
            assert terminal.wait() == 5


def test_the_end_of_a_terminals_process_hangs_up_its_children(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"]) as box:
        script = "(trap 'echo hup >/hup; exit' HUP; while :; do sleep 0.1; done) & sleep 0.5; exit 0"
        engine.docker("exec", box, "true")
        with Terminal(engine, "exec", "-it", box, "sh", "-c", script) as terminal:
            assert terminal.wait() == 0
        assert until(lambda: engine.docker("exec", box, "test", "-e", "/hup", check=False).status == 0)
