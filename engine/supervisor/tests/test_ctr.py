"""Debian's ``ctr`` as an independent client: each of its command groups on our socket."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from engine.shim.tests import harness
from engine.supervisor.tests import processes

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ctr") is None, reason="needs ctr"),
]

NAME = "docker.io/library/busybox:latest"


@contextlib.contextmanager
def killing(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kills a client that is still running after a failure."""
    watchdog = threading.Timer(harness.PATIENCE, process.kill)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        process.kill()


class Ctr:
    def __init__(self, address: str, archive: Path) -> None:
        self.address = address
        self.archive = archive

    def popen(self, *args: str, namespace: str = "default") -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["ctr", "--address", self.address, "--namespace", namespace, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",  # a layer's bytes
        )

    def run(self, *args: str, namespace: str = "default") -> "subprocess.CompletedProcess[str]":
        with self.popen(*args, namespace=namespace) as process, killing(process):
            out, err = process.communicate(timeout=harness.PATIENCE)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def talk(self, *args: str) -> int:
        """Runs ``cat`` with a line of input, and closes the input when the line was echoed. (If the input ends before
        ctr's own call, ctr doesn't report the end.)"""
        with self.popen(*args, "cat") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            with killing(process):
                process.stdin.write("through\n")
                process.stdin.flush()
                assert process.stdout.readline() == "through\n"
                process.stdin.close()
                assert process.stdout.read() == ""
                return process.wait(harness.PATIENCE)

    def __call__(self, *args: str, namespace: str = "default") -> str:
        done = self.run(*args, namespace=namespace)
        assert done.returncode == 0, f"ctr {' '.join(args)}: {done.returncode}: {done.stderr}"
        return done.stdout

    def rows(self, *args: str, namespace: str = "default") -> list[list[str]]:
        """A table without its header."""
        return [line.split() for line in self(*args, namespace=namespace).splitlines()[1:]]


@pytest.fixture(scope="module")
def ctr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctr]:
    root = Path(__file__).resolve().parents[3]
    archive = tmp_path_factory.mktemp("ctr") / "busybox.tar"
    with archive.open("wb") as file:
        subprocess.run([sys.executable, str(root / "deploy/busybox_image.py")], stdout=file, check=True, timeout=120)
    # ctr names its containers' cgroups by the namespace alone, and never removes the parent group.
    groups = [path / "default" for path in Path("/sys/fs/cgroup").glob("*")]
    groups = [group for group in groups if not group.exists()]
    with processes.server("wharf") as server:
        made = Ctr(server.address, archive)
        made("images", "import", str(archive))
        yield made
    for group in groups:
        with contextlib.suppress(OSError):
            group.rmdir()


@pytest.fixture
def name() -> str:
    return f"c{uuid4().hex[:12]}"


def test_server(ctr: Ctr) -> None:
    assert "+wharf" in ctr("version")
    assert json.loads(ctr("info"))["server"]["pid"]
    plugins = {(row[0], row[1]): row[-1] for row in ctr.rows("plugins", "ls")}
    assert plugins["io.containerd.snapshotter.v1", "native"] == "ok"


def test_namespaces(ctr: Ctr, name: str) -> None:
    ctr("namespaces", "create", name, "a=1")
    ctr("namespaces", "label", name, "b=2")
    assert [name, "a=1,b=2"] in ctr.rows("namespaces", "ls")
    ctr("namespaces", "rm", name)
    assert name not in {row[0] for row in ctr.rows("namespaces", "ls") if row}


def test_active_writes(ctr: Ctr) -> None:
    def active() -> list[list[str]]:
        return ctr.rows("content", "active", namespace="writes")

    with ctr.popen("content", "ingest", "under-way", namespace="writes") as writer, killing(writer):
        assert writer.stdin is not None
        harness.until(lambda: [row[0] for row in active() if row] == ["under-way"], "a write that is shown")
        writer.stdin.write("x")
        writer.stdin.close()
        assert writer.wait(harness.PATIENCE) == 0
    assert active() == []


def test_images(ctr: Ctr, tmp_path: Path) -> None:
    assert NAME in ctr("images", "ls", "-q").split()
    ctr("images", "tag", NAME, "docker.io/library/other:1")
    ctr("images", "label", "docker.io/library/other:1", "x=y")
    (row,) = ctr.rows("images", "ls", "name==docker.io/library/other:1")
    assert "x=y" in row
    (row,) = ctr.rows("images", "check", f"name=={NAME}")
    assert (row[3], row[-1]) == ("complete", "true")
    exported = tmp_path / "out.tar"
    ctr("images", "export", str(exported), "docker.io/library/other:1")
    with tarfile.open(exported) as archive:
        assert {"oci-layout", "index.json", "manifest.json"} <= set(archive.getnames())
    ctr("images", "rm", "--sync", "docker.io/library/other:1")
    assert "docker.io/library/other:1" not in ctr("images", "ls", "-q").split()
    ctr("images", "import", str(exported))
    # With everything that only it referenced: the next test lists all blobs.
    ctr("images", "rm", "--sync", "docker.io/library/other:1")
    done = ctr.run("images", "rm", "docker.io/library/nothing:1")
    assert "not found" in done.stderr


def test_images_are_mounted(ctr: Ctr, tmp_path: Path) -> None:
    target = tmp_path / "rootfs"
    target.mkdir()
    ctr("images", "mount", NAME, str(target))
    try:
        assert (target / "bin/busybox").exists()
    finally:
        ctr("images", "unmount", "--rm", str(target))
    assert not list(target.iterdir())


def test_content_and_snapshots(ctr: Ctr, name: str) -> None:
    digests = [row[0] for row in ctr.rows("content", "ls")]
    manifest = next(digest for digest in digests if '"layers"' in ctr("content", "get", digest)[:4096])
    assert json.loads(ctr("content", "get", manifest))["layers"][0]["digest"] in digests
    ctr("content", "label", manifest, "k=v")
    assert "k=v" in next(" ".join(row) for row in ctr.rows("content", "ls") if row[0] == manifest)
    ctr("content", "label", manifest, "k=")
    (base,) = [row[0] for row in ctr.rows("snapshots", "ls") if row[-1] == "Committed"]
    ctr("snapshots", "prepare", name, base)
    assert "overlay" in ctr("snapshots", "mounts", "/nowhere", name)
    assert json.loads(ctr("snapshots", "info", name))["Parent"] == base
    assert [name, base, "Active"] in ctr.rows("snapshots", "ls")
    ctr("snapshots", "usage", name)
    ctr("snapshots", "commit", f"{name}-done", name)
    assert [f"{name}-done", base, "Committed"] in ctr.rows("snapshots", "ls")
    ctr("snapshots", "rm", f"{name}-done")


def test_leases(ctr: Ctr, name: str) -> None:
    assert ctr("leases", "create", "--id", name, "--expires", "1h", "a=b").strip() == name
    assert name in {row[0] for row in ctr.rows("leases", "ls")}
    ctr("leases", "rm", name)
    assert name not in {row[0] for row in ctr.rows("leases", "ls") if row}


def test_run_in_the_foreground(ctr: Ctr, name: str) -> None:
    assert ctr("run", "--rm", NAME, name, "echo", "hello") == "hello\n"
    done = ctr.run("run", "--rm", NAME, name, "sh", "-c", "echo oops >&2; exit 5")
    assert (done.returncode, done.stderr) == (5, "oops\n")
    assert ctr("run", "--rm", "--env", "A=b", "--cwd", "/etc", NAME, name, "sh", "-c", "echo $A $PWD") == "b /etc\n"
    assert ctr.talk("run", "--rm", NAME, name) == 0
    done = ctr.run("run", "--rm", NAME, name, "no-such-program")
    assert "no-such-program" in done.stderr
    assert ctr.rows("tasks", "ls") == []
    assert ctr.rows("containers", "ls") == []


def test_run_detached_and_all_of_tasks(ctr: Ctr, name: str) -> None:
    ctr("run", "-d", "--memory-limit", str(64 << 20), "--label", "k=v", NAME, name, "sleep", "1000")
    try:
        info = json.loads(ctr("containers", "info", name))
        assert (info["ID"], info["Image"], info["Labels"]["k"]) == (name, NAME, "v")
        ctr("containers", "label", name, "l=w")
        assert [name, NAME, "io.containerd.runc.v2"] in ctr.rows("containers", "ls")
        ((_, pid, status),) = [row for row in ctr.rows("tasks", "ls") if row[0] == name]
        assert status == "RUNNING"
        assert ctr.rows("tasks", "ps", name)[0][0] == pid
        assert ctr("tasks", "exec", "--exec-id", "e1", name, "echo", "inside") == "inside\n"
        assert ctr.run("tasks", "exec", "--exec-id", "e2", name, "sh", "-c", "exit 4").returncode == 4
        assert ctr.talk("tasks", "exec", "--exec-id", "e3", name) == 0
        ctr("tasks", "exec", "-d", "--exec-id", "e4", name, "sleep", "1000")
        assert any("e4" in row[1] for row in ctr.rows("tasks", "ps", name) if len(row) > 1)
        ctr("tasks", "kill", "-s", "KILL", "--exec-id", "e4", name)
        assert "pids" in ctr("tasks", "metrics", name)
        assert ctr("tasks", "metrics", "--format", "json", name)
        ctr("tasks", "pause", name)
        assert [name, pid, "PAUSED"] in ctr.rows("tasks", "ls")
        ctr("tasks", "resume", name)
        done = ctr.run("tasks", "rm", name)
        assert done.returncode != 0
        ctr("tasks", "kill", "-s", "KILL", name)
        harness.until(lambda: [name, pid, "STOPPED"] in ctr.rows("tasks", "ls"), "the task has stopped")
        ctr("tasks", "rm", name)
        # The container stays and gets another task.
        ctr("tasks", "start", "-d", name)
        harness.until(lambda: "RUNNING" in ctr("tasks", "ls"), "it runs again")
    finally:
        ctr.run("tasks", "rm", "-f", name)
        ctr("containers", "rm", name)
    assert name not in {row[0] for row in ctr.rows("snapshots", "ls")}


def test_attach(ctr: Ctr, name: str) -> None:
    ctr("run", "-d", NAME, name, "sh", "-c", "read line; echo got $line; exit 3")
    try:
        with ctr.popen("tasks", "attach", name) as client, killing(client):
            out, _ = client.communicate("word\n", timeout=harness.PATIENCE)
        assert (client.returncode, out) == (3, "got word\n")
    finally:
        ctr.run("tasks", "rm", "-f", name)
        ctr("containers", "rm", name)


def test_events(ctr: Ctr, name: str) -> None:
    wanted = ["/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    lines: list[str] = []
    with ctr.popen("events") as listener, killing(listener):
        assert listener.stdout is not None
        reader = threading.Thread(target=lines.extend, args=(listener.stdout,))
        reader.start()

        def listens() -> bool:
            # ctr doesn't tell when it is subscribed: repeat an action until its event arrives.
            ctr("namespaces", "create", made := f"n{uuid4().hex[:12]}")
            ctr("namespaces", "rm", made)
            return bool(lines)

        harness.until(listens, "ctr listens")
        ctr("run", "--rm", NAME, name, "true")
        harness.until(lambda: any(" /containers/delete " in line for line in lines), "the container's end is told")
        listener.kill()
        reader.join()
    topics = [next(word for word in line.split() if word.startswith("/")) for line in lines]
    assert [topic for topic in topics if topic in wanted] == wanted
