"""Programs with the set-user-ID bit, on volumes and binds of users."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from compat_tests.access.python import python_binds, set_uid_python
from compat_tests.support.users import Lab, User


def set_id(user: User, source: str) -> None:
    """Make a set-id program of the container's root, ``su``, on a volume or a bind."""
    script = "cp /bin/busybox /x/su && chmod 4755 /x/su"
    user.docker("run", "--rm", "-v", f"{source}:/x", "busybox", "sh", "-c", script)


def test_a_set_id_program_on_a_volume(shared_lab: Lab) -> None:
    """On disk the program belongs to the host's root, in a directory that no user can enter. In a container, its owner
    is the user."""
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    set_id(alice, "programs")
    point = Path(alice.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "programs").stdout.strip())
    info = (point / "su").stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (0, 0o4755)
    for user in (alice, bob):
        failed = user.run("sh", "-c", f"{point}/su id", check=False)
        assert "ermission denied" in failed.stderr
    inside = alice.docker("run", "--rm", "-v", "programs:/x", "busybox", "ls", "-ln", "/x/su").stdout.split()
    assert (inside[0], inside[2]) == ("-rwsr-xr-x", "0")
    alice.docker("volume", "rm", "programs")


def test_a_set_id_program_on_a_bind(shared_lab: Lab) -> None:
    """The program belongs to the user, as one that the user makes on the host."""
    alice = shared_lab["alice"]
    set_id(alice, f"{alice.home}/programs")
    assert (alice.home / "programs" / "su").stat().st_uid == alice.credentials.uid


@pytest.mark.parametrize(("owner", "effective"), [(0, 65534), (None, 0)], ids=["root", "user"])
def test_a_set_id_program_of_the_host(shared_lab: Lab, owner: int | None, effective: int) -> None:
    """That of the host's root has no effect, because its owner has no id in the container. That of the user has."""
    alice = shared_lab["alice"]
    with set_uid_python(alice.credentials.uid if owner is None else owner) as program:
        binds = python_binds(f"{program.parent}:/programs:ro")
        script = "import os; print(os.getuid(), os.geteuid())"
        out = alice.docker("run", "--rm", "-u", "65534", *binds, "busybox", "/programs/python", "-c", script).stdout
    assert out == f"65534 {effective}\n"
