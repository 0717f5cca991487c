"""Callbacks for changes of a container's state: health checks, exec, logs, stats and attach register here.

Hooks are called in the order of their registration, under the container's lock. A hook may start tasks, but must not
wait for the container's lock. An exception of a hook is logged.
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
    """The registered hooks. ``exec_exited`` is called without the lock, with the container, the exec's id in the
    engine, its exit status, and the time in ns since the epoch."""

    started: list[Hook] = field(default_factory=list)
    start_failed: list[Hook] = field(default_factory=list)
    stopped: list[Hook] = field(default_factory=list)
    #: After ``stopped``: all output is logged, and the state is the one after the exit.
    drained: list[Hook] = field(default_factory=list)
    paused: list[Hook] = field(default_factory=list)
    unpaused: list[Hook] = field(default_factory=list)
    removed: list[Hook] = field(default_factory=list)
    #: The health status has changed. Called without the lock.
    health: list[Hook] = field(default_factory=list)
    exec_exited: list[ExecHook] = field(default_factory=list)


def call(hooks: list[Hook], container: Container) -> None:
    """Calls all hooks; logs the exception of one and continues."""
    for hook in hooks:
        try:
            hook(container)
        except Exception:
            log.exception("container=%s hook %r failed", container.id, hook)
