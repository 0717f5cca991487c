"""The time of the controllers. Tests have a clock of their own, which they set."""

import asyncio
import time
from typing import Protocol

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
