"""SIGUSR1: a daemon tells what it is doing, as dockerd and containerd do, on its standard error.

First what each thread does, which is told even while the loop is stuck, then what each task waits for.
"""

import asyncio
import faulthandler
import signal
import sys
from types import CoroutineType
from typing import Any, TextIO


def dump_on_sigusr1(loop: asyncio.AbstractEventLoop) -> None:
    """Until the loop ends. To be called on its thread."""
    loop.add_signal_handler(signal.SIGUSR1, write_tasks, sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True, chain=True)


def write_tasks(out: TextIO) -> None:
    """All tasks of the running loop, each with the whole chain of what it awaits."""
    for task in asyncio.all_tasks():
        lines = "".join(f"  {line}\n" for line in _chain(task.get_coro()))
        out.write(f"Task {task.get_name()}:\n{lines}")
    out.flush()


def _chain(awaited: Any) -> list[str]:
    lines: list[str] = []
    while awaited is not None:
        if isinstance(awaited, CoroutineType):
            frame, after = awaited.cr_frame, awaited.cr_await
        else:  # what an asynchronous generator waits for is not to be seen from outside
            frame, after = getattr(awaited, "ag_frame", None), getattr(awaited, "ag_await", None)
        if frame is None:
            lines.append(repr(awaited))
        else:
            lines.append(f'File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_qualname}')
        awaited = after
    return lines
