from collections.abc import Iterator
from pathlib import Path

import pytest

from server.access.sessions import Sessions
from server.tests.daemon import Daemon, serving
from server.ui.application import Page
from server.ui.tests.visitor import Visitor


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with serving(tmp_path, ui="127.0.0.1:9780", ui_names=("lab.example.org",)) as found:
        found.app.sessions = Sessions()
        yield found


@pytest.fixture
def visitor(daemon: Daemon) -> Visitor:
    """Somebody who has not logged in."""
    assert daemon.app.sessions is not None
    return Visitor(daemon, Page(daemon.app, daemon.services, daemon.app.sessions, daemon.services.system.config))
