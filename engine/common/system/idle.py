"""Returns free heap pages to the kernel when a daemon has had no request for a moment.

Many pages are free after a start, a build or a pull, and glibc itself returns only those at the heap's end.
"""

import asyncio
import contextlib

from engine.common.system import heap

# Seconds without a request after which the daemon is idle.
IDLE_SECONDS = 1.0

_last = 0.0
_timer: asyncio.TimerHandle | None = None


def request_received() -> None:
    """Restarts the idle timer; call it in the loop for each request. It costs little."""
    global _last, _timer
    loop = asyncio.get_running_loop()
    _last = loop.time()
    if _timer is None:
        _timer = loop.call_later(IDLE_SECONDS, _trim_when_idle, loop)


def _trim_when_idle(loop: asyncio.AbstractEventLoop) -> None:
    global _timer
    left = _last + IDLE_SECONDS - loop.time()
    if left > 0 or heap.transfer_running():
        # A running transfer would need the memory again.
        _timer = loop.call_later(left if left > 0 else IDLE_SECONDS, _trim_when_idle, loop)
        return
    _timer = None
    with contextlib.suppress(RuntimeError):  # the daemon is ending, and its executor is shut down
        loop.run_in_executor(None, heap.trim)
