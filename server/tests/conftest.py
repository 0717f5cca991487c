"""Fixtures of wharfd's unit tests: the daemon over the fake engine (``server/tests/daemon.py``)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.tests.daemon import Daemon, serving


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One that has nothing yet."""
    with serving(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for the whole module: for tables of requests that change nothing. It has the image busybox and two
    containers, created and running."""
    with serving(tmp_path_factory.mktemp("daemon")) as running:
        running.load("busybox:latest")
        running.create("created")
        running.run("running")
        yield running
