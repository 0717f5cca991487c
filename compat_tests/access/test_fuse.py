"""Binds of a user's FUSE mount without ``allow_other``: the kernel refuses all other users, root too. A server
that doesn't answer must not block the engine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User

pytestmark = pytest.mark.skipif(
    not (shutil.which("bindfs") and shutil.which("fusermount3") and os.path.exists("/dev/fuse")),
    reason="needs bindfs, fuse3 and /dev/fuse",
)


@contextlib.contextmanager
def mounted(user: User) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A FUSE mount of the user with a file, and its server."""
    real, point = user.home / "real", user.home / "fuse"
    user.run("mkdir", "-p", str(real), str(point))
    user.run("sh", "-c", f"echo mine > {real}/file")
    device = Path("/dev/fuse")
    mode = stat.S_IMODE(device.stat().st_mode)
    device.chmod(0o666)  # as udev sets it
    server = subprocess.Popen(
        ["bindfs", "-f", "--no-allow-other", str(real), str(point)],
        env=user.environment, cwd=user.home, user=user.credentials.uid, group=user.credentials.gid, extra_groups=(),
    )  # fmt: skip
    try:
        assert until(lambda: any(f" {point} fuse" in line for line in Path("/proc/mounts").read_text().splitlines()))
        yield point, server
    finally:
        server.send_signal(signal.SIGCONT)
        server.kill()
        server.wait(60)
        device.chmod(mode)
        subprocess.run(["umount", "-l", str(point)], check=False, timeout=60, stderr=subprocess.DEVNULL)


def test_only_the_user_can_bind_it(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    with mounted(alice) as (point, _):
        words = ("run", "--rm", "-v", f"{point}:/x", "busybox")
        assert alice.docker(*words, "cat", "/x/file").stdout == "mine\n"
        alice.docker(*words, "sh", "-c", "echo more > /x/other")
        info = (alice.home / "real" / "other").stat()
        assert (info.st_uid, info.st_gid) == (alice.credentials.uid, alice.credentials.gid)
        # To open a path below it, all ids of a process must be the user's, so a process of root can't.
        assert alice.refused_run("-v", f"{point}/file:/f") == f"bind source path {point}/file: permission denied"
        assert "ermission denied" in bob.docker(*words, "ls", "/x", check=False).stderr
        # dockerd's answer to an administrator.
        assert f"mkdir {point}: file exists" in shared_lab.engine.docker(*words, "ls", "/x", check=False).stderr


def test_a_container_whose_server_does_not_answer(shared_lab: Lab) -> None:
    """The engine restarts, lists and stops it, and runs its execs."""
    alice = shared_lab["alice"]
    with mounted(alice) as (point, server):
        alice.docker("run", "-d", "--init", "--name", "stuck", "-v", f"{point}:/x", "busybox", "sleep", "600")
        server.send_signal(signal.SIGSTOP)
        shared_lab.engine.restart()
        for words in (("ps", "-as"), ("system", "df"), ("inspect", "stuck"), ("exec", "stuck", "true")):
            alice.docker(*words)
        refused = alice.api.get("/containers/stuck/archive?path=/x/file")
        assert refused.status == 403
        assert refused.json() == {"message": "lstat /x/file: permission denied"}
        alice.docker("stop", "-t", "0", "stuck")
        alice.docker("rm", "stuck")


def test_a_server_that_does_not_answer(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    with mounted(alice) as (point, server):
        server.send_signal(signal.SIGSTOP)
        words = ["docker", "run", "--rm", "--network", "none", "-v", f"{point}:/x", "busybox", "true"]
        clients = [
            subprocess.Popen(
                words, env=alice.environment, cwd=alice.home, user=alice.credentials.uid, group=alice.credentials.gid,
                extra_groups=(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for _ in range(12)
        ]  # fmt: skip
        try:
            for _ in range(3):
                assert bob.docker("run", "--rm", "--network", "none", "busybox", "echo", "hello").stdout == "hello\n"
                assert alice.docker("ps", "-q").status == 0
            server.send_signal(signal.SIGCONT)
            assert [client.wait(60) for client in clients] == [0] * 12
        finally:
            server.send_signal(signal.SIGCONT)
            for client in clients:
                client.kill()
                client.wait(60)
