"""The limits that this host's kernel and cgroup mounts can enforce. Create and update discard others with a warning."""

import os
from dataclasses import dataclass
from pathlib import Path

from engine.common.system.cgroups import CgroupLayout, host_cgroups, pid_cgroups


@dataclass(frozen=True, slots=True)
class HostLimits:
    """True: the kernel can enforce the limit. ``unified``: cgroup v2. ``cpus`` and ``mems``: lists such as ``0-3,7``,
    "" unknown. ``ncpu``: the number of CPUs."""

    unified: bool
    memory: bool = False
    swap: bool = False
    reservation: bool = False
    swappiness: bool = False
    oom_kill_disable: bool = False
    kernel_memory_tcp: bool = False
    cpu_shares: bool = False
    cpu_cfs: bool = False
    cpu_realtime: bool = False
    cpuset: bool = False
    cpus: str = ""
    mems: str = ""
    pids: bool = False
    blkio_weight: bool = False
    blkio_weight_device: bool = False
    blkio_read_bps: bool = False
    blkio_write_bps: bool = False
    blkio_read_iops: bool = False
    blkio_write_iops: bool = False
    cgroup_namespaces: bool = False
    ncpu: int = 1


def detect(layout: CgroupLayout | None = None) -> HostLimits:
    """Reads the host's limits (a few dozen stat calls)."""
    layout = layout or host_cgroups()
    return _unified(layout) if layout.v2 else _v1(layout)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _v1(layout: CgroupLayout) -> HostLimits:
    def has(controller: str, file: str) -> bool:
        point = layout.mountpoints.get(controller)
        return point is not None and os.path.exists(f"{point}/{file}")

    cpuset = layout.mountpoints.get("cpuset", "")
    return HostLimits(
        unified=False,
        memory="memory" in layout.mountpoints,
        swap=has("memory", "memory.memsw.limit_in_bytes"),
        reservation=has("memory", "memory.soft_limit_in_bytes"),
        swappiness=has("memory", "memory.swappiness"),
        oom_kill_disable=has("memory", "memory.oom_control"),
        kernel_memory_tcp=has("memory", "memory.kmem.tcp.limit_in_bytes"),
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_cfs=has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime=has("cpu", "cpu.rt_period_us"),
        cpuset=bool(cpuset),
        cpus=_read(f"{cpuset}/cpuset.cpus") if cpuset else "",
        mems=_read(f"{cpuset}/cpuset.mems") if cpuset else "",
        pids="pids" in layout.mountpoints,
        blkio_weight=has("blkio", "blkio.weight"),
        blkio_weight_device=has("blkio", "blkio.weight_device"),
        blkio_read_bps=has("blkio", "blkio.throttle.read_bps_device"),
        blkio_write_bps=has("blkio", "blkio.throttle.write_bps_device"),
        blkio_read_iops=has("blkio", "blkio.throttle.read_iops_device"),
        blkio_write_iops=has("blkio", "blkio.throttle.write_iops_device"),
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        ncpu=len(os.sched_getaffinity(0)),
    )


def _unified(layout: CgroupLayout) -> HostLimits:
    root = layout.unified or "/sys/fs/cgroup"
    here = pid_cgroups("self").get("", "")
    io = "io" in layout.controllers
    cpu = "cpu" in layout.controllers
    memory = "memory" in layout.controllers
    cpuset = "cpuset" in layout.controllers
    return HostLimits(
        unified=True,
        memory=memory,
        # The root cgroup has no memory.swap.max: look in the daemon's own cgroup.
        swap=memory and os.path.exists(f"{root}{here}/memory.swap.max"),
        reservation=memory,
        cpu_shares=cpu,
        cpu_cfs=cpu,
        cpuset=cpuset,
        cpus=_read(f"{root}/cpuset.cpus.effective") if cpuset else "",
        mems=_read(f"{root}/cpuset.mems.effective") if cpuset else "",
        pids="pids" in layout.controllers,
        blkio_weight=io,
        # Only the I/O scheduler BFQ has weights of single devices. Without it runc ignores them, and crun fails.
        blkio_weight_device=any(os.path.exists(f"{root}{at}/io.bfq.weight") for at in (here, "/system.slice")),
        blkio_read_bps=io,
        blkio_write_bps=io,
        blkio_read_iops=io,
        blkio_write_iops=io,
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        ncpu=len(os.sched_getaffinity(0)),
    )
