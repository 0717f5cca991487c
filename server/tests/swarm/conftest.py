"""A daemon over the fake engine, which has the image busybox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.tests.daemon import Daemon, serving


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with serving(tmp_path) as running:
        running.load("busybox:latest")
        yield running
