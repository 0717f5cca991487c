"""Fixtures of the tests with registries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support.servers.registry import Registry, registry


@pytest.fixture(scope="module")
def plain_registry() -> Iterator[Registry]:
    """A registry without TLS and passwords, for the whole module."""
    with registry() as server:
        yield server
