"""Restart policies: whether and when a container is started again after its exit.

The delay is dockerd's: 100 ms, doubled with each restart up to a minute; 100 ms again after a run of at least ten
seconds.
"""

import asyncio
from dataclasses import dataclass, field

from api_models.resources import RestartPolicy

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
SETTLED = 10.0


def should_restart(policy: RestartPolicy, *, exit_code: int, restarts: int, stopped: bool) -> bool:
    """Whether the policy requires a restart. ``restarts``: how many there were since the last start on request.
    ``stopped``: a client has stopped the container, or the daemon shuts down."""
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
    """The back-off of one container, not stored.

    ``cancelled``: set by a stop and cleared by the next start on request; while it is set, no policy restarts the
    container. ``delay``: in seconds.
    """

    delay: float = 0.0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def next_delay(self, run_seconds: float) -> float:
        """The seconds before the next start. ``run_seconds``: how long the last run took."""
        if run_seconds >= SETTLED:
            self.delay = 0.0
        self.delay = FIRST_DELAY if self.delay == 0.0 else min(self.delay * 2, LONGEST_DELAY)
        return self.delay

    def cancel(self) -> None:
        """Prevents restarts, also one whose delay has begun."""
        self.cancelled.set()

    async def wait(self, seconds: float) -> bool:
        """Waits for ``seconds``; False: the restart was cancelled meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self.cancelled.wait()
        except TimeoutError:
            return True
        return False

    def reset(self) -> None:
        """Begins anew, for a start on request."""
        self.delay = 0.0
        self.cancelled = asyncio.Event()
