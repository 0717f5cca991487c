"""What others want to know about containers: health checks, exec, stats and networks register here.

A hook is called in the order of registration, under the container's lock, and must not raise; it may start
tasks of its own but must not wait for the container's lock.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from server.containers.model import Container

log = logging.getLogger(__name__)

Hook = Callable[[Container], None]
ExecHook = Callable[[Container, str, int, int], Awaitable[None]]


@dataclass(slots=True)
class Hooks:
    """``exec_exited`` gets (container, exec id, exit status, time in ns since the epoch) without the lock."""

    started: list[Hook] = field(default_factory=list)
    start_failed: list[Hook] = field(default_factory=list)
    stopped: list[Hook] = field(default_factory=list)
    #: After ``stopped``, when all output was read and logged and the state tells of the end.
    drained: list[Hook] = field(default_factory=list)
    paused: list[Hook] = field(default_factory=list)
    unpaused: list[Hook] = field(default_factory=list)
    removed: list[Hook] = field(default_factory=list)
    exec_exited: list[ExecHook] = field(default_factory=list)


def call(hooks: list[Hook], container: Container) -> None:
    """Calls each; one that fails is logged and does not keep the others from running."""
    for hook in hooks:
        try:
            hook(container)
        except Exception:
            log.exception("container=%s hook %r failed", container.id, hook)
