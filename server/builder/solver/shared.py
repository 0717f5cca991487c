"""Deduplicates concurrent work by key: one task serves all callers, and is cancelled when the last caller leaves."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from server.builder.solver.output import Listener, StepOutput

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self, task: "asyncio.Task[T]", output: StepOutput) -> None:
        self.task = task
        self.waiting = 0
        self.output = output


class Shared(Generic[T]):
    """Running tasks by key. A cancelled caller leaves the task to the others; the last cancelled caller cancels it."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def run(
        self, key: Hashable, work: Callable[[StepOutput], Awaitable[T]], listener: Listener | None = None
    ) -> T:
        """Return the work's result; start the work if no task of that key runs. Raises what the work raises.

        ``listener``: gets the output of the work from its beginning, even if another caller started it.
        """
        flight = self._flights.get(key)
        if flight is None:
            output = StepOutput()
            flight = _Flight(asyncio.ensure_future(work(output)), output)
            self._flights[key] = flight
            flight.task.add_done_callback(lambda _, flight=flight: self._drop(key, flight))  # type: ignore[misc]
        flight.waiting += 1
        if listener is not None:
            flight.output.join(listener)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if listener is not None:
                flight.output.leave(listener)
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                self._drop(key, flight)
                await asyncio.wait([flight.task])

    def _drop(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
