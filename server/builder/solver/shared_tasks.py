"""Deduplicates concurrent work by key: one task serves all callers, and is cancelled when the last caller leaves."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from server.builder.solver.output import Listener, StepOutput

T = TypeVar("T")


class _SharedTask(Generic[T]):
    def __init__(self, task: "asyncio.Task[T]", output: StepOutput) -> None:
        self.task = task
        self.waiting = 0
        self.output = output


class SharedTasks(Generic[T]):
    """Running tasks by key. A cancelled caller leaves the task to the others; the last cancelled caller cancels it."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _SharedTask[T]] = {}

    def is_running(self, key: Hashable) -> bool:
        """Whether a caller of ``run`` would join a running task."""
        return key in self._running

    async def run(
        self, key: Hashable, work: Callable[[StepOutput], Awaitable[T]], listener: Listener | None = None
    ) -> T:
        """Return the work's result; start the work if no task of that key runs. Raises what the work raises.

        ``listener``: gets the output of the work from its beginning, even if another caller started it.
        """
        shared = self._running.get(key)
        if shared is None:
            output = StepOutput()
            shared = _SharedTask(asyncio.ensure_future(work(output)), output)
            self._running[key] = shared
            shared.task.add_done_callback(lambda _, shared=shared: self._drop(key, shared))  # type: ignore[misc]
        shared.waiting += 1
        if listener is not None:
            shared.output.join(listener)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if listener is not None:
                shared.output.leave(listener)
            if not shared.waiting and not shared.task.done():
                shared.task.cancel()
                self._drop(key, shared)
                await asyncio.wait([shared.task])

    def _drop(self, key: Hashable, shared: _SharedTask[T]) -> None:
        if self._running.get(key) is shared:
            del self._running[key]
