"""Binds of users: their containers reach what the user reaches on the host, with the user's ids."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.access.python import list_in_container
from compat_tests.support.host.exchanging import exchanging
from compat_tests.support.users import Lab, User


def test_a_device_node_can_not_be_made(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    failed = alice.docker(
        "run", "--rm", "-v", f"{alice.home}:/home", "busybox", "mknod", "/home/disk", "b", "8", "0", check=False
    )
    assert "Operation not permitted" in failed.stderr


def test_files_on_a_bind_belong_to_the_user(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    run = alice.home / "run"
    script = "mkdir /run/d && touch /run/f /run/g && chown 5:5 /run/g && ls -ln /run"
    alice.docker("run", "--rm", "-v", f"{run}:/run", "busybox", "sh", "-c", script)
    for path in (run, run / "d", run / "f"):
        info = path.stat()
        assert (info.st_uid, info.st_gid) == (alice.credentials.uid, alice.credentials.gid)
    other = (run / "g").stat()
    assert other.st_uid not in (5, 0, alice.credentials.uid)
    alice.run("rm", str(run / "f"), str(run / "g"))


def test_a_container_with_the_users_own_id(shared_lab: Lab) -> None:
    """``-u $(id -u):$(id -g)``, as in many Makefiles: the id is the same inside and outside."""
    alice = shared_lab["alice"]
    own = f"{alice.credentials.uid}:{alice.credentials.gid}"
    where = alice.home / "own"
    script = "id -u; id -g; touch /x/f; ls -ln /x/f"
    out = alice.docker("run", "--rm", "-u", own, "-v", f"{where}:/x", "busybox", "sh", "-c", script).stdout.split()
    assert ":".join(out[:2]) == ":".join(out[4:6]) == own
    info = (where / "f").stat()
    assert f"{info.st_uid}:{info.st_gid}" == own
    binds = ("-u", own, "-v", f"{alice.home}:/home", "-v", "/etc:/x")
    alice.docker("run", "-d", "--name", "own", *binds, "busybox", "sleep", "600")
    alice.docker("cp", str(where / "f"), "own:/home/copied")
    assert (alice.home / "copied").stat().st_uid == alice.credentials.uid
    assert alice.docker("cp", "own:/x/shadow", ".", check=False).status != 0
    # A container that joins its namespaces has its user namespace.
    script = "touch /y; ls -ln /y; cat /proc/self/uid_map"
    for runtime in ("crun", "runc"):
        joined = alice.docker(
            "run", "--rm", "--runtime", runtime, "--network", "container:own", "busybox", "sh", "-c", script
        ).stdout.split("\n")
        assert joined[0].split()[2:4] == ["0", "0"]
        assert joined[2].split() == [str(alice.credentials.uid)] * 2 + ["1"]
    # As root, ids are others: root is the user, and the user's own id is a subordinate one.
    shown = alice.docker("run", "--rm", "-v", f"{where}:/x", "busybox", "ls", "-ln", "/x/f").stdout.split()
    assert shown[2:4] == ["0", "0"]
    alice.docker("rm", "-f", "own")


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file of root in a directory that everybody may enter."""
    directory = Path(f"/var/tmp/wharf-secret-{os.getpid()}")
    directory.mkdir(mode=0o755)
    found = directory / "secret"
    found.write_text("the secret")
    found.chmod(0o600)
    yield found
    found.unlink()
    directory.rmdir()


def read(user: User, *args: str) -> str:
    done = user.docker("run", "--rm", *args, "busybox", "sh", "-c", "cat /x /x/* 2>&1; true", check=False)
    return done.stdout + done.stderr


def test_files_of_others_are_not_read(shared_lab: Lab, secret: Path) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    (bob.home / "private").write_text("the secret of bob")
    (bob.home / "private").chmod(0o644)
    inaccessible = (str(bob.home / "private"), "/root/.profile", f"{shared_lab.engine.resources.root}/data/wharf.db")
    for path in inaccessible:
        assert "ermission denied" in read(alice, "-v", f"{path}:/x")
        assert "bind source path does not exist" in read(alice, "--mount", f"type=bind,src={path},dst=/x")
    # Reached by path, but not readable.
    for path in (str(secret), str(secret.parent), "/etc/shadow"):
        out = read(alice, "-v", f"{path}:/x")
        assert "Permission denied" in out
        assert "secret\n" not in out
    data = shared_lab.engine.resources.root / "data"
    script = f"cat /x/{secret} /x/etc/shadow /x{bob.home}/private; ls /x/root /x{data} /x/proc"
    done = alice.docker("run", "--rm", "-v", "/:/x", "busybox", "sh", "-c", script, check=False)
    assert "secret" not in done.stdout
    assert "wharf.db" not in done.stdout
    assert done.stderr.count("ermission denied") == 5


def test_files_of_others_are_not_written(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    for script in ("echo x > /x/new", "rm /x/hostname", "echo x >> /x/passwd", "chmod 666 /x/shadow"):
        done = alice.docker("run", "--rm", "-v", "/etc:/x", "busybox", "sh", "-c", script, check=False)
        assert done.status != 0
    # Runtimes make the destinations of mounts.
    assert alice.refused_run("-v", "/etc:/x", "-v", "volume:/x/new")
    alice.docker("volume", "rm", "volume")
    assert not Path("/etc/new").exists()
    assert "ermission denied" in alice.refused_run("-v", "/etc/new:/x")
    assert not Path("/etc/new").exists()


def test_docker_cp_has_the_users_rights(shared_lab: Lab, secret: Path) -> None:
    """The engine copies files for the user: it must not be the host's root where a bind leads to the host's files."""
    alice = shared_lab["alice"]
    (alice.home / "mine").write_text("own")
    binds = ("-v", "/etc:/x", "-v", f"{secret.parent}:/y", "-v", f"{alice.home}:/home", "-v", "/:/all")
    for command in (("create",), ("run", "-d")):
        alice.docker(*command, "--name", "copies", *binds, "busybox", "sleep", "600")
        for source, target in (
            ("copies:/x/shadow", "."),
            ("copies:/y/secret", "."),
            (f"copies:/all/{secret}", "."),
            ("copies:/all/proc/self/maps", "."),
            ("mine", "copies:/x/new"),
            ("mine", "copies:/y/secret"),
        ):
            failed = alice.docker("cp", source, target, check=False)
            assert failed.status != 0, (command, source)
        alice.docker("cp", "mine", "copies:/home/copied")
        alice.docker("cp", "mine", "copies:/root/copied")
        alice.docker("cp", "copies:/root/copied", "back")
        assert (alice.home / "copied").stat().st_uid == alice.credentials.uid
        assert (alice.home / "back").read_text() == "own"
        alice.docker("rm", "-f", "copies")
    assert secret.read_text() == "the secret"
    assert not Path("/etc/new").exists()


def test_users_of_a_container_are_not_looked_up_in_files_of_others(shared_lab: Lab, secret: Path) -> None:
    alice = shared_lab["alice"]
    secret.write_text("spy:x:4242:4242::/:\n")
    alice.docker("run", "-d", "--name", "spy", "-v", f"{secret}:/etc/passwd", "busybox", "sleep", "600")
    failed = alice.docker("exec", "-u", "spy", "spy", "id", check=False)
    assert failed.status != 0
    assert "4242" not in failed.stdout
    alice.docker("rm", "-f", "spy")


@pytest.mark.parametrize(
    "path",
    ["/proc", "/proc/self", "/proc/1/root", "/proc/self/root", "/proc/self/fd/3", "/proc/thread-self/cwd", "/dev/fd"],
)
def test_proc_is_not_mounted(shared_lab: Lab, path: str) -> None:
    failed = shared_lab["alice"].docker("run", "--rm", "-v", f"{path}:/x", "busybox", "ls", "/x", check=False)
    assert failed.status in (125, 126)
    assert "proc file system" in failed.stderr or "magic link" in failed.stderr or "ermission denied" in failed.stderr


def test_mounts_of_the_host_below_a_bind_remain(shared_lab: Lab) -> None:
    """Also if they are shared, as systemd makes all mounts of the host: what the engine unmounts at the end, and the
    proc file system that it leaves out of the bind, are unmounted from the container's copy only."""
    alice = shared_lab["alice"]
    source = alice.home / "shared"
    mounts = {source / "data": "tmpfs", source / "proc": "proc"}
    with contextlib.ExitStack() as stack:
        for path in mounts:
            path.mkdir(parents=True)
        stack.callback(subprocess.run, ["umount", "-R", str(source)], check=True, timeout=60)
        subprocess.run(["mount", "--bind", str(source), str(source)], check=True, timeout=60)
        subprocess.run(["mount", "--make-rshared", str(source)], check=True, timeout=60)
        for path, fstype in mounts.items():
            subprocess.run(["mount", "-t", fstype, "test", str(path)], check=True, timeout=60)
        (source / "data" / "file").write_text("below")
        for _ in range(2):
            script = "cat /x/data/file; ls /x/proc"
            assert alice.docker("run", "--rm", "-v", f"{source}:/x", "busybox", "sh", "-c", script).stdout == "below"
        alice.docker("create", "--name", "copied", "-v", f"{source}:/x", "busybox", "true")
        alice.docker("cp", "copied:/x/data/file", "-")
        alice.docker("rm", "copied")
        assert all(os.path.ismount(path) for path in mounts)


def test_sockets_of_the_engine(shared_lab: Lab) -> None:
    """A container can use the users' socket, but neither the administrators' socket nor containerd's."""
    alice, engine = shared_lab["alice"], shared_lab.engine
    assert "200 OK" in list_in_container(alice, alice.socket).stdout
    for path in (engine.resources.socket, engine.containerd_address):
        done = list_in_container(alice, path, check=False)
        assert done.status != 0
        assert "ermission denied" in done.stderr
        assert "200 OK" not in done.stdout


def test_exchanged_paths(shared_lab: Lab, secret: Path) -> None:
    """A path that alternates between the user's file and a link to another's: the kernel decides at each step with the
    rights of the user, and the engine mounts what it has opened."""
    alice = shared_lab["alice"]
    own, link = alice.home / "swap", alice.home / "link"
    own.mkdir()
    (own / "secret").write_text("own")
    link.symlink_to("/root")
    os.chown(own, alice.credentials.uid, alice.credentials.gid)
    with exchanging(own, link):
        for _ in range(15):
            out = read(alice, "-v", f"{own}:/x")
            assert "own" in out or "ermission denied" in out
            assert ".bashrc" not in out
            assert "the secret" not in out


def test_the_bind_is_opened_again_at_each_start(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    path = alice.home / "later"
    path.mkdir()
    os.chown(path, alice.credentials.uid, alice.credentials.gid)
    alice.docker("create", "--name", "later", "-v", f"{path}:/x", "busybox", "ls", "/x")
    alice.docker("start", "-a", "later")
    path.rmdir()
    path.symlink_to("/root/nothing")
    failed = alice.docker("start", "-a", "later", check=False)
    assert failed.status != 0
    assert "ermission denied" in failed.stderr
    alice.docker("rm", "later")
