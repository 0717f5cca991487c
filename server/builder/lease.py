"""The lease that everything a build uses is under. Nobody waits for it longer than needed.

It is made while the build's files come in, and let go of when the client has its answer. A build of which nothing is
asked (clients begin with some, to learn what the engine can do) has none.
"""

import asyncio
import contextlib
from datetime import timedelta

from engine.api.rpc import current_lease
from engine.api.types import Lease
from engine.common.errors import Kind, WharfError
from server.containers.context import Room

#: What a build holds is collected this long after a crash; no build takes longer.
TTL = timedelta(hours=24)


class BuildLease:
    """``begin`` early, ``enter`` in every task that works for the build, ``close`` at the end."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._made: asyncio.Task[Lease] | None = None
        self._over = False

    def begin(self) -> None:
        """Has it made, without waiting. Raises CANCELLED when the build is over."""
        if self._over:
            raise WharfError(Kind.CANCELLED, "the build is over")
        if self._made is None:
            self._made = asyncio.create_task(self._room.engine.leases.operation(ttl=TTL), name="lease of a build")

    async def enter(self) -> None:
        """What this task asks the engine for is held from now on. Raises what making the lease raises."""
        self.begin()
        assert self._made is not None
        current_lease.set((await asyncio.shield(self._made)).id)

    def close(self) -> None:
        """Lets go, in the background: the engine's room waits for it when it closes."""
        self._over = True
        if self._made is not None:
            made, self._made = self._made, None
            self._room.spawn(self._release(made), "end of the lease of a build")

    async def _release(self, made: "asyncio.Task[Lease]") -> None:
        # What cannot be let go of now goes when the daemon starts the next time, or by its age.
        with contextlib.suppress(WharfError):
            await self._room.engine.leases.delete((await made).id)
