"""Clients of builds that are killed at any moment or disconnect during a call, and daemons that are killed: nothing of
a build stays, and the next one works."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from compat_tests.clients.builder import sessions
from compat_tests.clients.builder.buildx import needs_buildx
from compat_tests.clients.builder.sessions import Client
from compat_tests.support.containerd import first_column
from compat_tests.support.engines import Wharf
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import registry

pytestmark = needs_buildx

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


def leftovers(engine: Wharf) -> set[str]:
    """Return the leftovers of builds: directories, tasks, active snapshots, and leases without a cache record."""
    # Each owner has a directory of its own.
    caches = list(engine.resources.root.glob("data/build/**/cache.db"))
    folders = [cache.parent / name for cache in caches for name in ("scratch", "contexts")]
    folders.append(engine.resources.root / "run" / "build")
    records: set[str] = set()
    for cache in caches:
        # Read a copy: the daemon locks the database.
        with tempfile.TemporaryDirectory() as folder:
            for path in cache.parent.glob("cache.db*"):
                shutil.copy(path, folder)
            with closing(sqlite3.connect(f"{folder}/cache.db")) as database:
                records |= {str(row[0]) for row in database.execute("SELECT id FROM records")}
    leases = set(first_column(engine.ctr("leases", "ls").stdout))
    snapshots = engine.ctr("snapshots", "ls").stdout.splitlines()[1:]
    return {
        *(f"{folder.name}/{name}" for folder in folders if folder.exists() for name in os.listdir(folder)),
        *(f"lease {name}" for name in leases - records if name.endswith("-build-cache")),
        *(f"task {name}" for name in engine.ctr("tasks", "ls", "-q").stdout.splitlines()),
        *(f"snapshot {line.split()[0]}" for line in snapshots if line.split()[-1] != "Committed"),
    }


def test_clients_killed_at_any_moment(own_engine: Wharf, tmp_path: Path) -> None:
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
    before = known_leftovers(own_engine)
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
    assert until(lambda: not leftovers(own_engine) - before, seconds=60), (seed, leftovers(own_engine) - before)


def check_next_build(engine: Wharf, before: set[str]) -> None:
    """Check that the next build works, and that there is nothing more than before."""
    done = engine.docker("build", "-q", "-", input="FROM busybox\nRUN echo next > /next\n", timeout=110)
    assert engine.docker("run", "--rm", "--network", "none", done.stdout.strip(), "cat", "/next").stdout == "next\n"
    assert until(lambda: not leftovers(engine) - before, seconds=60), leftovers(engine) - before


def known_leftovers(engine: Wharf) -> set[str]:
    return leftovers(engine) if any(engine.resources.root.glob("data/build/**/cache.db")) else set()


CONTEXT = f"{sessions.PULL_FILES}#context"
FILES = b"FROM busybox\nCOPY large /large\n"
SECRET = b"FROM busybox\nRUN --mount=type=secret,id=k cat /run/secrets/k > /k\n"
AGENT = b"FROM busybox\nRUN --mount=type=ssh sleep 600\n"

# The call during which a client disconnects, its Dockerfile, its build options, its exporter.
LEAVING = [
    (f"{sessions.PULL_FILES}#dockerfile", FILES, {}, ""),
    (CONTEXT, FILES, {}, ""),
    (f"{CONTEXT}/large", FILES, {}, ""),
    (sessions.UPLOAD, FILES, {"context": "http://buildkit-session/x"}, ""),
    (sessions.CREDENTIALS, b"FROM PRIVATE\n", {}, ""),
    (sessions.GET_SECRET, SECRET, {}, ""),
    (sessions.CHECK_AGENT, AGENT, {}, ""),
    (sessions.SEND_FILES, FILES, {}, "tar"),
    (sessions.SEND_FILES, FILES, {}, "oci"),
    (sessions.SEND_FILES, FILES, {}, "local"),
]


def test_clients_that_disconnect_during_a_call(own_engine: Wharf) -> None:
    before = known_leftovers(own_engine)
    large = os.urandom(3_000_000)
    with registry(auth="basic") as private:
        for leaves, dockerfile, attrs, exporter in LEAVING:
            text = dockerfile.replace(b"PRIVATE", private.name("team/some:1").encode())
            client = Client(own_engine, {"dockerfile": {"Dockerfile": text}, "context": {"large": large}}, leaves)
            with pytest.raises(grpc.RpcError) as failed:
                client.build({"filename": "Dockerfile", **attrs}, exporter)
            assert leaves in client.calls, (leaves, client.calls, failed.value)
    check_next_build(own_engine, before)


def test_a_daemon_killed_in_the_middle(own_engine: Wharf, tmp_path: Path) -> None:
    """One build of each front end, each in its second step."""
    before = known_leftovers(own_engine)
    marker = f"95{os.getpid()}"
    (tmp_path / "k").write_text("hidden")
    kinds = {
        "1": (["--progress=plain", "--secret", f"id=k,src={tmp_path / 'k'}"], "--mount=type=cache,target=/c "
              "--mount=type=secret,id=k --mount=type=bind,target=/b,rw "),
        "0": ([], ""),
    }  # fmt: skip
    done = "FROM busybox\nRUN echo done-{} > /done\n"
    clients = []
    with contextlib.ExitStack() as stack:
        for kit, (words, mounts) in kinds.items():
            root = tmp_path / kit
            root.mkdir()
            (root / "Dockerfile").write_text(f"{done.format(kit)}RUN {mounts}echo st''arted; sleep {marker}\n")
            environ = own_engine.environment(DOCKER_BUILDKIT=kit)
            argv = ["docker", "build", *words, str(root)]
            client = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            stack.enter_context(client)
            stack.callback(client.kill)
            clients.append((kit, argv, client))
        for _, _, client in clients:
            assert client.stdout is not None
            line = b""
            while not line.endswith(b"started\n"):
                line = client.stdout.readline()
                assert line, client.wait(60)
        own_engine.kill("wharfd")
        for _, _, client in clients:
            output = client.communicate(timeout=60)[0].decode()
            assert client.returncode == 1
            assert "EOF" in output or "connection" in output, output
    own_engine.start()
    check_next_build(own_engine, before)
    assert until(lambda: not running(marker), seconds=60)
    for kit, argv, _ in clients:
        # finished steps are cached
        (tmp_path / kit / "Dockerfile").write_text(done.format(kit))
        again = own_engine.run(*argv, env={"DOCKER_BUILDKIT": kit}, timeout=110)
        assert "CACHED" in again.stderr or "Using cache" in again.stdout


def running(marker: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"^sleep {marker}$"], capture_output=True, check=False).returncode == 0
