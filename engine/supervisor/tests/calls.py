"""Calls of a server: their types, and the check of those that fail."""

from collections.abc import Callable, Coroutine

import pytest

from engine.api.client import Engine
from engine.common.errors import Kind, WharfError

Body = Callable[[Engine], Coroutine[None, None, None]]
Run = Callable[[Body], None]
#: (namespace, snapshotter) → a client.
Connect = Callable[[str, str], Engine]


async def fails(kind: Kind, work: Coroutine[None, None, object]) -> WharfError:
    with pytest.raises(WharfError) as caught:
        await work
    assert caught.value.kind is kind, caught.value
    return caught.value
