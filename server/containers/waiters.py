"""``docker wait``: futures that complete when a container exits or is removed."""

import asyncio
from dataclasses import dataclass, field
from enum import Enum

from server.containers.model import Container


class Condition(Enum):
    """The conditions of ``POST /containers/{id}/wait``."""

    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a wait. ``error``: why the container could not be started or removed."""

    exit_code: int
    error: str = ""


Waiter = asyncio.Future[Outcome]


@dataclass(slots=True)
class _Queue:
    stop: list[Waiter] = field(default_factory=list)
    removal: list[Waiter] = field(default_factory=list)


class Waiters:
    """The waiters of all containers, by id."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def register(self, container: Container, condition: Condition) -> Waiter:
        """A future with the outcome; it is done already if the condition is met. Cancel it to stop waiting."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        if condition is Condition.NOT_RUNNING and not container.state.running:
            waiter.set_result(Outcome(container.state.exit_code, container.state.error))
            return waiter
        queue = self._queues.setdefault(container.id, _Queue())
        waiters = queue.removal if condition is Condition.REMOVED else queue.stop
        waiters.append(waiter)
        waiter.add_done_callback(lambda done: waiters.remove(done) if done in waiters else None)
        return waiter

    def stopped(self, container: Container) -> None:
        """Completes the waiters for an exit: the container has left the running state, or waits for its restart."""
        queue = self._queues.get(container.id)
        if queue is not None:
            _wake(queue.stop, container, container.state.error)

    def removed(self, container: Container, error: str = "") -> None:
        """Completes all waiters: the container was removed, or could not be (``error``)."""
        queue = self._queues.pop(container.id, None)
        if queue is not None:
            _wake(queue.removal, container, error)
            _wake(queue.stop, container, error)


def _wake(waiters: list[Waiter], container: Container, error: str) -> None:
    pending, waiters[:] = list(waiters), []
    for waiter in pending:
        if not waiter.done():
            waiter.set_result(Outcome(container.state.exit_code, error))
