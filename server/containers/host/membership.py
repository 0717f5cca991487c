"""Which container a process of the host belongs to."""

import re

from engine.common.system.processes import start_time
from server.containers.model import Container
from server.containers.registry import Registry

# The end of a container's cgroup: ``ID`` (cgroupfs) or ``docker-ID.scope`` (systemd).
_CGROUP = re.compile(r"/(?:[a-z]+-)?(?P<id>[0-9a-f]{64})(?:\.scope)?(?=/|$)")


def container_of(registry: Registry, pid: int) -> Container | None:
    """The container with this process, running or about to; None: the process is in none.

    The process is in a container if its cgroup is that of the container's first process, or below it. A cgroup of the
    same name elsewhere does not count: users of the host may make those. Blocks for some reads of procfs.

    :raises ProcessLookupError: the process doesn't exist; or its cgroup has the name of a container without a first
        process, and the process may be left of it.
    """
    for path, id in _cgroups(pid):
        container = registry.by_id(id)
        if container is None:
            continue
        state = container.state
        own, own_started = (state.pid, state.pid_started) if state.pid else container.starting
        found = _cgroups(own) if own and start_time(own) == own_started else []
        if id not in (each for _, each in found):
            # There is none, or it has exited: the kernel shows a zombie in the root.
            raise ProcessLookupError(3, "the container of the process doesn't run")
        if path in (each for each, _ in found):
            return container
    return None


def _cgroups(pid: int) -> list[tuple[str, str]]:
    """The cgroups of a process, and those above, whose names are those of containers' cgroups, from the top: hierarchy
    with path, and id."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(3, "no such process") from None
    return [(line[: found.end()], found["id"]) for line in lines for found in _CGROUP.finditer(line)]
