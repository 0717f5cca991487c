"""Many clients, many execs and many processes at once: the engine still answers, and frees everything afterwards.

``python -m compat_tests.hostile.connections.floods`` runs them at full size (1,000 followers of a log, 500
concurrent execs) on an engine of its own; ``test_floods`` runs small versions.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from compat_tests.support import engines
from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.streams import frames, hijack

#: Seconds for an answer during a flood; generous, for a loaded machine.
ANSWER = 60.0


def answers(engine: Engine) -> None:
    """The engine answers a ping and a list."""
    assert engine.api.request("GET", "/_ping", timeout=ANSWER).status == 200
    assert engine.api.request("GET", "/containers/json", timeout=ANSWER).status == 200


def execs_at_once(engine: Engine, count: int) -> None:
    """Each of ``count`` concurrent execs has its own output and exit code."""

    def run(number: int) -> None:
        config = {"AttachStdout": True, "Cmd": ["sh", "-c", f"echo {number}; exit {number % 100}"]}
        made = engine.api.post(f"/containers/{box}/exec", config)
        assert made.status == 201, made.body
        identity = made.json()["Id"]
        with hijack(engine, f"/exec/{identity}/start", {"Tty": False}) as stream:
            stream.sock.settimeout(10 * ANSWER)
            assert frames(stream.read()) == [(1, b"%d\n" % number)]
        assert until(lambda: not engine.api.get(f"/exec/{identity}/json").json()["Running"])
        assert engine.api.get(f"/exec/{identity}/json").json()["ExitCode"] == number % 100

    with container(engine, Cmd=["sleep", "100000"]) as box, ThreadPoolExecutor(count) as pool:
        for result in [pool.submit(run, number) for number in range(count)]:
            result.result()
        answers(engine)


def followers(engine: Engine, count: int) -> None:
    """``count`` clients follow one log; each gets each line, and all end with the container."""
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(container(engine, Cmd=["sh", "-c", "read x; seq 100"], OpenStdin=True))
        path = f"/containers/{box}/logs?follow=1&stdout=1"
        clients = []
        for _ in range(count):
            sock = stack.enter_context(engine.api.raw(timeout=10 * ANSWER))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
            clients.append(sock)
        answers(engine)
        with hijack(engine, f"/containers/{box}/attach?stream=1&stdin=1") as stream:
            stream.write(b"go\n")
            for sock in clients:
                data = b""
                while part := sock.recv(1 << 16):
                    data += part
                assert data.startswith(b"HTTP/1.1 200")
                assert data.count(b"100\n") == 1
        answers(engine)


def client_that_does_not_read(engine: Engine, megabytes: int) -> None:
    """The container of a client that does not read continues and exits, and its log is complete."""
    script = f"read x; dd if=/dev/zero bs=1M count={megabytes} 2>/dev/null | tr '\\0' a | fold -w 99; echo; echo end"
    with (
        container(engine, Cmd=["sh", "-c", script], OpenStdin=True) as box,
        hijack(engine, f"/containers/{box}/attach?stream=1&stdin=1&stdout=1") as stream,
    ):
        stream.write(b"go\n")
        assert until(lambda: not engine.api.get(f"/containers/{box}/json").json()["State"]["Running"], seconds=ANSWER)
        assert engine.docker("logs", "--tail", "1", box).stdout == "end\n"
        answers(engine)


def fork_bomb(engine: Engine, limit: int) -> None:
    """A fork bomb reaches its process limit; the engine answers, and the container can be killed."""
    bomb = "b() { b | b & }; b; while :; do sleep 1; done"
    with container(engine, Cmd=["sh", "-c", bomb], HostConfig={"PidsLimit": limit, "NanoCpus": 500_000_000}) as box:
        assert until(lambda: "fork" in engine.docker("logs", box).stderr, seconds=ANSWER)
        answers(engine)
        assert engine.api.request("POST", f"/containers/{box}/kill", timeout=ANSWER).status == 204
        assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", box).stdout == "137\n"


def release_agent(engine: Engine) -> None:
    """A container can't make the kernel run a program outside of it (CVE-2022-0492)."""
    script = (
        "for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent; do "
        "[ -e $f ] && echo /x >$f && echo written; done; "
        "mkdir /m; mount -t cgroup -o rdma cgroup /m && echo mounted; "
        "unshare -Urm true && mount -t cgroup -o memory cgroup /m && echo mounted; true"
    )
    done = engine.docker("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert "written" not in done.stdout
    assert "mounted" not in done.stdout


def main(argv: Sequence[str]) -> int:
    with engines.running(argv[0] if argv else "wharf", "floods") as engine:
        engine.load_busybox()
        release_agent(engine)
        fork_bomb(engine, 500)
        client_that_does_not_read(engine, 40)
        followers(engine, 1000)
        execs_at_once(engine, 500)
        print("execs, followers, a client that does not read, a fork bomb, release_agent: as they should be")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
