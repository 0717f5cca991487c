"""Programs with the set-user-ID bit, on volumes and binds of users."""

from __future__ import annotations

import stat
from pathlib import Path

from compat_tests.support.users import Lab, User


def set_id(user: User, source: str) -> None:
    """Make a set-id program of the container's root, ``su``, on a volume or a bind."""
    script = "cp /bin/busybox /x/su && chmod 4755 /x/su"
    user.docker("run", "--rm", "-v", f"{source}:/x", "busybox", "sh", "-c", script)


def test_a_set_id_program_on_a_volume(shared_lab: Lab) -> None:
    """It belongs to the host's root on disk: nobody may reach it there. In a container it is the user's."""
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
    """It belongs to the user, as one that the user makes on the host."""
    alice = shared_lab["alice"]
    set_id(alice, f"{alice.home}/programs")
    assert (alice.home / "programs" / "su").stat().st_uid == alice.credentials.uid
    # A set-id program of the host's root has no effect: its owner does not exist in the container.
    out = alice.docker(
        "run",
        "--rm",
        "-u",
        "65534",
        "-v",
        "/usr/bin:/host",
        "busybox",
        "sh",
        "-c",
        "ls -ln /host/su | cut -c1-10; id -u",
    )
    assert out.stdout.endswith("65534\n")
