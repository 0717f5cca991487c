"""A reused pid is never taken for the container's process."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.common.system.processes import start_time
from server.containers.run.process import ProcessFiles, namespace_of, process_of
from server.containers.run.tests.test_life import make

pytestmark = pytest.mark.root


def test_only_the_process_itself() -> None:
    container = make()
    container.state.running, container.state.pid = True, os.getpid()
    container.state.pid_started = start_time(os.getpid())
    process_of(container).close()
    assert ProcessFiles(container).read("/etc/passwd") == Path("/etc/passwd").read_bytes()
    with ExitStack() as held:
        path = namespace_of(container, "net", held)
        assert os.stat(path).st_ino == os.stat("/proc/self/ns/net").st_ino
    assert not os.path.exists(path)
    container.state.pid_started -= 1  # the start time of another process with this pid
    for work in (process_of, lambda c: ProcessFiles(c).read("/etc/passwd"), lambda c: namespace_of(c, "net", held)):
        with pytest.raises(ProcessLookupError):
            work(container)
