"""The execs of clients that an earlier daemon started, and that still run. There is no record of them, as with dockerd;
the engine knows their processes."""

import contextlib
import logging
import os
import select
import time
from collections.abc import Iterable

from engine.common.errors import WharfError
from server.containers.context import ContainerContext
from server.containers.exec.model import HEALTH
from server.containers.model import Container

log = logging.getLogger(__name__)


class Survivors:
    """Made at the daemon's start. A container is looked at when it is asked for first."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        self._began_ns = time.time_ns()
        # By container: the descriptors of the processes that have not exited yet.
        self._pidfds: dict[str, list[int]] = {}
        context.hooks.stopped.append(self._forget)
        context.hooks.removed.append(self._forget)

    async def run_in(self, container: Container) -> bool:
        """Whether such an exec runs in a container. Health checks don't count."""
        if container.state.started_ns >= self._began_ns:
            return False
        if container.id not in self._pidfds:
            try:
                execs = await self._context.engine.tasks.execs(container.id)
            except WharfError as error:
                log.warning("container=%s its execs are not known: %s", container.id, error)
                return False
            self._pidfds[container.id] = _opened(pid for id, pid in execs.items() if not id.endswith(HEALTH))
        running = [pidfd for pidfd in self._pidfds[container.id] if not _has_exited(pidfd)]
        for pidfd in set(self._pidfds[container.id]).difference(running):
            os.close(pidfd)
        self._pidfds[container.id] = running
        return bool(running)

    def _forget(self, container: Container) -> None:
        for pidfd in self._pidfds.pop(container.id, ()):
            os.close(pidfd)


def _opened(pids: Iterable[int]) -> list[int]:
    found = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
    return found


def _has_exited(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
