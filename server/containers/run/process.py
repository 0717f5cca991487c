"""The first process of a running container, by a descriptor: the kernel may reuse its pid."""

import os
from contextlib import ExitStack
from dataclasses import dataclass

from engine.common.system.credentials import Credentials, run_as
from engine.common.system.processes import Process, start_time
from server.containers.model import Container
from server.containers.spec.users import DirectoryRoot


def process_of(container: Container) -> Process:
    """The container's first process; the caller closes it. Blocks for three system calls on procfs.

    :raises ProcessLookupError: it has exited, even if the exit event is not handled yet; or the container doesn't run.
    """
    state = container.state
    if not state.running or not state.pid:
        raise ProcessLookupError(3, "the container doesn't run", container.id)
    return Process(state.pid, state.pid_started)


def started_time(pid: int) -> int:
    """When the process was started, in clock ticks since boot; 0: it has exited."""
    try:
        return start_time(pid)
    except ProcessLookupError:
        return 0


@dataclass(frozen=True, slots=True)
class ProcessFiles:
    """Small files of a running container, in the root of its first process; see ``RootFiles``. ``ids``: the host's uid
    and gid that must be allowed to read them: in a user's container a bind may be at their place."""

    container: Container
    ids: tuple[int, int] | None = None

    def read(self, path: str) -> bytes | None:
        """:raises ProcessLookupError: the process has exited."""
        with process_of(self.container) as process:
            root = process.open("root", os.O_PATH | os.O_DIRECTORY)
        try:
            files = DirectoryRoot(root)
            if self.ids is None:
                return files.read(path)
            return run_as(Credentials(*self.ids), lambda: files.read(path))
        finally:
            os.close(root)


def namespace_of(container: Container, kind: str, descriptors: ExitStack) -> str:
    """A path of the namespace (``pid``, ``ipc``, ``user``, ``net``) of a container's first process, for the runtime. It
    is the path of a descriptor of this process, and is valid until ``descriptors`` is closed.

    :raises ProcessLookupError: the process has exited.
    """
    with process_of(container) as process:
        fd = process.open(f"ns/{kind}", os.O_RDONLY)
    descriptors.callback(os.close, fd)
    return f"/proc/{os.getpid()}/fd/{fd}"
