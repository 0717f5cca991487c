"""Work that is done at once, with errors that a client can read: a task group raises a group of them."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def first_error() -> Iterator[None]:
    """Out of a task group's errors, the one that came first: what a client can read."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def run_all(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at once; the first failure cancels the others and is raised."""
    with first_error():
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
