"""The first process of a running container, as a descriptor that can't become another process's."""

import os
from contextlib import ExitStack
from dataclasses import dataclass

from engine.common.system.processes import Process, start_time
from server.containers.model import Container
from server.containers.spec.users import DirectoryRoot


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


@dataclass(frozen=True, slots=True)
class ProcessFiles:
    """Small files of a running container, as its first process sees them."""

    container: Container

    def read(self, path: str) -> bytes | None:
        """See ``RootFiles``. Raises ProcessLookupError if the process has gone."""
        with process_of(self.container) as process:
            root = process.open("root", os.O_PATH | os.O_DIRECTORY)
        try:
            return DirectoryRoot(root).read(path)
        finally:
            os.close(root)


def namespace_of(container: Container, kind: str, held: ExitStack) -> str:
    """A path of the namespace (``pid``, ``ipc``, ``user``, ``net``) of a container's first process, for a runtime that
    opens it later. It leads to that namespace, through a descriptor of ours, until ``held`` is closed.

    :raises ProcessLookupError: the process has gone.
    """
    with process_of(container) as process:
        fd = process.open(f"ns/{kind}", os.O_RDONLY)
    held.callback(os.close, fd)
    return f"/proc/{os.getpid()}/fd/{fd}"
