"""Which container a process of the host belongs to."""

import re

from server.containers.model import Container
from server.containers.registry import Registry

# The end of a container's cgroup: ``ID`` (cgroupfs) or ``docker-ID.scope`` (systemd).
_CGROUP = re.compile(r"/(?:[a-z]+-)?(?P<id>[0-9a-f]{64})(?:\.scope)?(?=/|$)")


def container_of(registry: Registry, pid: int) -> Container | None:
    """The running container with this process; None: the process is in none.

    The process is in a container if its cgroup is that of the container, or below it. A cgroup of the same name
    elsewhere does not count: users of the host may make those. Blocks for two reads of procfs.

    :raises ProcessLookupError: the process doesn't exist.
    """
    for path, id in _cgroups(pid):
        container = registry.by_id(id)
        if container is None or not container.state.running or not container.state.pid:
            continue
        try:
            if any(path == own for own, _ in _cgroups(container.state.pid)):
                return container
        except ProcessLookupError:
            continue
    return None


def _cgroups(pid: int) -> list[tuple[str, str]]:
    """The cgroups of a process, and those above, whose names are those of containers' cgroups, from the top: hierarchy
    with path, and id."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        raise ProcessLookupError(3, "no such process") from None
    return [(line[: found.end()], found["id"]) for line in lines for found in _CGROUP.finditer(line)]
