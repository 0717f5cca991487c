"""System call wrappers, tested against the real kernel where root suffices."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.common.system import cgroups, fds, inotify, linux, mounts
from engine.common.system.run import run, run_sync

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_openat2_stays_in_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("inside")
    (tmp_path / "passwd").write_text("outside")
    (root / "up").symlink_to("../../passwd")
    (root / "absolute").symlink_to("/etc/passwd")
    root_fd = os.open(root, os.O_PATH)
    try:
        inside = linux.RESOLVE_IN_ROOT
        with os.fdopen(linux.openat2(root_fd, "absolute", os.O_RDONLY, resolve=inside)) as file:
            assert file.read() == "inside"
        with pytest.raises(FileNotFoundError):  # the root's own parent is the root
            linux.openat2(root_fd, "up", os.O_RDONLY, resolve=inside)
        with pytest.raises(OSError, match="up"):
            linux.openat2(root_fd, "up", os.O_RDONLY, resolve=linux.RESOLVE_BENEATH)
    finally:
        os.close(root_fd)


@needs_root
@pytest.mark.root
def test_mounts_are_seen_and_removed(tmp_path: Path) -> None:
    base = tmp_path / "with space\tand tab"
    base.mkdir()
    try:
        linux.mount("first", str(base), "tmpfs", linux.MS_NODEV, "size=64k,mode=700")
        (base / "below").mkdir()
        linux.mount("second", str(base / "below"), "tmpfs", 0, "size=64k")
        linux.mount(str(base / "below"), str(base / "below"), None, linux.MS_BIND)
        found = mounts.mounts_under(str(base))
        assert [m.source for m in found] == ["first", "second", "second"]
        assert found[0].mountpoint == str(base)
        assert "nodev" in found[0].options
        assert mounts.is_mountpoint(str(base / "below"))
        holder = mounts.mount_of(str(base / "below"))
        assert holder is not None
        assert holder.mount_id == found[2].mount_id
        with pytest.raises(OSError, match="No such file"):
            linux.mount("x", str(base / "absent"), "tmpfs")
    finally:
        count = mounts.unmount_under(str(base))
    assert count == 3
    assert mounts.mounts_under(str(base)) == []
    assert not mounts.is_mountpoint(str(base))


V2 = b"""24 1 8:1 / / rw - ext4 /dev/root rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID = b"""24 1 8:1 / / rw - ext4 /dev/root rw
30 24 0:26 / /sys/fs/cgroup ro shared:4 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw
32 30 0:28 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw shared:6 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/systemd rw shared:7 - cgroup cgroup rw,xattr,name=systemd
"""


def test_scopes_of_systemd() -> None:
    assert cgroups.scope_path("a-b.slice:docker:id") == "/a.slice/a-b.slice/docker-id.scope"
    assert cgroups.scope_path("system.slice:docker:id") == "/system.slice/docker-id.scope"
    assert cgroups.scope_path("/docker/id") == "/docker/id"


def test_a_new_cpuset_inherits_from_its_parent(tmp_path: Path) -> None:
    # A plain directory instead of cgroupfs: new groups are empty in both.
    layout = cgroups.CgroupLayout("v1", frozenset({"cpuset"}), {"cpuset": str(tmp_path)})
    values = {"cpuset.cpus": "0-3", "cpuset.mems": "0"}
    for folder in (tmp_path, tmp_path / "own", tmp_path / "own" / "below"):
        folder.mkdir(exist_ok=True)
        for name, value in values.items():
            (folder / name).write_text(value if folder == tmp_path else "\n")
    (tmp_path / "own" / "cpuset.cpus").write_text("2")
    cgroups.prepare_cpuset(layout, "/own/below")
    assert (tmp_path / "own" / "below" / "cpuset.cpus").read_text() == "2"
    assert (tmp_path / "own" / "below" / "cpuset.mems").read_text() == "0"
    cgroups.prepare_cpuset(cgroups.CgroupLayout("v2", frozenset({"cpuset"})), "/none")


def test_controllers_are_delegated_in_a_subtree(tmp_path: Path) -> None:
    layout = cgroups.CgroupLayout("v2", frozenset({"memory", "pids"}), unified=str(tmp_path))
    (tmp_path / "cgroup.procs").write_text("0\n")  # a process that this PID namespace doesn't contain
    given = tmp_path / "cgroup.subtree_control"
    cgroups.delegate_controllers(layout)
    assert not given.exists()  # the root group needs no delegation
    (tmp_path / "cgroup.type").write_text("domain\n")
    cgroups.delegate_controllers(layout)
    assert given.read_text() == "+pids"  # the last value written, each controller separately
    assert not (tmp_path / "init").exists()


def test_cgroup_layouts() -> None:
    v2 = cgroups.host_cgroups(V2)
    assert (v2.mode, v2.v2, v2.unified) == ("v2", True, "/sys/fs/cgroup")
    hybrid = cgroups.host_cgroups(HYBRID)
    assert hybrid.mode == "hybrid"
    assert hybrid.controllers == {"cpu", "cpuacct"}
    v1 = cgroups.host_cgroups(b"".join(HYBRID.splitlines(keepends=True)[3:]))
    assert v1.mode == "v1"
    assert cgroups.host_cgroups(b"").mode == "none"
    where = cgroups.parse_proc_cgroup("5:cpu,cpuacct:/docker/abc/x\n1:name=systemd:/docker/abc/x\n0::/\n")
    assert cgroups.directories(hybrid, where) == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/x",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/x",
        "name=systemd": "/sys/fs/cgroup/systemd/docker/abc/x",
        "": "/sys/fs/cgroup/unified",
    }
    assert cgroups.container_directories(v2, "/docker/x") == {"": "/sys/fs/cgroup/docker/x"}


def test_remove_tree_is_deepest_first(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/d").mkdir()
    assert cgroups.remove_tree(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    assert cgroups.remove_tree(str(tmp_path / "a"))


def test_fds_travel_with_their_header() -> None:
    left, right = socket.socketpair()
    reader, writer = os.pipe()
    with left, right:
        fds.send_fds(left, {"do": "attach", "text": "x" * 5000}, [writer])
        fds.send_fds(left, {"n": 2})
        os.close(writer)
        header, got = fds.recv_fds(right)
        with got:
            assert (header["do"], len(got)) == ("attach", 1)
            with os.fdopen(got.take(0), "w") as file:
                file.write("through")
            with pytest.raises(ValueError, match="taken"):
                got.take(0)
        assert fds.recv_fds(right)[0] == {"n": 2}
        left.close()
        with pytest.raises(EOFError):
            fds.recv_fds(right)
    with os.fdopen(reader) as file:
        assert file.read() == "through"


def test_fds_async_waits_for_room_and_data() -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            right.setblocking(False)
            header = {"text": "y" * (fds.MAX_HEADER - 100)}  # more than a socket's buffer
            async with asyncio.timeout(60):
                receiving = asyncio.create_task(fds.recv_fds_async(right))
                await fds.send_fds_async(left, header, [left.fileno()])
                got, received = await receiving
            assert got == header
            assert len(received) == 1
            number = next(iter(received))
            received.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)

    asyncio.run(main())


def test_a_garbled_message_is_refused() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(ValueError, match="header of"):
            fds.recv_fds(right)


def test_run_captures_and_fails_by_name() -> None:
    async def main() -> None:
        code = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('words'); sys.exit(3)"
        argv = [sys.executable, "-c", code]
        done = await run(argv, deadline=60, input=b"text")
        assert (done.stdout, done.stderr, done.status) == (b"TEXT", b"words", 3)
        with pytest.raises(WharfError, match="exit status 3: words") as failed:
            await run(argv, deadline=60, check=True)
        assert failed.value.kind is Kind.INTERNAL
        with pytest.raises(FileNotFoundError):
            await run(["/no/such/program"], deadline=60)

    asyncio.run(main())
    assert run_sync([sys.executable, "-c", "print(1)"], deadline=60).stdout == b"1\n"


def test_a_late_program_is_killed() -> None:
    async def main() -> None:
        with pytest.raises(WharfError, match="not done after") as failed:
            await run(["/bin/sh", "-c", "sleep 1000 & sleep 1000"], deadline=0.2)
        assert failed.value.kind is Kind.DEADLINE_EXCEEDED

    asyncio.run(main())
    with pytest.raises(WharfError, match="not done after"):
        run_sync(["/bin/sh", "-c", "sleep 1000 & sleep 1000"], deadline=0.2)


def test_named_deadlines() -> None:
    timeouts.define("test.short", 0.01)
    timeouts.define("test.short", 99)
    assert timeouts.seconds("test.short") == 0.01
    with pytest.raises(KeyError):
        timeouts.seconds("test.unknown")

    async def main() -> None:
        with pytest.raises(WharfError, match=r"test\.short: not done"):
            async with timeouts.limit("test.short"):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):  # another TimeoutError passes unchanged
            async with timeouts.limit("engine.call"):
                raise TimeoutError

    asyncio.run(main())


def test_inotify_reports_changes(tmp_path: Path) -> None:
    async def main() -> None:
        with inotify.Watcher() as watcher:
            watch = watcher.add(str(tmp_path), inotify.CREATE | inotify.MOVED_TO)
            assert watcher.read_nowait() == []
            waiting = asyncio.create_task(watcher.read())
            (tmp_path / "new").write_text("")
            async with asyncio.timeout(60):
                (event,) = await waiting
            assert (event.watch, event.mask & inotify.CREATE, event.name) == (watch, inotify.CREATE, "new")
            with pytest.raises(FileNotFoundError):
                watcher.add(str(tmp_path / "absent"), inotify.MODIFY)

    asyncio.run(main())


def test_a_move_is_prepared_by_a_write_to_the_own_group(tmp_path: Path) -> None:
    group = tmp_path / cgroups.pid_cgroups("self").get("", "/").lstrip("/")
    group.mkdir(parents=True, exist_ok=True)
    procs = group / "cgroup.procs"
    procs.write_text("")
    cgroups.prepare_move(cgroups.CgroupLayout("v2", frozenset(), unified=str(tmp_path)))
    assert procs.read_text() == "0"
    procs.unlink()
    cgroups.prepare_move(cgroups.CgroupLayout("none", frozenset()))
    assert not procs.exists()
