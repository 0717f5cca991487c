"""Threads for work of unbounded duration."""

import _thread
import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like ``asyncio.to_thread``, in a dedicated thread.

    For work that another party can delay: a slow client, a file system on another host. A few such calls would occupy
    all threads of the loop's pool. Raises what ``work`` raises.
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

    # ``threading.Thread.start`` blocks the loop until the thread runs, which takes long on a busy host.
    _thread.start_new_thread(run, ())
    return await asyncio.wrap_future(outcome)


async def run_to_completion(work: Awaitable[T], stop: Callable[[], None] = lambda: None) -> T:
    """Awaits work that must not be abandoned, such as a thread that writes files.

    If the caller is cancelled, calls ``stop``, waits until the work has ended, and ignores its result.
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
