"""Supplementary groups of a user in its containers: what belongs to one of them is usable there with its rights."""

from __future__ import annotations

import dataclasses
import grp
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User, lab

POLICY = """
published_images = ["docker.io/library/*"]
[users]
{alice} = "member"
{bob} = "member"
{carol} = "forced"
[roles.member]
[roles.forced]
force_user = true
"""


@pytest.fixture(scope="module")
def group() -> Iterator[int]:
    """A group of the host."""
    name = f"wt{os.getpid()}group"
    assert until(lambda: subprocess.run(["groupadd", "-r", name], check=False, timeout=60).returncode == 0)
    try:
        yield grp.getgrnam(name).gr_gid
    finally:
        until(lambda: subprocess.run(["groupdel", name], check=False, timeout=60).returncode == 0)


@pytest.fixture(scope="module")
def groups_lab(group: int) -> Iterator[Lab]:
    with lab("groups", POLICY, ("alice", "bob", "carol")) as made:
        yield made


@pytest.fixture
def shared(group: int) -> Iterator[Path]:
    """A directory of the group, which nobody else may enter, with a file of root."""
    directory = Path(f"/var/tmp/wt{os.getpid()}shared")
    directory.mkdir()
    try:
        os.chown(directory, 0, group)
        directory.chmod(0o2770)
        (directory / "file").write_text("content\n")
        (directory / "file").chmod(0o640)
        yield directory
    finally:
        shutil.rmtree(directory)


def member(lab: Lab, name: str, group: int) -> User:
    """The user as a process in the group."""
    user = lab[name]
    return dataclasses.replace(user, credentials=dataclasses.replace(user.credentials, groups=(group,)))


def test_a_directory_of_a_group(groups_lab: Lab, group: int, shared: Path) -> None:
    alice = member(groups_lab, "alice", group)
    words = ("run", "--rm", "--group-add", str(group), "-v", f"{shared}:/shared", "busybox", "sh", "-c")
    script = "id -G; cat /shared/file; echo own > /shared/own; stat -c %g /shared/own"
    ids, *shown = alice.docker(*words, script).stdout.splitlines()
    assert str(group) in ids.split()
    assert shown == ["content", str(group)]
    written = (shared / "own").stat()
    assert (written.st_uid, written.st_gid) == (alice.credentials.uid, group)
    # As another user of the container, too, and in an exec.
    alice.docker(
        "run", "-d", "--init", "--name", "up", "--user", "33", "--group-add", str(group), "-v", f"{shared}:/shared",
        "busybox", "sleep", "600",
    )  # fmt: skip
    assert alice.docker("exec", "up", "cat", "/shared/file").stdout == "content\n"
    alice.docker("exec", "up", "touch", "/shared/second")
    assert (shared / "second").stat().st_gid == group
    # What only the owner may write stays so: root in the container is not root of the group's files.
    assert alice.docker("exec", "--user", "0", "up", "sh", "-c", "echo x >> /shared/file", check=False).status != 0
    assert alice.docker("exec", "--user", "0", "up", "chown", "0", "/shared/file", check=False).status != 0
    assert alice.docker("exec", "--user", "0", "up", "chmod", "777", "/shared/file", check=False).status != 0
    source = alice.home / "copied"
    source.write_text("copied\n")
    os.chown(source, alice.credentials.uid, alice.credentials.gid)
    alice.docker("cp", str(source), "up:/shared/copied")
    assert (shared / "copied").stat().st_uid == alice.credentials.uid
    groups_lab.engine.restart()
    assert alice.docker("exec", "up", "cat", "/shared/file").stdout == "content\n"
    alice.docker("restart", "-t", "0", "up")
    assert alice.docker("exec", "up", "cat", "/shared/file").stdout == "content\n"
    alice.docker("rm", "-f", "up")


def test_files_of_a_volume_keep_their_ids(groups_lab: Lab, group: int) -> None:
    """A container that the user starts without the group sees the same ids."""
    alice = member(groups_lab, "alice", group)
    files = "/data/file", "/data/next"
    script = f"touch {' '.join(files)} && chgrp {group} {files[0]} && chgrp {group + 1} {files[1]}"
    alice.docker("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", script)
    for user in (alice, groups_lab["alice"]):
        shown = user.docker("run", "--rm", "-v", "data:/data", "busybox", "stat", "-c", "%g", *files)
        assert shown.stdout.split() == [str(group), str(group + 1)]
    alice.docker("volume", "rm", "data")


def test_a_group_of_others(groups_lab: Lab, group: int, shared: Path) -> None:
    """bob is no member: the number means a subordinate id, and the directory can't be mounted."""
    bob = groups_lab["bob"]
    words = ("run", "--rm", "--group-add", str(group), "-v")
    failed = bob.docker(*words, f"{shared}/file:/file", "busybox", "cat", "/file", check=False)
    assert failed.status != 0
    assert "content" not in failed.stdout
    failed = bob.docker(*words, f"{shared}:/shared", "busybox", "ls", "/shared", check=False)
    assert failed.status != 0
    assert "file" not in failed.stdout.split()


def test_a_container_that_is_forced_to_the_user_has_its_groups(groups_lab: Lab, group: int, shared: Path) -> None:
    carol = member(groups_lab, "carol", group)
    words = ("run", "--rm", "-v", f"{shared}:/shared", "busybox", "sh", "-c")
    shown = carol.docker(*words, "id -u; id -G; cat /shared/file; touch /shared/own").stdout.splitlines()
    own = str(carol.credentials.uid), f"{carol.credentials.gid} {group}", "content"
    assert tuple(shown) == own
    assert (shared / "own").stat().st_uid == carol.credentials.uid
