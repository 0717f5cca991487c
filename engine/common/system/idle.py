"""When nothing has been asked of a daemon for a moment, the free pages within its heap go back to the kernel.

After a start, a build or a pull there are many, and glibc itself gives back only what is free at the heap's end.
"""

import asyncio
import contextlib

from engine.common.system import heap

# Seconds without a request. A program that asks in turn never comes to rest; a person does.
IDLE_SECONDS = 1.0

_last = 0.0
_timer: asyncio.TimerHandle | None = None


def request_received() -> None:
    """Something was asked of this process, in whose loop this is called: cheap, to be called for each request."""
    global _last, _timer
    loop = asyncio.get_running_loop()
    _last = loop.time()
    if _timer is None:
        _timer = loop.call_later(IDLE_SECONDS, _trim_when_idle, loop)


def _trim_when_idle(loop: asyncio.AbstractEventLoop) -> None:
    global _timer
    left = _last + IDLE_SECONDS - loop.time()
    if left > 0 or heap.transfer_running():
        # What a transfer has used it needs again.
        _timer = loop.call_later(left if left > 0 else IDLE_SECONDS, _trim_when_idle, loop)
        return
    _timer = None
    with contextlib.suppress(RuntimeError):  # the daemon is ending, and its threads are gone
        loop.run_in_executor(None, heap.trim)
