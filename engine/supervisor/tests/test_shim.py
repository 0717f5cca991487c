"""A real shim with a real runtime."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime.probe import probe
from engine.shim.tests.harness import Refused, Shims, gone, shims, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Shims]:
    with shims(tmp_path, probe().require().dialect) as made:
        yield made


def test_create_start_and_exit(world: Shims) -> None:
    one = world.container("sh", "-c", "echo out; echo err >&2; exit 7")
    pid = one.create()
    before = time.time_ns()
    client = one.attach(framed=True)
    assert one.ask("start")["pid"] == pid
    event = one.event("exit")
    assert (event["pid"], event["status"]) == (pid, 7)
    assert before <= int(str(event["at_ns"])) <= time.time_ns()
    data = client.read_all()
    assert b"\1\0\0\0\0\0\0\4out\n" in data
    assert b"\2\0\0\0\0\0\0\4err\n" in data
    assert client.ended() == "eof"
    client.close()
    assert one.ask("delete")["status"] == 7
    until(lambda: gone(one.shim_pid), "the shim leaves with its container")
    assert not (one.bundle / "shim.sock").exists()


def test_a_new_supervisor_gets_missed_events(world: Shims) -> None:
    one = world.container("sh", "-c", "exit 5")
    pid = one.create()
    one.ask("start")
    one.exit()
    one.reconnect()
    init = one.ask("state")["init"]
    assert isinstance(init, dict)
    assert (init["pid"], init["status"], init["exit_status"]) == (pid, "stopped", 5)
    one.delete()


def test_a_shim_without_a_container_exits_with_its_supervisor(world: Shims) -> None:
    one = world.container("true")
    one._control.close()
    until(lambda: gone(one.shim_pid), "the shim has left")


def test_nothing_outlives_the_first_process(world: Shims) -> None:
    """A container's remaining processes end with the first one, and the shim with all of them."""
    one = world.container("sh", "-c", "(sleep 1000 &); exec sleep 1000")
    one.create()
    one.ask("start")
    # The intermediate shells have exited, and both run their commands.
    until(lambda: sorted(map(command, pids(one.ask("pids")))) == ["sleep", "sleep"], "both sleep")
    everyone = pids(one.ask("pids"))
    one.ask("kill", signal=9)
    assert one.exit() == 137
    until(lambda: all(map(gone, everyone)), "nothing is left of it")
    one.delete()


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def pids(answer: dict[str, object]) -> list[int]:
    found = answer["pids"]
    assert isinstance(found, list)
    return [int(pid) for pid, _exec in found]


def test_output_precedes_the_exit_event_with_an_open_pipe(world: Shims) -> None:
    """A child of an exec that outlives it keeps the pipe open; the exit is reported anyway, a moment later."""
    one = world.container("sleep", "1000")
    one.create()
    one.ask("start")
    process = {
        "args": ["sh", "-c", "sleep 1000 & echo done"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    }
    one.ask("exec", exec_id="e1", spec=process, stdio={"terminal": False, "options": {"driver": "none"}})
    client = one.attach(exec_id="e1")
    one.ask("start", exec_id="e1")
    assert one.event("exit", "e1")["status"] == 0
    assert client.read_all() == b"done\n"
    client.close()
    one.ask("delete", exec_id="e1")
    with pytest.raises(Refused) as caught:
        one.ask("delete", exec_id="e1")
    assert caught.value.kind == "not found"


def test_many_execs_at_once(world: Shims) -> None:
    one = world.container("sleep", "1000")
    one.create()
    one.ask("start")
    for number in range(10):
        process = {
            "args": ["sh", "-c", f"exit {number}"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        }
        stdio = {"terminal": False, "options": {"driver": "none"}}
        one.ask("exec", exec_id=f"e{number}", spec=process, stdio=stdio)
        one.ask("start", exec_id=f"e{number}")
    for number in range(10):
        assert one.event("exit", f"e{number}")["status"] == number


def test_a_delete_waits_for_an_exec_that_is_in_the_runtime(world: Shims) -> None:
    """The runtime writes into the bundle, which is removed after the delete."""
    entered, go = world.directory / "entered", world.directory / "go"
    os.mkfifo(go)
    slow = world.directory / "slow"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *" exec "*) : > {entered}; read go < {go};; esac\n')
    with slow.open("a") as file:
        file.write(f'exec {world.runtime.path} "$@"\n')
    slow.chmod(0o755)
    world.runtime = world.runtime._replace(path=str(slow))
    one = world.container("sleep", "1000")
    one.create()
    one.ask("start")
    process = {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    one.ask("exec", exec_id="e", spec=process, stdio={"terminal": False, "options": {"driver": "none"}})
    one.send("start", exec_id="e")
    until(entered.exists, "the runtime executes")
    one.ask("kill", signal=9)
    assert one.exit() == 137
    until(lambda: not Path(world.runtime.root, one.id).exists(), "the runtime has forgotten it")
    one.send("delete")
    go.write_text("\n")
    assert "error" in one.answer()
    assert "ok" in one.answer()
    until(lambda: gone(one.shim_pid), "the shim leaves")


def test_a_delete_ends_a_create_that_hangs(world: Shims) -> None:
    pids = world.directory / "pids"
    slow = world.directory / "slow"
    program = f'case "$*" in *" create "*) sleep 1000 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait;; esac'
    slow.write_text(f'#!/bin/sh\n{program}\nexec {world.runtime.path} "$@"\n')
    slow.chmod(0o755)
    world.runtime = world.runtime._replace(path=str(slow))
    one = world.container("sleep", "1000")
    one.send("create", container=one.id, runtime=world.runtime.to_json(), stdio=one.stdio())
    until(pids.exists, "the runtime executes")
    one.send("delete")
    assert "error" in one.answer()
    assert "ok" in one.answer()
    until(lambda: all(gone(int(pid)) for pid in pids.read_text().split()), "the runtime and its child are gone")
    until(lambda: gone(one.shim_pid), "the shim leaves")


def test_oom_kills_are_reported(world: Shims) -> None:
    one = world.container("tail", "/dev/zero", memory=16 << 20)
    one.create()
    one.ask("start")
    assert one.exit() == 137
    assert one.event("oom") == {"event": "oom"}
    one.delete()


def test_the_log_has_dockers_format(world: Shims) -> None:
    one = world.container("sh", "-c", "seq 1 400; echo oops >&2; printf unfinished")
    path = one.bundle / "c.log"
    one.create(stdio=one.stdio(driver="json-file", path=path, max_size=4096, max_file=3))
    one.ask("start")
    one.exit()
    one.delete()
    files = sorted(one.bundle.glob("c.log*"), key=lambda file: file.name, reverse=True)
    assert [file.name for file in files] == ["c.log.2", "c.log.1", "c.log"]
    text = "".join(file.read_text() for file in files)
    numbers = [int(found) for found in re.findall(r'"log":"(\d+)\\n","stream":"stdout"', text)]
    assert numbers == list(range(numbers[0], 401))
    assert '{"log":"oops\\n","stream":"stderr","time":"' in text
    assert '{"log":"unfinished","stream":"stdout","time":"' in text


def test_a_shim_survives_invalid_frames(world: Shims) -> None:
    one = world.container("sleep", "1000")
    one.create()
    one.ask("start")
    for operation, arguments in (
        ("nothing", {}),
        ("kill", {"signal": "no number"}),
        ("kill", {"signal": 9, "exec_id": "unknown"}),
        ("exec", {}),
        ("create", {"container": "again"}),
        ("start", {}),
    ):
        with pytest.raises(Refused):
            one.ask(operation, **arguments)
    one.reconnect()
    one._control.sendall(b"\xff" * 64)
    one.reconnect()
    assert one.ask("pids")["pids"] == [[one.init_pid, ""]]


def test_a_failed_create_leaves_nothing(world: Shims) -> None:
    """The kernel refuses a limit after the runtime has created cgroups."""
    one = world.container("true")
    config = one.bundle / "config.json"
    spec = json.loads(config.read_text())
    spec["linux"]["resources"] = {"cpu": {"cpus": "4000"}}
    config.write_text(json.dumps(spec))
    with pytest.raises(Refused, match="cpuset"):
        one.create()
    one.delete()
    until(lambda: gone(one.shim_pid), "the shim leaves")
    # Other tests' cgroups come and go meanwhile.
    assert not [place for place, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(place) == one.id]
