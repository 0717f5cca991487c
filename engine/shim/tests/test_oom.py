"""The watch of a cgroup's OOM killer, on files that replace the kernel's (cgroup v1)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.shim.kernel.oom import OomWatch
from engine.shim.loop import Loop


class Cgroup:
    """A directory with the two files; a test writes the count and signals the eventfd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count(0)
        (path / "cgroup.event_control").touch()

    def count(self, kills: int) -> None:
        # In place: the watch has the file open.
        with open(self.path / "memory.oom_control", "w") as file:
            file.write(f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")

    def signal(self) -> None:
        os.eventfd_write(int((self.path / "cgroup.event_control").read_text().split()[0]), 1)


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.2])
def test_a_kill_that_is_counted_after_the_notice(tmp_path: Path, delay: float) -> None:
    """The kernel signals first and counts later: exactly one report follows."""
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    seen: list[str] = []
    cgroup = Cgroup(tmp_path)
    watch = OomWatch(loop, {"memory": str(tmp_path)}, lambda: seen.append("oom"))
    cgroup.signal()
    if delay:
        loop.call_later(delay, lambda: cgroup.count(1))
    else:
        cgroup.count(1)
    loop.call_later(delay + 0.6, loop.stop)
    loop.run()
    assert seen == ["oom"]
    watch.check()
    assert seen == ["oom"]
    watch.close()
    assert not errors


def test_a_notice_without_a_kill(tmp_path: Path) -> None:
    """A process of the cgroup was dying already: nothing is reported, and no callback runs after the close."""
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    seen: list[str] = []
    cgroup = Cgroup(tmp_path)
    watch = OomWatch(loop, {"memory": str(tmp_path)}, lambda: seen.append("oom"))
    cgroup.signal()
    loop.call_later(0.1, watch.close)
    loop.call_later(0.5, loop.stop)
    loop.run()
    assert seen == []
    assert not errors
