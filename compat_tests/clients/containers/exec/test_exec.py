"""`docker exec`: the process's environment, user, privileges, exit code; inspect and events."""

from __future__ import annotations

import concurrent.futures
import json
import time
from typing import Any

import pytest

from compat_tests.clients.containers.exec.execs import create, inspect
from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.streams import close_stream, demultiplex, hijack


@pytest.mark.core
def test_streams_and_exit_code(engine: Engine, box: str) -> None:
    for code in (0, 7):
        done = engine.docker("exec", box, "sh", "-c", f"echo out; echo err >&2; exit {code}", check=False)
        assert (done.status, done.stdout, done.stderr) == (code, "out\n", "err\n")


def test_environment_directory_user(engine: Engine, box: str) -> None:
    done = engine.docker("exec", "-e", "BOTH=exec", "-e", "NEW=2", box, "env")
    environment = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert environment["OWN"] == "1"
    assert environment["BOTH"] == "exec"
    assert environment["NEW"] == "2"
    assert environment["HOSTNAME"] == "boxhost"
    assert "TERM" not in environment
    assert engine.docker("exec", box, "pwd").stdout == "/tmp\n"
    assert engine.docker("exec", "-w", "/etc", box, "pwd").stdout == "/etc\n"
    assert engine.docker("exec", "-u", "1234:56", box, "id", "-u").stdout == "1234\n"
    assert engine.docker("exec", "-u", "1234:56", box, "id", "-g").stdout == "56\n"


def test_default_user_is_the_containers(engine: Engine, box: str) -> None:
    """A user name is looked up in the container's files for each exec."""
    engine.docker(
        "exec", box, "sh", "-c", "echo root:x:0:0::/:/bin/sh >>/etc/passwd; echo extra:x:1234:root >>/etc/group"
    )
    assert "1234" not in engine.docker("exec", box, "id", "-G").stdout.split()
    assert "1234" in engine.docker("exec", "-u", "root", box, "id", "-G").stdout.split()


def test_out_of_memory_score(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"], HostConfig={"OomScoreAdj": 99}) as box:
        for _ in range(2):
            assert engine.docker("exec", box, "cat", "/proc/self/oom_score_adj").stdout == "99\n"


def test_capabilities_of_a_privileged_exec(engine: Engine, box: str) -> None:
    def effective(*flags: str) -> int:
        done = engine.docker("exec", *flags, box, "grep", "CapEff", "/proc/self/status")
        return int(done.stdout.split()[1], 16)

    plain, full = effective(), effective("--privileged")
    assert plain == 0xA80425FB
    assert full & plain == plain
    assert full.bit_count() > plain.bit_count()


@pytest.mark.core
def test_exit_code_is_known_when_the_stream_ends(engine: Engine, box: str) -> None:
    for code in range(12):
        identity = create(engine, box, "sh", "-c", f"echo x; exit {code}")
        with hijack(engine, f"/exec/{identity}/start", {}) as stream:
            assert demultiplex(stream.read()) == {1: b"x\n"}
        now = inspect(engine, identity)
        assert (now["Running"], now["ExitCode"]) == (False, code)


def test_detached_exec(engine: Engine, box: str) -> None:
    identity = create(engine, box, "sh", "-c", "echo done > /tmp/mark; exit 4")
    answer = engine.api.post(f"/exec/{identity}/start", {"Detach": True})
    assert (answer.status, answer.body) == (200, b"")
    assert until(lambda: inspect(engine, identity)["Running"] is False, seconds=60)
    assert inspect(engine, identity)["ExitCode"] == 4
    assert engine.docker("exec", box, "cat", "/tmp/mark").stdout == "done\n"


def test_inspect_of_an_exec(engine: Engine, box: str) -> None:
    identity = create(engine, box, "sleep", "600", User="daemon", Privileged=True, DetachKeys="ctrl-a")
    before = inspect(engine, identity)
    assert before == {
        "ID": identity,
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {
            "tty": False,
            "entrypoint": "sleep",
            "arguments": ["600"],
            "privileged": True,
            "user": "daemon",
        },
        "OpenStdin": False,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": box,
        "DetachKeys": "AQ==",
        "Pid": 0,
    }
    other = create(engine, box, "sleep", "600")
    assert engine.api.post(f"/exec/{other}/start", {"Detach": True}).status == 200
    assert until(lambda: inspect(engine, other)["Pid"] > 0, seconds=60)
    now = inspect(engine, other)
    assert (now["Running"], now["ExitCode"]) == (True, None)
    inspected = engine.api.get(f"/containers/{box}/json").json()["ExecIDs"]
    assert other in inspected


def test_events_of_an_exec(engine: Engine, box: str) -> None:
    began = int(time.time()) - 1
    identity = create(engine, box, "sh", "-c", "exit 3")
    with hijack(engine, f"/exec/{identity}/start", {}) as stream:
        stream.read()
    filters = json.dumps({"container": [box], "event": ["exec_create", "exec_start", "exec_die"]})

    def events() -> list[Any]:
        return engine.api.get("/events", since=began, until=int(time.time()) + 1, filters=filters).lines()

    assert until(lambda: len(events()) == 3, seconds=60)
    found = events()
    assert [event["Action"] for event in found] == [
        "exec_create: sh -c exit 3",
        "exec_start: sh -c exit 3",
        "exec_die",
    ]
    assert all(event["Actor"]["Attributes"]["execID"] == identity for event in found)
    assert found[-1]["Actor"]["Attributes"]["exitCode"] == "3"


@pytest.mark.core
def test_concurrent_execs(engine: Engine, box: str) -> None:
    def one(number: int) -> str:
        return engine.docker("exec", box, "sh", "-c", f"echo {number}; exit 0").stdout

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(one, range(18))) == [f"{number}\n" for number in range(18)]


def test_exec_by_docker_py(engine: Engine, box: str) -> None:
    py_container: Any = engine.client.containers.get(box)
    code, output = py_container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 6"], demux=True)
    assert (code, output) == (6, (b"out\n", b"err\n"))
    result = py_container.exec_run("cat", stdin=True, socket=True)
    close_stream(result.output)
    stream = py_container.exec_run(["sh", "-c", "echo a; echo b"], stream=True).output
    assert b"".join(stream) == b"a\nb\n"


def test_the_end_of_the_container_ends_its_execs(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"]) as box:
        identity = create(engine, box, "sleep", "600")
        with hijack(engine, f"/exec/{identity}/start", {}) as stream:
            assert until(lambda: inspect(engine, identity)["Pid"] > 0, seconds=60)
            assert engine.api.post(f"/containers/{box}/kill").status == 204
            assert demultiplex(stream.read()) == {}
        assert until(lambda: inspect(engine, identity)["ExitCode"] == 137, seconds=60)
