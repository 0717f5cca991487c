"""The time of the controllers. Tests have a clock of their own, which they set."""

import asyncio
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Sequence
from typing import Protocol

from server.swarm.state.state import Event, Subscription

SECOND = 1_000_000_000


class Clock(Protocol):
    def now(self) -> int:
        """ns since the epoch."""

    async def sleep_until(self, moment: int) -> None:
        """Returns at ``moment``, in ns since the epoch, or earlier."""


class SystemClock:
    def now(self) -> int:
        return time.time_ns()

    async def sleep_until(self, moment: int) -> None:
        # Not for longer, because the wall clock may be set meanwhile.
        await asyncio.sleep(min(max(moment - self.now(), 0) / SECOND, 60))


async def changes_until(moment: int | None, subscription: Subscription, clock: Clock) -> Sequence[Event]:
    """The next changes; none if ``moment``, in ns since the epoch, comes first (or a little earlier, see ``Clock``)."""
    changes = asyncio.ensure_future(subscription.next())
    waiting: list[asyncio.Future[list[Event]] | asyncio.Future[None]] = [changes]
    if moment is not None:
        waiting.append(asyncio.ensure_future(clock.sleep_until(moment)))
    try:
        await asyncio.wait(waiting, return_when=FIRST_COMPLETED)
        return changes.result() if changes.done() else ()
    finally:
        for each in waiting:
            each.cancel()
