"""What a collection reads of each container, and its result."""

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from engine.common import limits
from server.access.owners import OWNER_LABEL
from server.containers.context import ContainerContext
from server.containers.logs.config import log_file
from server.containers.model import Container
from server.containers.run.cgroup import cgroup_of
from server.metrics.cgroups import Cgroups, Usage
from server.metrics.traffic import Devices, Interfaces, Traffic

_INVALID = re.compile(r"[^a-zA-Z0-9_]")
# Rotated files of a log that are looked for: the files of the driver, and of an earlier configuration.
_LOG_FILES = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """A running container. ``labels``: of all of its metrics, by cAdvisor's names. ``usage``: None while it waits for
    its restart. ``log_bytes``: None if it has no log files."""

    container: Container
    labels: dict[str, str]
    usage: Usage | None = None
    traffic: Sequence[Traffic] = ()
    log_bytes: int | None = None


@dataclass(slots=True)
class Collection:
    """The containers of one collection. ``omitted``: how many were not read, because there are more than
    ``METRICS_CONTAINERS`` or because the time was over."""

    read_ns: int
    devices: Devices
    containers: list[Measured] = field(default_factory=list)
    omitted: int = 0


class Abandoned(Exception):
    """Nobody waits for the collection any more."""


def collect(
    context: ContainerContext,
    containers: Iterable[Container],
    names: Sequence[str],
    interfaces: Interfaces,
    *,
    seconds: float,
    abandoned: Callable[[], bool],
) -> Collection:
    """Reads the counters of all of these containers that run, for ``seconds`` at most. ``names``: the container labels
    that become labels of metrics. Runs in a thread beside the loop, which may change the records meanwhile: each
    attribute is read once.

    :raises Abandoned: ``abandoned`` was true.
    """
    end = time.monotonic() + seconds
    cgroups = Cgroups(context.facts.cgroups)
    found = Collection(time.time_ns(), Devices(interfaces))
    labels = [(name, f"container_label_{_INVALID.sub('_', name)}") for name in names]
    for container in containers:
        if not container.state.running:
            continue
        if abandoned():
            raise Abandoned
        if len(found.containers) >= limits.METRICS_CONTAINERS or time.monotonic() > end:
            found.omitted += 1
            continue
        found.containers.append(_measure(context, container, labels, cgroups, found.devices))
    return found


def _measure(
    context: ContainerContext,
    container: Container,
    names: Iterable[tuple[str, str]],
    cgroups: Cgroups,
    devices: Devices,
) -> Measured:
    cgroup = cgroup_of(context, container)
    labels = {"id": cgroup, "image": container.config.image[: limits.METRICS_LABEL], "name": container.name}
    own = container.labels
    for name, label in names:
        if (value := own.get(name)) is not None:
            labels[label] = value[: limits.METRICS_LABEL]
    if container.owner:
        labels[f"container_label_{_INVALID.sub('_', OWNER_LABEL)}"] = container.owner
    logged = log_bytes(container)
    if container.state.restarting:
        return Measured(container, labels, log_bytes=logged)
    host = container.host_config
    usage = cgroups.read(cgroup, quota=bool(host.cpu_quota or host.nano_cpus))
    return Measured(container, labels, usage, devices.traffic(container) if usage is not None else (), logged)


def log_bytes(container: Container) -> int | None:
    """The bytes of a container's log files, rotated ones included."""
    path = log_file(container)
    if not path:
        return None
    try:
        total = os.stat(path).st_size
    except OSError:
        return None
    config = container.host_config.log_config
    if config.type == "json-file" and "max-file" not in (config.config or {}):
        return total
    for number in range(1, _LOG_FILES):
        size = _size(f"{path}.{number}") or _size(f"{path}.{number}.gz")
        if not size:
            break
        total += size
    return total


def _size(path: str) -> int:
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
