"""`docker exec` and /exec: streams, codes, users, environment, refusals, events."""

from __future__ import annotations

import concurrent.futures
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.streams import Terminal, container, hijack, joined, let_go
from compat_tests.support.traces import until

pytestmark = pytest.mark.root


@pytest.fixture
def box(engine: Engine) -> Iterator[str]:
    """A running container with a name of its own environment, working directory and user."""
    with container(
        engine, Cmd=["sleep", "600"], Env=["OWN=1", "BOTH=container"], WorkingDir="/tmp", Hostname="boxhost"
    ) as identity:
        yield identity


def create(engine: Engine, box: str, *cmd: str, **config: Any) -> str:
    wanted = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(cmd), **config}
    answer = engine.api.post(f"/containers/{box}/exec", wanted)
    assert answer.status == 201, answer.body
    return str(answer.json()["Id"])


def inspect(engine: Engine, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.api.get(f"/exec/{identity}/json").json()
    return found


@pytest.mark.core
def test_streams_and_exit_code(engine: Engine, box: str) -> None:
    for code in (0, 7):
        done = engine.docker("exec", box, "sh", "-c", f"echo out; echo err >&2; exit {code}", check=False)
        assert (done.status, done.stdout, done.stderr) == (code, "out\n", "err\n")


@pytest.mark.core
def test_input_and_its_end(engine: Engine, box: str) -> None:
    text = "".join(f"line {number}\n" for number in range(20000))
    assert engine.docker("exec", "-i", box, "cat", input=text).stdout == text
    assert engine.docker("exec", "-i", box, "wc", "-l", input=text).stdout.strip() == "20000"
    assert engine.docker("exec", "-i", box, "cat", input="").stdout == ""


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


def test_without_a_user_it_is_the_containers(engine: Engine, box: str) -> None:
    """Who names a user has the files looked at anew."""
    engine.docker(
        "exec", box, "sh", "-c", "echo root:x:0:0::/:/bin/sh >>/etc/passwd; echo extra:x:1234:root >>/etc/group"
    )
    assert "1234" not in engine.docker("exec", box, "id", "-G").stdout.split()
    assert "1234" in engine.docker("exec", "-u", "root", box, "id", "-G").stdout.split()


def test_out_of_memory_score(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"], HostConfig={"OomScoreAdj": 99}) as box:
        for _ in range(2):
            assert engine.docker("exec", box, "cat", "/proc/self/oom_score_adj").stdout == "99\n"


def test_privileged(engine: Engine, box: str) -> None:
    def effective(*flags: str) -> int:
        done = engine.docker("exec", *flags, box, "grep", "CapEff", "/proc/self/status")
        return int(done.stdout.split()[1], 16)

    plain, full = effective(), effective("--privileged")
    assert plain == 0xA80425FB
    assert full & plain == plain
    assert full.bit_count() > plain.bit_count()


@pytest.mark.core
def test_a_terminal(engine: Engine, box: str) -> None:
    with Terminal(engine, "exec", "-it", box, "sh", rows=33, columns=99) as terminal:
        terminal.until(b"# ")
        terminal.enter(b"tty; echo T=$TERM\n")
        terminal.until(b"/dev/pts/")
        terminal.until(b"T=xterm")
        # The CLI tells the size right after the start: it may come a moment later.
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


def test_the_head_and_the_form_of_output(engine: Engine, box: str) -> None:
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


def test_bytes_behind_the_request_are_input(engine: Engine, box: str) -> None:
    if engine.kind == "dockerd":
        pytest.skip("dockerd loses them")
    identity = create(engine, box, "cat", AttachStdin=True)
    with hijack(engine, f"/exec/{identity}/start", {}, early=b"early ") as stream:
        stream.write(b"late")
        stream.end_input()
        assert joined(stream.read()) == {1: b"early late"}
    assert inspect(engine, identity)["ExitCode"] == 0


@pytest.mark.core
def test_the_exit_code_is_there_when_the_stream_ends(engine: Engine, box: str) -> None:
    for code in range(12):
        identity = create(engine, box, "sh", "-c", f"echo x; exit {code}")
        with hijack(engine, f"/exec/{identity}/start", {}) as stream:
            assert joined(stream.read()) == {1: b"x\n"}
        now = inspect(engine, identity)
        assert (now["Running"], now["ExitCode"]) == (False, code)


def test_detached(engine: Engine, box: str) -> None:
    identity = create(engine, box, "sh", "-c", "echo done > /tmp/mark; exit 4")
    answer = engine.api.post(f"/exec/{identity}/start", {"Detach": True})
    assert (answer.status, answer.body) == (200, b"")
    assert until(lambda: inspect(engine, identity)["Running"] is False, seconds=60)
    assert inspect(engine, identity)["ExitCode"] == 4
    assert engine.docker("exec", box, "cat", "/tmp/mark").stdout == "done\n"


def test_the_hosts_null_device_is_not_the_containers(engine: Engine, box: str) -> None:
    """crun gives an exec's streams to its user, who could then take ``/dev/null`` from the host."""
    if engine.kind != "wharf":
        pytest.skip("containerd's own shim gives the host's: this would change it")
    script = "chmod 600 /proc/self/fd/0; echo gone >&0 && cat <&0"
    for user in ("0", "7:8"):
        done = engine.docker("exec", "-u", user, box, "sh", "-c", script)
        assert (done.stdout, done.stderr) == ("", "chmod: /proc/self/fd/0: Read-only file system\n")


def test_what_inspect_shows(engine: Engine, box: str) -> None:
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
    shown = engine.api.get(f"/containers/{box}/json").json()["ExecIDs"]
    assert other in shown


@pytest.mark.core
@pytest.mark.parametrize(
    ("cmd", "config", "words"),
    [
        (["nosuchprogram"], {}, '"nosuchprogram": executable file not found in $PATH'),
        (["/etc/passwd"], {}, "permission denied"),
        (["true"], {"WorkingDir": "/no/such"}, "no such file or directory"),
    ],
)
def test_a_process_that_cannot_start(
    engine: Engine, box: str, cmd: list[str], config: dict[str, Any], words: str
) -> None:
    identity = create(engine, box, *cmd, **config)
    answer = engine.api.post(f"/exec/{identity}/start", {"Detach": True})
    assert answer.status in (400, 500)
    assert words in answer.message
    assert inspect(engine, identity)["ExitCode"] in (126, 127)
    identity = create(engine, box, *cmd, **config)
    with hijack(engine, f"/exec/{identity}/start", {}) as stream:
        assert stream.status == 101
        ((kind, text),) = joined(stream.read()).items()
    assert kind == 1
    assert words in text.decode()
    assert text.endswith(b"\r\n")
    assert inspect(engine, identity)["ExitCode"] in (126, 127)


def test_refusals(engine: Engine, box: str) -> None:
    def said(answer: Any) -> tuple[int, str]:
        return answer.status, answer.message

    post, get = engine.api.post, engine.api.get
    assert said(post(f"/containers/{box}/exec", {})) == (400, "No exec command specified")
    assert said(post("/containers/nosuch/exec", {"Cmd": ["true"]})) == (404, "No such container: nosuch")
    bad = post(f"/containers/{box}/exec", {"Cmd": ["true"], "DetachKeys": "ctrl-"})
    assert said(bad) == (500, "Invalid escape keys (ctrl-) provided")
    missing = "No such exec instance: nosuch"
    assert said(get("/exec/nosuch/json")) == (404, missing)
    assert said(post("/exec/nosuch/start", {})) == (404, missing)
    assert said(post("/exec/nosuch/resize", h=1, w=1)) == (404, missing)
    identity = create(engine, box, "true")
    for size, words in (
        ({"h": 1}, 'width "": invalid syntax'),
        ({"h": "", "w": 1}, 'height "": invalid syntax'),
        ({"h": "x", "w": 1}, 'height "x": invalid syntax'),
        ({"h": 1, "w": -1}, 'width "-1": value out of range'),
        ({"h": 1 << 32, "w": 1}, 'height "4294967296": value out of range'),
    ):
        for path in (f"/exec/{identity}/resize", f"/containers/{box}/resize"):
            assert said(post(path, **size)) == (400, f"invalid resize {words}")
    assert post(f"/exec/{identity}/start", {"Detach": True}).status == 200
    assert until(lambda: inspect(engine, identity)["Running"] is False, seconds=60)
    again = f"Error: Exec command {identity} has already run"
    assert said(post(f"/exec/{identity}/start", {"Detach": True})) == (409, again)
    with hijack(engine, f"/exec/{identity}/start", {}) as stream:
        assert joined(stream.read()) == {1: f"{again}\r\n".encode()}
    assert post(f"/exec/{identity}/resize", h=1, w=1).status == 404


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("0:nosuch", "unable to find group nosuch: no matching entries in group file"),
        ("nosuch:0", "unable to find user nosuch: no matching entries in passwd file"),
    ],
)
def test_a_user_nobody_knows_is_refused_at_once(engine: Engine, box: str, user: str, words: str) -> None:
    answer = engine.api.post(f"/containers/{box}/exec", {"Cmd": ["true"], "User": user})
    assert (answer.status, answer.message) == (400, words)
    assert words in engine.docker("exec", "-u", user, box, "true", check=False).stderr


def test_an_exec_of_a_container_that_ended(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"]) as box:
        identity = create(engine, box, "sleep", "600", Tty=True)
        assert engine.api.post(f"/exec/{identity}/start", {"Detach": True}).status == 200
        assert engine.api.post(f"/containers/{box}/kill").status == 204
        assert engine.api.post(f"/containers/{box}/wait").status == 200
        for path, body in (("resize?h=5&w=5", None), ("start", {})):
            answer = engine.api.post(f"/exec/{identity}/{path}", body)
            assert (answer.status, answer.message) == (409, f"container {box} is not running")


def test_states_that_do_not_fit(engine: Engine, box: str) -> None:
    wanted = {"Cmd": ["true"]}
    with container(engine, start=False, Cmd=["true"]) as created:
        answer = engine.api.post(f"/containers/{created}/exec", wanted)
        assert (answer.status, answer.message) == (409, f"container {created} is not running")
    waiting = create(engine, box, "true")
    assert engine.api.post(f"/containers/{box}/pause").status == 204
    for path, body in ((f"/containers/{box}/exec", wanted), (f"/exec/{waiting}/start", {"Detach": True})):
        answer = engine.api.post(path, body)
        assert answer.status == 409
        assert answer.message == f"Container {box} is paused, unpause the container before exec"
    assert engine.api.post(f"/containers/{box}/unpause").status == 204
    # What was not started while the container ran is not there in its next run.
    for verb in ("stop?t=0", "start"):
        assert engine.api.post(f"/containers/{box}/{verb}").status == 204
        assert engine.api.post(f"/exec/{waiting}/start", {"Detach": True}).status == 404


@pytest.mark.core
def test_a_start_that_meets_a_pause_or_the_end(engine: Engine, box: str) -> None:
    """Whenever it comes, it runs or is told what it would have been told a moment later."""
    answers: set[tuple[int, str]] = set()
    over = threading.Event()

    def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = engine.api.post(path, body)
        if answer.status >= 300:
            answers.add((answer.status, re.sub("instance: [0-9a-f]{64}", "instance", answer.message)))
        found: dict[str, Any] = answer.json() if answer.body else {}
        return found

    def work() -> None:
        while not over.is_set():
            if name := ask(f"/containers/{box}/exec", {"Cmd": ["true"]}).get("Id"):
                ask(f"/exec/{name}/start", {"Detach": True})

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for verbs in (("pause", "unpause"), ("kill", "start")):
            for _ in range(6):
                # Some are run in between.
                engine.docker("exec", box, "true")
                for verb in verbs:
                    assert engine.api.post(f"/containers/{box}/{verb}").status == 204
    finally:
        over.set()
        for worker in workers:
            worker.join(60)
    assert answers <= {
        (404, "No such exec instance"),
        (409, f"Container {box} is paused, unpause the container before exec"),
        (409, f"container {box} is not running"),
    }


def test_events(engine: Engine, box: str) -> None:
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
def test_many_at_once(engine: Engine, box: str) -> None:
    def one(number: int) -> str:
        return engine.docker("exec", box, "sh", "-c", f"echo {number}; exit 0").stdout

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(one, range(18))) == [f"{number}\n" for number in range(18)]


def test_docker_py(engine: Engine, box: str) -> None:
    held: Any = engine.client.containers.get(box)
    code, output = held.exec_run(["sh", "-c", "echo out; echo err >&2; exit 6"], demux=True)
    assert (code, output) == (6, (b"out\n", b"err\n"))
    result = held.exec_run("cat", stdin=True, socket=True)
    let_go(result.output)
    stream = held.exec_run(["sh", "-c", "echo a; echo b"], stream=True).output
    assert b"".join(stream) == b"a\nb\n"


def test_output_of_a_process_left_behind_does_not_hold_the_exit(engine: Engine, box: str) -> None:
    identity = create(engine, box, "sh", "-c", "sleep 600 & echo started; exit 2")
    with hijack(engine, f"/exec/{identity}/start", {}) as stream:
        assert b"started\n" in stream.until(b"started\n")
        assert until(lambda: inspect(engine, identity)["ExitCode"] == 2, seconds=60)


def test_the_end_of_the_container_ends_its_execs(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"]) as box:
        identity = create(engine, box, "sleep", "600")
        with hijack(engine, f"/exec/{identity}/start", {}) as stream:
            assert until(lambda: inspect(engine, identity)["Pid"] > 0, seconds=60)
            assert engine.api.post(f"/containers/{box}/kill").status == 204
            assert joined(stream.read()) == {}
        assert until(lambda: inspect(engine, identity)["ExitCode"] == 137, seconds=60)


@pytest.mark.core
def test_the_null_device_is_roots(engine: Engine) -> None:
    """Also where the user's own stdin is that device."""
    script = "stat -c '%u:%g %a' /dev/null; chmod 600 /dev/null; stat -c '%u:%g %a' /dev/null; sleep 600"
    for tty in (False, True):
        with container(engine, User="1000:1000", Cmd=["sh", "-c", script], Tty=tty) as box:
            wanted = ["0:0 666", "0:0 666"]

            def seen(box: str = box) -> list[str]:
                return [line for line in engine.docker("logs", box).stdout.splitlines() if "chmod" not in line]

            assert until(lambda: len(seen()) == 2)
            assert seen() == wanted
            done = engine.docker("exec", box, "sh", "-c", script.removesuffix("; sleep 600"), check=False)
            assert done.stdout.splitlines() == wanted
