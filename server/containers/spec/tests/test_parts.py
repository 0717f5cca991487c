"""The parts of a spec: users, capabilities, devices, seccomp, security options, mounts."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api_models.resources import DeviceMapping
from engine.common.errors import Kind, WharfError
from engine.common.system.mounts import MountInfo
from server.containers.spec import build, caps, devices, mounts, process, seccomp, security, users
from server.containers.spec.host import HostFacts, kernel_version
from server.containers.spec.input import BindMount, RootFiles
from server.containers.spec.tests.samples import BASE, HOST, Files


def device(host: str, inside: str, permissions: str = "") -> DeviceMapping:
    return DeviceMapping(path_on_host=host, path_in_container=inside, cgroup_permissions=permissions)


def test_devices_from_a_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    nodes, rules = devices.resolve(device(str(tmp_path / "link"), "/dev/z", "rw"))
    assert (nodes[0]["path"], nodes[0]["minor"], rules[0]["access"]) == ("/dev/z", 5, "rw")
    with pytest.raises(WharfError, match='custom device "/nosuch": no such file or directory'):
        devices.resolve(device("/nosuch", "/x"))
    with pytest.raises(WharfError, match="not a device node"):
        devices.resolve(device(str(tmp_path), "/x"))


@pytest.mark.parametrize("text", ["c 1:3 rwm", "a *:* m", "b 8:* r"])
def test_device_cgroup_rules(text: str) -> None:
    assert devices.parse_rule(text)["type"] == text[0]


@pytest.mark.parametrize("text", ["", "c 1:3", "x 1:3 r", "c 1:3 rwmx", "c -1:3 r", "c 1:3 r\n"])
def test_device_cgroup_rules_refused(text: str) -> None:
    with pytest.raises(WharfError, match="invalid device cgroup rule format"):
        devices.parse_rule(text)


def test_capabilities() -> None:
    every = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN")

    def tweak(add: tuple[str, ...], drop: tuple[str, ...], *, privileged: bool = False) -> tuple[str, ...]:
        return caps.tweak(add, drop, privileged=privileged, available=every)

    assert tweak((), ()) == caps.DEFAULT
    assert tweak(("all",), ("kill",)) == ("CAP_CHOWN", "CAP_NET_ADMIN")
    assert tweak(("cap_bpf", "CHOWN"), ("ALL",)) == ("CAP_BPF", "CAP_CHOWN")
    assert tweak((), (), privileged=True) == every
    with pytest.raises(WharfError, match='unknown capability: "CAP_FOO"'):
        tweak(("foo",), ())


@pytest.mark.parametrize(
    ("spec", "groups", "expected"),
    [
        ("", (), (0, 0, (0,))),
        ("www", (), (33, 33, (33, 1, 77))),
        ("33", ("extra", "5", "77"), (33, 33, (33, 1, 77, 77, 5))),
        ("daemon:www", (), (1, 33, (33,))),
        ("1000", (), (1000, 0, (0,))),
        ("1000:2000", (), (1000, 2000, (2000,))),
        (":77", (), (0, 77, (77,))),
    ],
)
def test_users(spec: str, groups: tuple[str, ...], expected: tuple[int, int, tuple[int, ...]]) -> None:
    user = users.lookup(spec, groups, Files())
    assert (user.uid, user.gid, user.additional_gids) == expected


@pytest.mark.parametrize(
    ("spec", "groups", "sentence"),
    [
        ("nosuch", (), "unable to find user nosuch: no matching entries in passwd file"),
        ("www:nogrp", (), "unable to find group nogrp: no matching entries in group file"),
        ("99999999999", (), "uids and gids must be in range 0-2147483647"),
        ("-5", (), "uids and gids must be in range 0-2147483647"),
        ("1:-2", (), "uids and gids must be in range 0-2147483647"),
        ("", ("nosuchg",), "unable to find group nosuchg: no matching entries in group file"),
    ],
)
def test_users_refused(spec: str, groups: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(WharfError) as refused:
        users.lookup(spec, groups, Files())
    assert refused.value.message == sentence
    assert refused.value.kind is Kind.INTERNAL


def test_a_root_without_the_files() -> None:
    assert users.lookup("7:8", (), Files(None, None)).gid == 8
    assert users.lookup("", (), Files(None, None)) == users.User()
    with pytest.raises(WharfError, match="no matching entries in passwd"):
        users.lookup("root", (), Files(None, None))


def test_files_of_a_directory_and_of_layers(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for layer in (lower, upper):
        (layer / "etc").mkdir(parents=True)
    (lower / "etc/passwd").write_text("below")
    (lower / "etc/group").write_text("below")
    (upper / "etc/group").write_text("above")
    (upper / "etc/link").symlink_to("/etc/group")
    layered = users.LayeredRoot((str(upper), str(lower)))
    assert layered.read("/etc/passwd") == b"below"
    assert layered.read("/etc/group") == b"above"
    assert layered.read("/etc/absent") is None
    assert layered.read("/absent/group") is None
    with pytest.raises(users.NeedsMount):
        layered.read("/etc/link")
    directory = users.DirectoryRoot(str(upper))
    assert directory.read("/etc/link") == b"above"
    assert directory.read("/etc/passwd") is None


def _nodes(etc: Path) -> dict[str, str]:
    """Files that must not be read, and the error of each."""
    os.mkfifo(etc / "fifo")
    os.mknod(etc / "zero", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    (etc / "directory").mkdir()
    (etc / "link").symlink_to("/dev/zero")
    (etc / "loop").symlink_to("loop")
    with open(etc / "large", "wb") as file:
        file.truncate(users.MAX_FILE + 1)
    (etc / "line").write_bytes(b"a" * 70000)
    return {
        "fifo": "read /etc/fifo: not a regular file",
        "zero": "read /etc/zero: not a regular file",
        "directory": "read /etc/directory: is a directory",
        "link": "read /etc/link: not a regular file",
        "loop": "too many levels of symbolic links",
        "large": f"read /etc/large: larger than {users.MAX_FILE} bytes (MAX_FILE)",
        "line": "bufio.Scanner: token too long",
    }


@pytest.mark.root
def test_special_files_are_refused(tmp_path: Path) -> None:
    """An image may have any file at ``/etc/passwd``: reading it must not block, and its size is limited."""
    (tmp_path / "etc").mkdir()

    class Renamed:
        def __init__(self, root: RootFiles, name: str) -> None:
            self._root, self._name = root, name

        def read(self, path: str) -> bytes | None:
            return self._root.read(f"/etc/{self._name}")

    for name, reason in _nodes(tmp_path / "etc").items():
        for root in (users.DirectoryRoot(str(tmp_path)), users.LayeredRoot((str(tmp_path),))):
            if isinstance(root, users.LayeredRoot) and name in ("link", "loop"):
                continue  # the caller reads it in a mount
            with pytest.raises(WharfError) as caught:
                users.lookup("", (), Renamed(root, name))
            assert caught.value.message.startswith("unable to find user 0: "), name
            assert caught.value.message.endswith(reason), name

    class Groups:
        def read(self, path: str) -> bytes | None:
            return users.DirectoryRoot(str(tmp_path)).read("/etc/fifo") if path == "/etc/group" else None

    with pytest.raises(WharfError, match="unable to find groups for spec 5: read /etc/fifo: not a regular file"):
        users.lookup("5:6", (), Groups())

    def whiteouts(name: str) -> bytes | None:
        os.mknod(tmp_path / "etc" / name, 0o600 | stat.S_IFCHR, 0)
        return users.LayeredRoot((str(tmp_path),)).read(f"/etc/{name}")

    assert whiteouts("gone") is None


def test_seccomp_by_capability_arch_and_kernel() -> None:
    def allowed(capabilities: tuple[str, ...], host: HostFacts = HOST) -> set[str]:
        filters: Any = seccomp.resolve("", capabilities, host)
        return {name for rule in filters["syscalls"] for name in rule["names"]}

    plain = allowed(caps.DEFAULT)
    assert not {"mount", "bpf", "reboot"} & plain
    assert {"mount", "setns", "bpf"} <= allowed((*caps.DEFAULT, "CAP_SYS_ADMIN"))
    assert "ptrace" in plain
    assert "ptrace" not in allowed(caps.DEFAULT, replace(HOST, kernel=(4, 4)))
    arm: Any = seccomp.resolve("", caps.DEFAULT, replace(HOST, arch="arm64"))
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "arch_prctl" not in allowed(caps.DEFAULT, replace(HOST, arch="arm64"))
    assert seccomp.resolve("unconfined", caps.DEFAULT, HOST) is None
    assert seccomp.resolve("{}", caps.DEFAULT, HOST) is None
    assert seccomp.resolve("", caps.DEFAULT, replace(HOST, seccomp=False)) is None


@pytest.mark.parametrize(
    ("profile", "host"),
    [
        ("{bad", HOST),
        ("[]", HOST),
        ('{"syscalls":[{"name":"a","names":["b"]}]}', HOST),
        ('{"syscalls":[{"names":7}]}', HOST),
        ('{"architectures":["a"],"archMap":[{}],"defaultAction":"x"}', HOST),
        ("{}", replace(HOST, seccomp=False)),
    ],
)
def test_bad_seccomp_profiles(profile: str, host: HostFacts) -> None:
    with pytest.raises(WharfError) as refused:
        seccomp.resolve(profile, caps.DEFAULT, host)
    assert refused.value.kind is Kind.INTERNAL


def test_security_options() -> None:
    parsed = security.parse(['seccomp={"a":"b=c"}', "apparmor:x", "label=type:t", "no-new-privileges=false"])
    assert parsed == security.SecurityOptions(False, '{"a":"b=c"}', "x")
    assert security.parse(["no-new-privileges"]).no_new_privileges
    assert security.parse(["writable-cgroups"]).writable_cgroups
    assert security.parse(None) == security.SecurityOptions()
    for option, sentence in (("foo", "opt 1"), ("foo=bar", "opt 2"), ("no-new-privileges=maybe", "opt 2")):
        with pytest.raises(WharfError, match=sentence):
            security.parse([option])


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        (["A=1", "B=2"], ["B=3", "C=4"], ["A=1", "B=3", "C=4"]),
        (["A=1", "B=2"], ["A"], ["B=2"]),
        (["A=1"], ["A", "A=5"], ["A=5"]),
        ([], ["X", "Y="], ["Y="]),
    ],
)
def test_environments_merge(base: list[str], over: list[str], result: list[str]) -> None:
    assert process.merge_env(base, over) == result


def test_cgroup_paths() -> None:
    assert build.cgroups_path("x", "", "cgroupfs") == "/wharf/x"
    assert build.cgroups_path("x", "/foo/../bar/", "cgroupfs") == "/bar/x"
    assert build.cgroups_path("x", "../../etc", "cgroupfs") == "/etc/x"
    assert build.cgroups_path("x", "", "systemd") == "system.slice:docker:x"
    assert build.cgroups_path("x", "a-b.slice", "systemd") == "a-b.slice:docker:x"
    with pytest.raises(WharfError, match="valid slice"):
        build.check_cgroup_parent("/foo", "systemd")
    build.check_cgroup_parent("/foo", "cgroupfs")


def test_propagation_needs_a_source_mount_with_it() -> None:
    private = MountInfo(1, 0, "8:1", "/", "/", ("rw",), (), "ext4", "/dev/x", ())
    inp = replace(BASE, mounts=(BindMount("/src", "/d", propagation="rslave"),))
    with pytest.raises(WharfError, match="path /src is mounted on / but it is not a shared or slave mount"):
        mounts.plan(inp, HOST, find=lambda _: private)
    inp = replace(BASE, mounts=(BindMount("/src", "/d", propagation="shared"),))
    with pytest.raises(WharfError, match="path /src is mounted on / but it is not a shared mount"):
        mounts.plan(inp, HOST, find=lambda _: private)


def test_tmpfs_options() -> None:
    mounts.check_tmpfs_options("size=1m,mode=1777,rw,noexec")
    for bad in ("foo", "size", "user=1"):
        with pytest.raises(WharfError, match="invalid tmpfs option"):
            mounts.check_tmpfs_options(bad)


def test_kernel_versions() -> None:
    assert kernel_version("6.1.0-13-amd64") == (6, 1)
    assert kernel_version("5.15") == (5, 15)
    assert kernel_version("weird") == (0, 0)
