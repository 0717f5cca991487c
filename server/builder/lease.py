"""The lease of a build: it holds everything that the build reads or writes in the engine.

The lease is created while the client still sends files, and deleted in the background after the answer. A build that
requests nothing (clients start some to query the engine's features) creates no lease.
"""

import asyncio
import contextlib
from datetime import timedelta

from engine.api.rpc import current_lease
from engine.api.types import Lease
from engine.common.errors import Kind, WharfError
from server.containers.context import ContainerContext

#: After a crash, the collector removes what a build held after this time. No build takes longer.
TTL = timedelta(hours=24)


class BuildLease:
    """Call ``begin`` early, ``enter`` in every task that works for the build, and ``close`` at the end."""

    def __init__(self, container_context: ContainerContext) -> None:
        self._container_context = container_context
        self._lease: asyncio.Task[Lease] | None = None
        self._closed = False

    def begin(self) -> None:
        """Start creating the lease, without waiting. Raises CANCELLED after ``close``."""
        if self._closed:
            raise WharfError(Kind.CANCELLED, "the build has ended")
        if self._lease is None:
            self._lease = asyncio.create_task(
                self._container_context.engine.leases.create_temporary(ttl=TTL), name="lease of a build"
            )

    async def enter(self) -> None:
        """Make the engine calls of this task use the lease. Raises what creating the lease raises."""
        self.begin()
        assert self._lease is not None
        current_lease.set((await asyncio.shield(self._lease)).id)

    def close(self) -> None:
        """Delete the lease in the background; the server waits for that task when it stops."""
        self._closed = True
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._container_context.spawn(self._release(lease), "end of the lease of a build")

    async def _release(self, lease: "asyncio.Task[Lease]") -> None:
        # A lease that can't be deleted now is deleted at the next start, or expires.
        with contextlib.suppress(WharfError):
            await self._container_context.engine.leases.delete((await lease).id)
