"""One piece of work for several who want the same: it runs once, and ends when nobody waits any more."""

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
    """Runs by key. A caller that is cancelled leaves the work to the others; the last one cancels it."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def run(
        self, key: Hashable, work: Callable[[StepOutput], Awaitable[T]], listener: Listener | None = None
    ) -> T:
        """The work's result. Raises what the work raises.

        ``listener``: gets what the work writes to its output, from the beginning, whoever started the work.
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
