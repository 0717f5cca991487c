"""The first process of a running container, as a descriptor that can't become another process's."""

from engine.system.processes import Process, start_time
from server.services.containers.model import Container


def process_of(container: Container) -> Process:
    """The container's first process; close it. Blocks for three system calls on procfs.

    :raises ProcessLookupError: it has gone, also when word of its end has not come yet, or never ran.
    """
    state = container.state
    if not state.running or not state.pid:
        raise ProcessLookupError(3, "the container doesn't run", container.id)
    return Process(state.pid, state.pid_started)


def started_time(pid: int) -> int:
    """When a container's process was started, in clock ticks since boot; 0 if it has ended already."""
    try:
        return start_time(pid)
    except ProcessLookupError:
        return 0
