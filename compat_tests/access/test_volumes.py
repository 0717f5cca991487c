"""Volumes of several owners: the same names, with ids of the container on disk."""

from __future__ import annotations

import json

from compat_tests.support.users import Lab


def test_two_users_have_a_volume_of_the_same_name(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    for user in (alice, bob):
        user.docker("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", f"echo {user.name} > /data/who")
    for user in (alice, bob):
        assert user.docker("volume", "ls", "-q").stdout == "data\n"
        shown = user.docker("run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/who").stdout
        assert shown == f"{user.name}\n"
    rows = json.loads(shared_lab.engine.docker("volume", "inspect", f"@{alice.name}/data").stdout)
    assert rows[0]["Labels"]["io.wharf.owner"] == alice.name
    failed = bob.docker("volume", "rm", f"@{alice.name}/data", check=False)
    assert "no such volume" in failed.stderr
    for user in (alice, bob):
        user.docker("volume", "rm", "data")


def test_the_files_of_an_image_fill_a_volume(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    out = alice.docker("run", "--rm", "-v", "etc:/etc", "busybox", "ls", "-ln", "/etc/passwd").stdout
    assert out.split()[2:4] == ["0", "0"]
    alice.docker("volume", "rm", "etc")
