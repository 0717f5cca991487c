"""SIGUSR1 makes a daemon write its stacks to its standard error, as dockerd and containerd do.

First the stack of each thread, which is written even while the loop is blocked, then the stack of each task.
"""

import asyncio
import faulthandler
import signal
import sys
from types import CoroutineType
from typing import Any, TextIO


def dump_on_sigusr1(loop: asyncio.AbstractEventLoop) -> None:
    """Installs the signal handlers until the loop ends. Call it on the loop's thread."""
    loop.add_signal_handler(signal.SIGUSR1, write_tasks, sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True, chain=True)


def write_tasks(out: TextIO) -> None:
    """Writes all tasks of the running loop, each with its chain of awaits."""
    for task in asyncio.all_tasks():
        lines = "".join(f"  {line}\n" for line in _chain(task.get_coro()))
        out.write(f"Task {task.get_name()}:\n{lines}")
    out.flush()


def _chain(awaited: Any) -> list[str]:
    lines: list[str] = []
    while awaited is not None:
        if isinstance(awaited, CoroutineType):
            frame, after = awaited.cr_frame, awaited.cr_await
        else:  # the await of an asynchronous generator is not accessible
            frame, after = getattr(awaited, "ag_frame", None), getattr(awaited, "ag_await", None)
        if frame is None:
            lines.append(repr(awaited))
        else:
            lines.append(f'File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_qualname}')
        awaited = after
    return lines
