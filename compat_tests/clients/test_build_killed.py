"""Clients of builds that are killed at any moment: nothing of theirs stays, and the next build works."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from compat_tests.engines import Wharf
from compat_tests.registry import registry
from compat_tests.traces import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists("/usr/libexec/docker/cli-plugins/docker-buildx"), reason="needs buildx"),
]

DOCKERFILE = """FROM busybox AS a
RUN head -c 1000000 /dev/urandom > /a; sleep 0.1
FROM busybox
ARG R
COPY many /many
RUN --mount=type=cache,target=/c --mount=type=secret,id=k --mount=type=tmpfs,target=/t echo $R > /c/x; sleep 0.1
COPY --from=a /a /a2
RUN --mount=type=bind,target=/b,rw echo $R > /r; touch /b/x
"""
CLASSIC = "FROM busybox\nARG R\nCOPY many /many\nRUN echo $R > /r; sleep 0.1\n"


def ctr(engine: Wharf, *args: str) -> list[str]:
    """The lines that containerd's own client prints."""
    own = engine.place.root / "run" / "containerd" / "containerd.sock"
    address = str(own if engine.containerd is None else engine.containerd.address)
    done = subprocess.run(
        ["ctr", "--address", address, "--namespace", "moby", *args], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def left(engine: Wharf) -> set[str]:
    """What builds may leave: folders, tasks, snapshots in use, and leases that hold no record of the cache."""
    build = engine.place.root / "data" / "build"
    folders = [build / "scratch", build / "contexts", engine.place.root / "run" / "build"]
    with closing(sqlite3.connect(build / "cache.db")) as database:
        records = {str(row[0]) for row in database.execute("SELECT id FROM records")}
    leases = {line.split()[0] for line in ctr(engine, "leases", "ls")[1:]}
    snapshots = ctr(engine, "snapshots", "ls")[1:]
    return {
        *(f"{folder.name}/{name}" for folder in folders if folder.exists() for name in os.listdir(folder)),
        *(f"lease {name}" for name in leases - records if name.endswith("-build-cache")),
        *(f"task {name}" for name in ctr(engine, "tasks", "ls", "-q")),
        *(f"snapshot {line.split()[0]}" for line in snapshots if line.split()[-1] != "Committed"),
    }


def test_killed_at_any_moment(own_engine: Wharf, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for number in range(40):
        path = tmp_path / "c" / "many" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(20_000))
    (tmp_path / "c" / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "c" / "Dockerfile.classic").write_text(CLASSIC)
    (tmp_path / "k").write_text("hidden")
    root = str(tmp_path / "c")
    before = left(own_engine) if (own_engine.place.root / "data/build/cache.db").exists() else set()
    with registry() as store:
        for number in range(9):
            words = ["build", "--build-arg", f"R={number}", *(["--no-cache"] if chance.random() < 0.5 else [])]
            kind = ("classic", "image", "push", "oci", "local", "cache")[number % 6]
            if kind == "classic":
                words += ["-f", f"{root}/Dockerfile.classic"]
            else:
                words += ["--secret", f"id=k,src={tmp_path / 'k'}"]
                words += {
                    "image": ["-t", "killed:1"],
                    "push": ["-t", store.name(f"killed:{number}"), "--push"],
                    "oci": ["-o", f"type=oci,dest={tmp_path / 'o.tar'}"],
                    "local": ["-o", f"type=local,dest={tmp_path / 'o'}"],
                    "cache": ["--cache-to", f"type=registry,mode=max,ref={store.name('killed-cache')}"],
                }[kind]
            environ = own_engine.environment(DOCKER_BUILDKIT="0" if kind == "classic" else "1")
            client = subprocess.Popen(
                ["docker", *words, root],
                env=environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                client.wait(chance.random() * 1.5)
            except subprocess.TimeoutExpired:
                os.killpg(client.pid, chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            client.wait(60)
            assert own_engine.api.get("/_ping").status == 200, (seed, number)
    done = own_engine.docker("build", "-q", "-", input="FROM busybox\nRUN echo next > /next\n", timeout=110)
    assert own_engine.docker("run", "--rm", done.stdout.strip(), "cat", "/next").stdout == "next\n"
    assert until(lambda: not left(own_engine) - before, seconds=60), (seed, left(own_engine) - before)
