"""Limits that not every kernel has: weights of block devices, real-time scheduling."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.engines import Engine
from compat_tests.test_fields import UNIFIED, cgroup_of, create_and_remove, pid_of, running
from compat_tests.traces import cgroups_named, until

pytestmark = pytest.mark.root

PERIOD, RUNTIME = 1_000_000, 1_000  # microseconds


def test_a_weight_of_block_devices(engine: Engine) -> None:
    # By these dockerd knows whether there are weights: that of BFQ alone is none for it on cgroup v1.
    files = ("io.weight", "io.bfq.weight") if UNIFIED else ("blkio.weight",)
    with running(engine, {}) as identity:
        directory = cgroup_of(engine, identity, "blkio")
        found = [name for name in files if (directory / name).exists()]
    if not found:
        made, warnings = create_and_remove(engine, {"HostConfig": {"BlkioWeight": 300}})
        assert made["HostConfig"]["BlkioWeight"] == 0
        assert warnings == [
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        ]
        return
    with running(engine, {"HostConfig": {"BlkioWeight": 300}}) as identity:
        directory = cgroup_of(engine, identity, "blkio")
        told = {name: (directory / name).read_text().split()[-1] for name in found}
    # io.weight has a scale of its own: 10 to 1000 are 1 to 10000 there.
    assert any(value == ("2930" if name == "io.weight" else "300") for name, value in told.items()), told


@pytest.fixture
def real_time(engine: Engine) -> Iterator[None]:
    """The engine's cgroup has a little of the host's time for real-time processes, which it can hand on."""
    if UNIFIED or not Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        pytest.skip("this kernel gives no real-time to cgroups")
    with running(engine, {}):  # its parent is there
        parents = [path for path in cgroups_named(engine.place.cgroup) if path.parent == Path("/sys/fs/cgroup/cpu")]
        (file,) = [path / "cpu.rt_runtime_us" for path in parents]
        try:
            file.write_text(str(10 * RUNTIME))
        except OSError as error:
            pytest.skip(f"no real-time to give: {error}")
        yield

    def taken_back() -> bool:
        with contextlib.suppress(OSError):  # a container's group that the kernel has not let go of yet
            file.write_text("0")
            return True
        return not file.exists()

    assert until(taken_back)


def test_real_time(engine: Engine, real_time: None) -> None:
    host = {"CpuRealtimePeriod": PERIOD, "CpuRealtimeRuntime": RUNTIME}
    with running(engine, {"HostConfig": host}) as identity:
        directory = cgroup_of(engine, identity, "cpu")
        told = [(directory / f"cpu.rt_{name}_us").read_text().strip() for name in ("period", "runtime")]
        assert told == [str(PERIOD), str(RUNTIME)]
        # The kernel has it so: without such time of its group no process becomes one.
        pid = pid_of(engine, identity)
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
        assert os.sched_getscheduler(pid) == os.SCHED_FIFO
