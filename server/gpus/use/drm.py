"""The use of GPUs by the clients of DRM drivers: a client is an open file of ``/dev/dri``.

The kernel reports the times of a client's engines in the ``fdinfo`` of its file
(Documentation/gpu/drm-usage-stats.rst). They lack the queues of AMD's compute driver (ROCm, ``/dev/kfd``). That reports
the compute units that a process occupies at present (``/sys/class/kfd/kfd/proc/PID/stats_*/cu_occupancy``).

All functions block.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.common import limits

KFD = Path("/sys/class/kfd/kfd/proc")
_FDINFO_SIZE = 16384
_ENGINE, _CYCLES, _TOTAL = "drm-engine-", "drm-cycles-", "drm-total-cycles-"
# Of the same prefix, but no time.
_CAPACITY = "drm-engine-capacity-"

#: A client and one of its engines: the device, the client's id on it, and the engine's name.
Engine = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Counter:
    """How long an engine has worked for a client: in nanoseconds if ``total`` is 0, else in cycles, of which the engine
    has had ``total``."""

    busy: int
    total: int = 0


@dataclass(slots=True)
class Clients:
    """The clients that some processes have. ``computing``: one of the processes occupies compute units at present.
    ``unknown``: why the use by some client isn't known; "": all is known."""

    counters: dict[Engine, Counter] = field(default_factory=dict)
    computing: bool = False
    unknown: str = ""

    def part(self, before: Mapping[Engine, Counter], elapsed_ns: int) -> float:
        """The part of the time since a former reading that engines have worked; 1.0 is one engine without a pause."""
        return sum(_part(before.get(engine), counter, elapsed_ns) for engine, counter in self.counters.items())


def _part(before: Counter | None, after: Counter, elapsed_ns: int) -> float:
    # Drivers may report less than before for a while (drm-usage-stats.rst).
    busy = max(0, after.busy - (before.busy if before is not None else 0))
    if not after.total:
        return busy / max(1, elapsed_ns)
    if before is None:
        # The engine's cycles began before the client.
        return 1.0 if busy else 0.0
    return busy / max(1, after.total - before.total)


def read(pids: Iterable[int], *, proc: Path = Path("/proc"), kfd: Path = KFD) -> Clients:
    """The clients of these processes. Processes may exit meanwhile."""
    found = Clients()
    count = 0
    for pid in pids:
        _add_occupancy(found, kfd / str(pid))
        for name in _descriptors(proc / str(pid)):
            count += 1
            if count > limits.GPU_DESCRIPTORS:
                found.unknown = f"the processes have more than {limits.GPU_DESCRIPTORS} files (limit GPU_DESCRIPTORS)"
                return found
            if _is_device(proc / str(pid) / "fd" / name):
                _add(found, proc / str(pid) / "fdinfo" / name)
    return found


def _descriptors(process: Path) -> Iterator[str]:
    try:
        with os.scandir(process / "fd") as entries:
            for entry in entries:
                yield entry.name
    except OSError:
        return  # the process has exited


def _is_device(path: Path) -> bool:
    """Whether a descriptor is of a DRM device. Only the link is read: to look at the file could wait for a FUSE
    server."""
    try:
        return os.readlink(path).startswith("/dev/dri/")
    except OSError:
        return False


def _add(found: Clients, path: Path) -> None:
    try:
        with open(path, "rb") as file:
            text = file.read(_FDINFO_SIZE).decode(errors="replace")
    except OSError:
        return  # closed
    values = {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    driver = values.get("drm-driver", "")
    client = values.get("drm-pdev", driver), values.get("drm-client-id", str(path))
    engines = {
        key.removeprefix(_ENGINE): Counter(_number(value))
        for key, value in values.items()
        if key.startswith(_ENGINE) and not key.startswith(_CAPACITY)
    }
    # Xe reports cycles only.
    engines = engines or {
        key.removeprefix(_CYCLES): Counter(_number(value), _number(values[_TOTAL + key.removeprefix(_CYCLES)]))
        for key, value in values.items()
        if key.startswith(_CYCLES) and _TOTAL + key.removeprefix(_CYCLES) in values
    }
    if not engines:
        found.unknown = f"the driver {driver} reports no use by client" if driver else "the driver reports no clients"
    for engine, counter in engines.items():
        # Several descriptors may be of one client.
        found.counters[(*client, engine)] = counter


def _number(text: str) -> int:
    """A number, without its unit."""
    number = text.partition(" ")[0]
    return int(number) if number.isascii() and number.isdigit() else 0


def _add_occupancy(found: Clients, process: Path) -> None:
    if not process.is_dir():
        return  # no process of the compute driver
    known = False
    for path in process.rglob("cu_occupancy"):
        try:
            found.computing = found.computing or _number(path.read_text().strip()) > 0
            known = True
        except OSError:
            continue
    if not known:
        found.unknown = "the driver amdgpu reports no occupancy of compute units"
