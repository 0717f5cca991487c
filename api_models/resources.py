"""Limits of a container: cgroups, devices, ulimits (also the body of update)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, get_args, get_type_hints

from pydantic import Field

from api_models.base import OMIT, Go, Int, Int64, Uint16, Uint64
from api_models.oci import Oci, not_negative, positive
from api_models.record import Record, StringMap, Strings
from api_models.versions import Dropped, Gone, Since


class _Updatable:
    """Marks a limit that ``docker update`` can change; other limits are fixed at create."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


#: The values 0, "" and null keep the limit.
UPDATABLE = _Updatable("UPDATABLE")
#: A list of limits by device: null keeps it, an empty list clears it.
UPDATABLE_LIST = _Updatable("UPDATABLE_LIST")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDevice(Record):
    go_name: ClassVar[str] = "blkiodev.WeightDevice"

    path: str = ""
    weight: Uint16 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleDevice(Record):
    go_name: ClassVar[str] = "blkiodev.ThrottleDevice"

    path: str = ""
    rate: Uint64 = 0


Throttles = Annotated[tuple[ThrottleDevice, ...] | None, Go("[]*blkiodev.ThrottleDevice")]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMapping(Record):
    go_name: ClassVar[str] = "container.DeviceMapping"

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest(Record):
    go_name: ClassVar[str] = "container.DeviceRequest"

    driver: str = ""
    count: Int = 0
    device_ids: Annotated[Strings | None, Field(alias="DeviceIDs")] = None
    capabilities: tuple[Strings, ...] | None = None
    options: StringMap | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit(Record):
    go_name: ClassVar[str] = "units.Ulimit"

    name: str = ""
    hard: Int64 = 0
    soft: Int64 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy(Record):
    """``name``: "", "no", "always", "unless-stopped" or "on-failure"."""

    go_name: ClassVar[str] = "container.RestartPolicy"

    name: Annotated[str, Go("container.RestartPolicyMode")] = ""
    maximum_retry_count: Int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(Record):
    """Sizes in bytes, CPU periods and quotas in microseconds, NanoCpus in 1e-9 CPUs."""

    go_name: ClassVar[str] = "container.Resources"
    go_embedded: ClassVar[str] = "Resources"

    cpu_shares: Annotated[Int64, UPDATABLE, Oci("linux.resources.cpu.shares")] = 0
    memory: Annotated[Int64, UPDATABLE, Oci("linux.resources.memory.limit", positive)] = 0
    nano_cpus: Annotated[Int64, UPDATABLE] = 0
    cgroup_parent: str = ""
    blkio_weight: Annotated[Uint16, UPDATABLE, Oci("linux.resources.blockIO.weight")] = 0
    blkio_weight_device: Annotated[tuple[WeightDevice, ...] | None, UPDATABLE_LIST, Go("[]*blkiodev.WeightDevice")] = (
        None
    )
    blkio_device_read_bps: Annotated[Throttles, UPDATABLE_LIST] = None
    blkio_device_write_bps: Annotated[Throttles, UPDATABLE_LIST] = None
    blkio_device_read_iops: Annotated[Throttles, UPDATABLE_LIST, Field(alias="BlkioDeviceReadIOps")] = None
    blkio_device_write_iops: Annotated[Throttles, UPDATABLE_LIST, Field(alias="BlkioDeviceWriteIOps")] = None
    cpu_period: Annotated[Int64, UPDATABLE, Oci("linux.resources.cpu.period")] = 0
    cpu_quota: Annotated[Int64, UPDATABLE, Oci("linux.resources.cpu.quota")] = 0
    cpu_realtime_period: Annotated[Int64, UPDATABLE, Oci("linux.resources.cpu.realtimePeriod", cgroup_v1=True)] = 0
    cpu_realtime_runtime: Annotated[Int64, UPDATABLE, Oci("linux.resources.cpu.realtimeRuntime", cgroup_v1=True)] = 0
    cpuset_cpus: Annotated[str, UPDATABLE, Oci("linux.resources.cpu.cpus")] = ""
    cpuset_mems: Annotated[str, UPDATABLE, Oci("linux.resources.cpu.mems")] = ""
    devices: tuple[DeviceMapping, ...] | None = None
    device_cgroup_rules: Strings | None = None
    device_requests: tuple[DeviceRequest, ...] | None = None
    kernel_memory: Annotated[Int64, OMIT, Gone((1, 42))] = 0
    kernel_memory_tcp: Annotated[
        Int64,
        Field(alias="KernelMemoryTCP"),
        OMIT,
        Since((1, 40)),
        Gone((1, 52)),
        Dropped((1, 52)),
        Oci("linux.resources.memory.kernelTCP", positive, cgroup_v1=True),
    ] = 0
    memory_reservation: Annotated[Int64, UPDATABLE, Oci("linux.resources.memory.reservation", positive)] = 0
    # -1: unlimited; 0: not given, which means twice the memory.
    memory_swap: Annotated[Int64, UPDATABLE, Oci("linux.resources.memory.swap")] = 0
    memory_swappiness: Annotated[
        Int64 | None, Oci("linux.resources.memory.swappiness", not_negative, cgroup_v1=True)
    ] = None
    oom_kill_disable: Annotated[bool | None, Oci("linux.resources.memory.disableOOMKiller", cgroup_v1=True)] = None
    # None: not given (update: keep); 0 or less: unlimited.
    pids_limit: Annotated[Int64 | None, UPDATABLE] = None
    ulimits: Annotated[tuple[Ulimit, ...] | None, Go("[]*units.Ulimit")] = None
    # Windows-only fields: stored and shown, and refused if the value is invalid on Linux.
    cpu_count: Int64 = 0
    cpu_percent: Int64 = 0
    io_maximum_iops: Annotated[Uint64, Field(alias="IOMaximumIOps")] = 0
    io_maximum_bandwidth: Annotated[Uint64, Field(alias="IOMaximumBandwidth")] = 0


def _marked(mark: _Updatable) -> tuple[str, ...]:
    hints = get_type_hints(Resources, include_extras=True)
    return tuple(name for name, hint in hints.items() if mark in get_args(hint))


#: The attributes of the limits that ``docker update`` can change.
UPDATABLE_FIELDS = _marked(UPDATABLE)
UPDATABLE_LISTS = _marked(UPDATABLE_LIST)
