"""Errors of concurrent work."""

import asyncio

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.system.task_groups import run_all


def test_the_first_error_is_raised_as_it_is() -> None:
    ended: list[str] = []

    async def fails() -> None:
        raise WharfError(Kind.UNAVAILABLE, "away")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(WharfError, match="away"):
        asyncio.run(run_all([waits(), fails()]))
    assert ended == ["cancelled"]
