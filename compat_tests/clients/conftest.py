"""Fixtures of the tests with registries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.servers.registry import Registry, registry
from compat_tests.support.transfers import new_images_removed


@pytest.fixture(scope="module")
def plain() -> Iterator[Registry]:
    """A registry without TLS and passwords, for the whole module."""
    with registry() as found:
        yield found


@pytest.fixture
def remove_new_images(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove the images that a test added."""
    for name in ("engine", "own_engine"):
        if name in request.fixturenames:
            engine: Engine = request.getfixturevalue(name)
            with new_images_removed(engine):
                yield
            return
    yield
