"""The test harness: the sweep of killed runs, unique resources per engine, a reproducible image."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from compat_tests.support import images
from compat_tests.support.host import resources
from compat_tests.support.host.processes import MARK, marked_processes
from compat_tests.support.host.traces import CGROUPS, PREFIX, Footprint, links, mounts_under


def ended_pid() -> int:
    """Return the pid of an exited child: the kernel reuses it last."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(60)
    return process.pid


def test_leftovers_of_a_killed_run_are_swept() -> None:
    pid, serial = ended_pid(), 7
    root = Path(tempfile.gettempdir()) / f"{PREFIX}{pid}-{serial}-killed"
    bridge, group = f"wt{pid}n{serial}", f"wharftest{pid}n{serial}"
    hierarchy = next(path for path in (CGROUPS / "pids", CGROUPS / "unified", CGROUPS) if path.is_dir())
    root.joinpath("a mount").mkdir(parents=True)
    child = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: root.name})
    try:
        subprocess.run(["mount", "-t", "tmpfs", "test", str(root / "a mount")], check=True, timeout=60)
        subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True, timeout=60)
        hierarchy.joinpath(group, "inner").mkdir(parents=True)
        assert any(p.pid == child.pid for p in marked_processes(root.name))

        swept = "\n".join(line for line in resources.sweep() if line.startswith(root.name))

        for word in (f"process {child.pid}", f"mount {root}/a mount", f"link {bridge}", f"cgroup {hierarchy}/{group}"):
            assert word in swept
        assert child.wait(60) != 0
        assert not root.exists()
        assert bridge not in links()
        assert not hierarchy.joinpath(group).exists()
    finally:
        child.kill()
        child.wait(60)
        Footprint(root.name, root, bridge, group).remove()
        resources.clear(root)


def test_a_process_without_the_mark_is_known_by_its_socket() -> None:
    """As the proxy, which has an environment of its own; also after the engine's files are gone."""
    allocated = resources.allocate("unmarked")
    path = allocated.root / "run.sock"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            child = subprocess.Popen(["sleep", "600"], pass_fds=[listener.fileno()])
        try:
            path.unlink()
            assert [process.pid for process in allocated.footprint.processes()] == [child.pid]
            assert any(f"process {child.pid} " in line for line in allocated.footprint.leftovers())
            allocated.footprint.end_processes()
            assert child.wait(60) == -signal.SIGKILL
        finally:
            child.kill()
            child.wait(60)
    finally:
        resources.clear(allocated.root)


def test_resources_are_distinct_and_live_ones_are_not_swept() -> None:
    first, second = resources.allocate("one"), resources.allocate("two")
    try:
        assert len({first.bridge, second.bridge, first.bip, second.bip, first.pool, second.pool}) == 6
        assert len(first.bridge) <= 15
        resources.sweep()
        assert first.root.is_dir()
        assert not mounts_under(first.root)
    finally:
        for allocated in (first, second):
            resources.clear(allocated.root)


def test_the_busybox_image_is_the_same_every_time() -> None:
    again = subprocess.run(
        [sys.executable, str(images.ROOT / "deploy/busybox_image.py")], capture_output=True, check=True, timeout=120
    )
    assert again.stdout == images.busybox_archive()


def test_patience_stretches_the_limit_of_a_test() -> None:
    """A swarm of several hosts alone needs more than the usual limit on an emulated machine."""
    argv = [sys.executable, "-m", "pytest", "--collect-only", "--timeout=30", "-p", "no:cacheprovider", __file__]
    environ = {**os.environ, "WHARF_TEST_PATIENCE": "2"}
    done = subprocess.run(argv, env=environ, cwd=images.ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "timeout: 60.0s" in done.stdout
