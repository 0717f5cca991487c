"""Threads for work that waits for somebody else."""

import _thread
import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``asyncio.to_thread`` in a thread of its own.

    For work whose end others decide: a client that sends as it likes, a file system on another host. A few of those
    that stand still would keep all of the loop's threads from everybody. Raises what ``work`` raises.
    """
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(context.run(work, *args, **kwargs))
        except BaseException as error:
            outcome.set_exception(error)

    # ``threading.Thread`` would keep the loop until the thread has begun, which takes its time where much is to do.
    _thread.start_new_thread(run, ())
    return await asyncio.wrap_future(outcome)


async def run_to_completion(work: Awaitable[T], stop: Callable[[], None] = lambda: None) -> T:
    """Awaits what must not be left alone, such as a thread that writes files.

    A caller that is cancelled makes it ``stop``, and goes on when it has; what comes of it then is nobody's.
    """
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
