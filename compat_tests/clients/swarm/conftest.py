"""An engine that is a swarm of one node, for one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support import engines
from compat_tests.support.engines import Engine

INIT = ("swarm", "init", "--advertise-addr", "127.0.0.1")


@pytest.fixture(scope="module")
def swarm(own_engine: Engine) -> Iterator[Engine]:
    own_engine.load_busybox()
    own_engine.docker(*INIT)
    yield own_engine
    own_engine.docker("swarm", "leave", "--force")


@pytest.fixture(scope="module")
def oracle_swarm() -> Iterator[Engine]:
    """dockerd as a swarm of one node, in a network namespace of its own."""
    with engines.running("dockerd", "swarmref") as engine:
        engine.docker(*INIT)
        yield engine
        engine.docker("swarm", "leave", "--force")
