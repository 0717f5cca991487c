"""Which container a process belongs to, with real processes and cgroups."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from api_models.container import ContainerConfig, HostConfig
from engine.common.system.processes import start_time
from server.containers.host.membership import container_of
from server.containers.model import Container
from server.containers.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

ID = "5e" * 32


@dataclass(slots=True)
class Cgroups:
    """Cgroups with the name of a container, and processes in them."""

    base: Path
    stack: ExitStack

    def make(self, below: str) -> Path:
        path = self.base / below / ID
        for each in (path.parent, path):
            if not each.is_dir():
                each.mkdir()
                self.stack.callback(each.rmdir)
        return path

    def process(self, cgroup: Path) -> int:
        process = subprocess.Popen(["sleep", "600"])
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        return process.pid


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    base = Path("/sys/fs/cgroup/pids")
    base = base if base.is_dir() else Path("/sys/fs/cgroup")
    with ExitStack() as stack:
        yield Cgroups(base, stack)


@pytest.fixture
def container() -> Container:
    return Container(id=ID, name="web", created_ns=1, config=ContainerConfig.parse({}), host_config=HostConfig())


def registry_of(container: Container) -> Registry:
    registry = Registry()
    registry.add(container)
    return registry


def test_a_process_of_a_running_container(cgroups: Cgroups, container: Container) -> None:
    registry, cgroup = registry_of(container), cgroups.make(f"test-{os.getpid()}")
    first, other = cgroups.process(cgroup), cgroups.process(cgroup)
    container.state.running, container.state.pid, container.state.pid_started = True, first, start_time(first)
    assert container_of(registry, first) is container
    assert container_of(registry, other) is container
    assert container_of(registry, os.getpid()) is None


def test_a_process_that_asks_during_the_start(cgroups: Cgroups, container: Container) -> None:
    """The process runs before the daemon has the answer to the start, and its uid may be 0."""
    registry, first = registry_of(container), cgroups.process(cgroups.make(f"test-{os.getpid()}"))
    container.starting = first, start_time(first)
    assert container_of(registry, first) is container


def test_a_process_that_its_container_has_left(cgroups: Cgroups, container: Container) -> None:
    """The first process has exited, in a pid namespace that is not its own; or another process has its pid."""
    registry, cgroup = registry_of(container), cgroups.make(f"test-{os.getpid()}")
    first, other = cgroups.process(cgroup), cgroups.process(cgroup)
    for pid, started in ((0, 0), (first, start_time(first) - 1), (os.getpid(), start_time(os.getpid()))):
        container.state.running, container.state.pid, container.state.pid_started = bool(pid), pid, started
        with pytest.raises(ProcessLookupError):
            container_of(registry, other)
    container.state.pid, container.state.pid_started = first, start_time(first)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # it is a zombie then
    with pytest.raises(ProcessLookupError):
        container_of(registry, other)


def test_a_cgroup_with_the_name_of_a_container(cgroups: Cgroups, container: Container) -> None:
    """A user may create cgroups in those that are delegated to the user."""
    registry = registry_of(container)
    first = cgroups.process(cgroups.make(f"test-{os.getpid()}"))
    hostile = cgroups.process(cgroups.make(f"test-{os.getpid()}/user"))
    container.state.running, container.state.pid, container.state.pid_started = True, first, start_time(first)
    assert container_of(registry, hostile) is None
