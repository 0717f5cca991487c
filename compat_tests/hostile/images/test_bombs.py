"""Small bombs of every kind, on every path; ``python -m compat_tests.hostile.images.bombs`` runs those of 10 GiB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.hostile.images.bombs import PACK, WAYS, bomb, try_bomb
from compat_tests.support.engines import Engine
from compat_tests.support.servers.registry import Registry, registry

SIZE = 32 << 20


@pytest.fixture(scope="module")
def source() -> Iterator[Registry]:
    with registry() as running:
        yield running


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("shape", ["file", "padding"])
def test_a_bomb_is_bounded(own_engine: Engine, source: Registry, kind: str, shape: str) -> None:
    bomb_file = bomb(kind, shape, SIZE)
    for way in WAYS:
        try_bomb(own_engine, source, way, bomb_file)
