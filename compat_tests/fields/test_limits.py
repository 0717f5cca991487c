"""Limits and devices of a create request: what the kernel gets, including what only some kernels support."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support.containers import (
    MIB,
    UNIFIED,
    cgroup_of,
    create,
    create_and_remove,
    output,
    pid_of,
    running,
    spec_of,
    start_error,
)
from compat_tests.support.engines import Engine
from compat_tests.support.host.resources import systemd_cgroups
from compat_tests.support.host.traces import cgroups_named
from compat_tests.support.polling import until

PERIOD, RUNTIME = 500_000, 500  # microseconds; the kernel's own period is a second
V1_LIMITS = {
    "memory/memory.limit_in_bytes": str(64 * MIB),
    "memory/memory.soft_limit_in_bytes": str(32 * MIB),
    "memory/memory.swappiness": "11",
    "cpu/cpu.shares": "300",
    "cpu/cpu.cfs_period_us": "50000",
    "cpu/cpu.cfs_quota_us": "25000",
    "cpuset/cpuset.cpus": "0",
    "cpuset/cpuset.mems": "0",
    "pids/pids.max": "77",
}
V2_LIMITS = {
    "memory/memory.max": str(64 * MIB),
    "memory/memory.low": str(32 * MIB),
    "cpu/cpu.max": "25000 50000",
    "cpuset/cpuset.cpus": "0",
    "cpuset/cpuset.mems": "0",
    "pids/pids.max": "77",
}


@honours(
    "HostConfig.CpuShares",
    "HostConfig.Memory",
    "HostConfig.NanoCpus",
    "HostConfig.CpuPeriod",
    "HostConfig.CpuQuota",
    "HostConfig.CpusetCpus",
    "HostConfig.CpusetMems",
    "HostConfig.MemoryReservation",
    "HostConfig.MemorySwap",
    "HostConfig.MemorySwappiness",
    "HostConfig.PidsLimit",
)
def test_limits_reach_the_kernel(engine: Engine) -> None:
    limits = {
        "Memory": 64 * MIB,
        "MemoryReservation": 32 * MIB,
        "MemorySwap": 96 * MIB,
        "MemorySwappiness": 11,
        "CpuShares": 300,
        "CpuPeriod": 50000,
        "CpuQuota": 25000,
        "CpusetCpus": "0",
        "CpusetMems": "0",
        "PidsLimit": 77,
    }
    with running(engine, {"HostConfig": limits}) as identity:
        for name, value in (V2_LIMITS if UNIFIED else V1_LIMITS).items():
            controller, file = name.split("/")
            path = cgroup_of(engine, identity, controller) / file
            if path.exists():
                assert path.read_text().strip() == value, name
        swap = cgroup_of(engine, identity, "memory") / ("memory.swap.max" if UNIFIED else "memory.memsw.limit_in_bytes")
        if engine.kind == "wharf":  # most machines have one node, and then the kernel reports it anyway
            assert spec_of(engine, identity)["linux"]["resources"]["cpu"]["mems"] == "0"
        if swap.exists():
            assert swap.read_text().strip() == str((32 if UNIFIED else 96) * MIB)
    with running(engine, {"HostConfig": {"NanoCpus": 500_000_000}}) as identity:
        directory = cgroup_of(engine, identity, "cpu")
        if UNIFIED:
            assert (directory / "cpu.max").read_text().split() == ["50000", "100000"]
        else:
            assert (directory / "cpu.cfs_quota_us").read_text().strip() == "50000"


@honours("HostConfig.OomKillDisable")
def test_oom_kill_disable(engine: Engine) -> None:
    if UNIFIED:
        pytest.skip("cgroup v2 has no such switch")
    with running(engine, {"HostConfig": {"OomKillDisable": True, "Memory": 64 * MIB}}) as identity:
        control = (cgroup_of(engine, identity, "memory") / "memory.oom_control").read_text()
        assert "oom_kill_disable 1" in control
    _, warnings = create_and_remove(engine, {"HostConfig": {"OomKillDisable": True}})
    assert "OOM killer is disabled for the container, but no memory limit is set" in warnings[0]


def block_device() -> str | None:
    for name in sorted(os.listdir("/sys/block")):
        if os.path.exists(f"/dev/{name}") and not name.startswith(("loop", "ram", "zram")):
            return f"/dev/{name}"
    return None


@honours(
    "HostConfig.BlkioDeviceReadBps",
    "HostConfig.BlkioDeviceWriteBps",
    "HostConfig.BlkioDeviceReadIOps",
    "HostConfig.BlkioDeviceWriteIOps",
)
def test_block_devices(engine: Engine) -> None:
    absent = {"BlkioDeviceReadBps": [{"Path": "/dev/nosuch", "Rate": 1000}]}
    identity, _ = create(engine, {"Cmd": ["true"], "HostConfig": absent})
    try:
        answer = engine.api.post(f"/containers/{identity}/start")
        assert answer.status == 500
        assert "no such file or directory" in answer.message
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)
    device = block_device()
    if device is None or (not UNIFIED and not Path("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device").exists()):
        pytest.skip("no block device here, or no throttling")
    limits = {
        "BlkioDeviceReadBps": [{"Path": device, "Rate": 1 * MIB}],
        "BlkioDeviceWriteBps": [{"Path": device, "Rate": 2 * MIB}],
        "BlkioDeviceReadIOps": [{"Path": device, "Rate": 30}],
        "BlkioDeviceWriteIOps": [{"Path": device, "Rate": 40}],
    }
    info = os.stat(device).st_rdev
    numbers = f"{os.major(info)}:{os.minor(info)}"
    with running(engine, {"HostConfig": limits}) as identity:
        directory = cgroup_of(engine, identity, "blkio")
        if UNIFIED:
            assert (directory / "io.max").read_text().strip() == (
                f"{numbers} rbps={MIB} wbps={2 * MIB} riops=30 wiops=40"
            )
        else:
            for file, value in (("read_bps", MIB), ("write_bps", 2 * MIB), ("read_iops", 30), ("write_iops", 40)):
                text = (directory / f"blkio.throttle.{file}_device").read_text()
                assert text.strip() == f"{numbers} {value}"


def test_limits_by_device_are_updated(engine: Engine) -> None:
    if engine.kind == "dockerd":
        pytest.skip("since API 1.55")
    device = block_device()
    if device is None or (not UNIFIED and not Path("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device").exists()):
        pytest.skip("no block device here, or no throttling")
    lists = ("BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps")
    with running(engine, {"HostConfig": {"BlkioDeviceReadBps": [{"Path": device, "Rate": MIB}]}}) as identity:
        directory = cgroup_of(engine, identity, "blkio")

        def limits() -> dict[str, str]:
            """Return the limits of the device in the kernel, by the kernel's names."""
            if UNIFIED:
                words = (directory / "io.max").read_text().split()[1:]
                pairs = (word.split("=") for word in words)
                return {name: value for name, value in pairs if value != "max"}
            files = {"rbps": "read_bps", "wbps": "write_bps", "riops": "read_iops", "wiops": "write_iops"}
            texts = {name: (directory / f"blkio.throttle.{file}_device").read_text() for name, file in files.items()}
            return {name: text.split()[1] for name, text in texts.items() if text.strip()}

        def update(**body: object) -> dict[str, object]:
            answer = engine.api.post(f"/containers/{identity}/update", body)
            assert answer.status == 200, answer.body
            shown = engine.api.get(f"/containers/{identity}/json").json()["HostConfig"]
            return {name: shown[name] for name in body}

        assert limits() == {"rbps": str(MIB)}
        everything = {name: [{"Path": device, "Rate": 1000 + number}] for number, name in enumerate(lists)}
        assert update(**everything) == everything
        assert limits() == {"rbps": "1000", "wbps": "1001", "riops": "1002", "wiops": "1003"}
        update(BlkioDeviceReadBps=None, BlkioDeviceReadIOps=[])
        assert limits() == {"rbps": "1000", "wbps": "1001", "wiops": "1003"}
        cleared: dict[str, object] = {name: [] for name in lists}
        assert update(**cleared) == cleared
        assert limits() == {}


CDI = """
cdiVersion: "0.7.0"
kind: example.com/thing
containerEdits:
  env: [THINGS=yes]
  additionalGids: [77]
devices:
  - name: one
    containerEdits:
      env: [ONE=first]
      deviceNodes: [{path: /dev/thing1, hostPath: /dev/zero, permissions: rw}]
      mounts: [{hostPath: %s, containerPath: /thing, options: [bind, ro]}]
  - name: two
    containerEdits:
      deviceNodes: [{path: /dev/thing2, hostPath: /dev/zero, type: c, major: 1, minor: 5}]
"""
GPU = {
    "cdiVersion": "0.7.0",
    "kind": "nvidia.com/gpu",
    "devices": [{"name": "all", "containerEdits": {"env": ["G=1"]}}],
}


@honours("HostConfig.DeviceRequests")
def test_devices_of_cdi(engine: Engine, tmp_path: Path) -> None:
    engine.cdi.mkdir(exist_ok=True)
    (tmp_path / "file").write_text("mounted")
    files = {"thing.yaml": CDI % tmp_path, "gpu.json": json.dumps(GPU)}
    for name, text in files.items():
        (engine.cdi / name).write_text(text)

    def asking(driver: str, *names: str, count: int = 0, **more: Any) -> dict[str, Any]:
        return {"HostConfig": {"DeviceRequests": [{"Driver": driver, "DeviceIDs": names, "Count": count, **more}]}}

    try:
        both = asking("cdi", "example.com/thing=one", "example.com/thing=two")
        script = "echo $THINGS $ONE; cat /thing/file; echo; ls /dev | grep thing"
        script += "; head -c 2 /dev/thing1 | wc -c"
        # dockerd watches the directory and may see the files with a delay.
        assert until(lambda: start_error(engine, asking("cdi", "example.com/thing=two")) == "")
        assert output(engine, both, script) == ["yes first", "mounted", "thing1", "thing2", "2"]
        assert start_error(engine, asking("cdi", "example.com/thing=none")) == (
            "CDI device injection failed: unresolvable CDI devices example.com/thing=none"
        )
        if engine.kind != "dockerd":
            assert output(engine, both, "id -G | tr ' ' '\\n' | grep 77") == ["77"]
            gpus = asking("", count=-1, Capabilities=[["gpu"]])
            assert output(engine, gpus, "echo $G") == ["1"]
            known = engine.api.get("/info").json()["DiscoveredDevices"]
            assert {"Source": "cdi", "ID": "example.com/thing=one"} in known
    finally:
        for name in files:
            (engine.cdi / name).unlink()
    assert "could not select device driver" in start_error(engine, asking("odd"))


@honours("HostConfig.CgroupParent")
def test_cgroup_parent(engine: Engine) -> None:
    own = engine.resources.footprint.cgroup
    if systemd_cgroups():
        parent, end = f"{own}-below.slice", f"/{own}.slice/{own}-below.slice/docker-{{}}.scope"
    else:
        parent, end = f"/{own}/below", f"/{own}/below/{{}}"
    try:
        with running(engine, {"HostConfig": {"CgroupParent": parent}}) as identity:
            path = str(cgroup_of(engine, identity, "pids"))
            assert path.endswith(end.format(identity)), path
    finally:
        # As with dockerd, a cgroup parent given by the client is not removed: it may contain other groups.
        if systemd_cgroups():
            subprocess.run(["systemctl", "stop", parent], check=True, timeout=60)
        for folder in cgroups_named(engine.resources.footprint.cgroup):
            if "below" in folder.name:
                until(lambda folder=folder: remove_empty(folder))  # type: ignore[misc]


def remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True


@honours("HostConfig.BlkioWeight")
def test_a_weight_of_block_devices(engine: Engine) -> None:
    # dockerd checks these for weight support; on cgroup v1, BFQ's alone does not count.
    files = ("io.weight", "io.bfq.weight") if UNIFIED else ("blkio.weight",)
    with running(engine, {}) as identity:
        directory = cgroup_of(engine, identity, "blkio")
        found = [name for name in files if (directory / name).exists()]
    if not found:
        created, warnings = create_and_remove(engine, {"HostConfig": {"BlkioWeight": 300}})
        assert created["HostConfig"]["BlkioWeight"] == 0
        assert warnings == [
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        ]
        return
    with running(engine, {"HostConfig": {"BlkioWeight": 300}}) as identity:
        directory = cgroup_of(engine, identity, "blkio")
        values = {name: (directory / name).read_text().split()[-1] for name in found}
    # io.weight scales 10…1000 to 1…10000.
    assert any(value == ("2930" if name == "io.weight" else "300") for name, value in values.items()), values


@honours("HostConfig.BlkioWeightDevice")
def test_a_weight_of_one_block_device(engine: Engine) -> None:
    weight = {"Path": "/dev/nosuch", "Weight": 200}
    created, warnings = create_and_remove(engine, {"HostConfig": {"BlkioWeightDevice": [weight]}})
    if warnings:
        assert warnings == [
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
            "Weight-device discarded."
        ]
        assert not created["HostConfig"]["BlkioWeightDevice"]
    else:
        # Not every device's scheduler supports weights, but the file is looked up.
        assert "no such file or directory" in start_error(engine, {"HostConfig": {"BlkioWeightDevice": [weight]}})


@pytest.fixture
def real_time(engine: Engine) -> Iterator[None]:
    """Give the engine's cgroup some real-time runtime, which it can pass on."""
    if UNIFIED or not Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        pytest.skip("this kernel gives no real-time to cgroups")
    with running(engine, {}):  # its cgroup parent exists
        parents = [path for path in cgroups_named(engine.resources.cgroup) if path.parent == Path("/sys/fs/cgroup/cpu")]
        (file,) = [path / "cpu.rt_runtime_us" for path in parents]
        try:
            file.write_text(str(10 * RUNTIME))
        except OSError as error:
            pytest.skip(f"no real-time to give: {error}")
        yield

    def runtime_is_returned() -> bool:
        with contextlib.suppress(OSError):  # the kernel may not have removed a container's group yet
            file.write_text("0")
            return True
        return not file.exists()

    assert until(runtime_is_returned)


@honours("HostConfig.CpuRealtimePeriod", "HostConfig.CpuRealtimeRuntime")
def test_real_time(engine: Engine, real_time: None) -> None:
    host = {"CpuRealtimePeriod": PERIOD, "CpuRealtimeRuntime": RUNTIME}
    with running(engine, {"HostConfig": host}) as identity:
        directory = cgroup_of(engine, identity, "cpu")
        values = [(directory / f"cpu.rt_{name}_us").read_text().strip() for name in ("period", "runtime")]
        assert values == [str(PERIOD), str(RUNTIME)]
        # Without runtime of its group, the kernel lets no process become a real-time one.
        pid = pid_of(engine, identity)
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
        assert os.sched_getscheduler(pid) == os.SCHED_FIFO
