"""`docker checkpoint` and start from a checkpoint: a counter continues. Needs CRIU and a kernel that supports it."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support import engines
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done"


@functools.cache
def criu_works() -> bool:
    if shutil.which("criu") is None or shutil.which("runc") is None:
        return False
    return subprocess.run(["criu", "check"], capture_output=True, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="module")
def experimental(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if not criu_works():
        pytest.skip("CRIU does not work here")
    with engines.wharf("experimental", "--experimental") as engine:
        engine.load_busybox()
        yield engine


def lines(engine: Engine, name: str) -> list[int]:
    return [int(line) for line in engine.docker("logs", name).stdout.split()]


def state(engine: Engine, name: str) -> tuple[str, int]:
    found = engine.api.get(f"/containers/{name}/json").json()["State"]
    return found["Status"], found["ExitCode"]


def criu(engine: Engine, *argv: str) -> str:
    """Return the command's output. Skip if CRIU itself fails because the kernel denies access."""
    done = engine.docker(*argv, check=False)
    if done.status and "criu" in done.stderr.lower():
        pytest.skip(done.stderr)
    return done.checked().stdout


def test_restored_container_continues(experimental: Engine, tmp_path: Path) -> None:
    engine = experimental
    run = ("run", "-d", "--runtime", "runc", "--network", "none", "--init", "-v", f"{tmp_path}:/bound")
    engine.docker(*run, "--name", "counter", "busybox", "sh", "-c", COUNT)
    try:
        assert until(lambda: len(lines(engine, "counter")) > 3)
        assert criu(engine, "checkpoint", "create", "counter", "first") == "first\n"
        assert until(lambda: state(engine, "counter") == ("exited", 137))
        before = lines(engine, "counter")
        assert engine.docker("checkpoint", "ls", "counter").stdout.split()[-1] == "first"
        criu(engine, "start", "--checkpoint", "first", "counter")
        assert until(lambda: len(lines(engine, "counter")) > len(before) + 3)
        # No number is repeated or missing: the same process continues.
        after = lines(engine, "counter")
        assert after == list(range(len(after)))
        assert engine.docker("exec", "counter", "cat", "/proc/1/comm").stdout == "docker-init\n"
        # One that keeps running, in a directory that the client chooses.
        options = ("--leave-running", "--checkpoint-dir", str(tmp_path / "images"))
        criu(engine, "checkpoint", "create", *options, "counter", "second")
        assert state(engine, "counter") == ("running", 0)
        done = engine.docker("checkpoint", "ls", "--checkpoint-dir", str(tmp_path / "images"), "counter")
        assert done.stdout.split()[-1] == "second"
        engine.docker("checkpoint", "rm", "counter", "first")
        assert engine.api.get("/containers/counter/checkpoints").body.strip() == b"null"
    finally:
        engine.docker("rm", "-f", "counter")


def test_invalid_checkpoints_are_refused(experimental: Engine) -> None:
    engine = experimental
    engine.docker("create", "--name", "still", "busybox", "true")
    try:
        identity = engine.api.get("/containers/still/json").json()["Id"]
        for argv, words in (
            (("checkpoint", "create", "still", "one"), f"container {identity} is not running"),
            (("checkpoint", "rm", "still", "none"), "checkpoint none does not exist for container still"),
            (("start", "--checkpoint", "none", "still"), "checkpoint none does not exist for container /still"),
            (("checkpoint", "ls", "nosuch"), "No such container: nosuch"),
        ):
            done = engine.docker(*argv, check=False)
            assert (done.status, words in done.stderr) == (1, True), done.output
    finally:
        engine.docker("rm", "still")


def test_checkpoints_need_an_experimental_daemon(engine: Engine) -> None:
    identity = engine.docker("create", "busybox", "true").stdout.strip()
    try:
        answer = engine.api.post(f"/containers/{identity}/start", checkpoint="one")
        assert answer.error == (400, "checkpoint is only supported in experimental mode")
        answer = engine.api.post(f"/containers/{identity}/checkpoints", {"CheckpointID": "one"})
        assert answer.status in (404, 501)
    finally:
        engine.docker("rm", identity)
