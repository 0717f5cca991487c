"""Restart policies: whether a container that has ended is started again, and when.

The delay is dockerd's: 100 ms, doubled with each restart up to a minute, back to 100 ms after a run of at least
ten seconds.
"""

import asyncio
from dataclasses import dataclass, field

from api_models.resources import RestartPolicy

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
SETTLED = 10.0


def should_restart(policy: RestartPolicy, *, exit_code: int, restarts: int, stopped: bool) -> bool:
    """Whether the policy wants another run. ``stopped``: somebody stopped it, or the daemon is going down."""
    match policy.name:
        case "always":
            return True
        case "unless-stopped":
            return not stopped
        case "on-failure":
            most = policy.maximum_retry_count
            return exit_code != 0 and (most == 0 or restarts < most)
    return False


@dataclass(slots=True)
class Restarts:
    """The back-off of one container, kept while the daemon lives.

    ``cancelled`` is set by a stop and cleared by the next start on request: a cancelled container is not
    started again, whatever its policy.
    """

    delay: float = 0.0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def next_delay(self, run_seconds: float) -> float:
        """Seconds to wait before the next start."""
        if run_seconds >= SETTLED:
            self.delay = 0.0
        self.delay = FIRST_DELAY if self.delay == 0.0 else min(self.delay * 2, LONGEST_DELAY)
        return self.delay

    def cancel(self) -> None:
        """No restart, also not the one that is being waited for."""
        self.cancelled.set()

    async def wait(self, seconds: float) -> bool:
        """Waits for the next start; False if it was cancelled meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self.cancelled.wait()
        except TimeoutError:
            return True
        return False

    def reset(self) -> None:
        """A start on request: a new life."""
        self.delay = 0.0
        self.cancelled = asyncio.Event()
