"""The controllers of a swarm that may have nothing for them to do: one node, and no service. They are loaded, and run,
from the first change on that concerns them; they need 0.6 MiB."""

import asyncio
from importlib import import_module

from server.swarm.state.state import State


class DeferredControllers:
    """See ``runner.Controllers``."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def run(self) -> None:
        """Runs until it is cancelled."""
        subscription = self._state.subscribe()
        try:
            while not self._needed():
                await subscription.next()
        finally:
            subscription.close()
        await asyncio.to_thread(import_module, "server.swarm.controllers.runner")
        from server.swarm.controllers.runner import Controllers

        # They begin with the whole state: no change is lost meanwhile.
        await Controllers(self._state).run()

    def _needed(self) -> bool:
        tables = self._state.tables
        return len(tables.nodes) > 1 or len(tables.services) > 0 or len(tables.tasks) > 0
