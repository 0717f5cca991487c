"""An engine that is a swarm of one node, for one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support.engines import Engine


@pytest.fixture(scope="module")
def swarm(own_engine: Engine) -> Iterator[Engine]:
    own_engine.load_busybox()
    own_engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield own_engine
    own_engine.docker("swarm", "leave", "--force")
