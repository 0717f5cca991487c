"""Concurrent work that raises a single error: a task group raises an exception group, whose text clients can't use."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def first_error() -> Iterator[None]:
    """Raises the first error of a task group's exception group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def run_all(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all steps concurrently; the first failure cancels the others and is raised."""
    with first_error():
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
