"""An engine on a host of its own, and what can happen to the host."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Dockerd, Engine, Wharf
from compat_tests.support.host.processes import Process
from compat_tests.support.host.resources import EngineResources
from compat_tests.support.hosts.machine import Machine

#: The daemons of a host by their names in /proc, except the API daemon: etcd, containerd's place, containerd.
DAEMONS = ("etcd", "wharf-supervisor", "wharf-zygote", "containerd")
_CHUNK = bytes(1 << 20)


class Host(Engine):
    """What an engine on a host has beside other engines."""

    machine: Machine

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def address(self) -> str:
        return self.machine.address

    @property
    def daemon_name(self) -> str:
        """The name of the API daemon for ``kill``."""
        return "dockerd" if self.kind == "dockerd" else "wharfd"

    @property
    def supervisor_name(self) -> str:
        return "containerd" if self.kind == "dockerd" else "wharf-supervisor"

    @property
    def has_disk(self) -> bool:
        """Whether the data root has a file system of its own."""
        return self.machine.has_disk

    @property
    def data(self) -> Path:
        """The data root, as the host sees it."""
        return self.machine.path(self.resources.root / "data")

    def run_in_netns(
        self, *argv: str, env: Mapping[str, str] | None = None, check: bool = True, timeout: float = 90
    ) -> Completed:
        return self.run(*self.machine.enter, *argv, env=env, check=check, timeout=timeout)

    def fetch(self, host: str, port: int, *, seconds: int = 5) -> str:
        """The body that an HTTP server answers to this host; "" without an answer."""
        url = f"http://{host}:{port}/"
        done = self.run_in_netns("busybox", "wget", "-q", "-T", str(seconds), "-O", "-", url, check=False)
        return done.stdout if done.status == 0 else ""

    def freeze(self, *names: str) -> None:
        """Stop the API daemon and the processes of these names with SIGSTOP; without names, those of ``DAEMONS``."""
        self._signal(names or DAEMONS, signal.SIGSTOP)

    def thaw(self, *names: str) -> None:
        self._signal(names or DAEMONS, signal.SIGCONT)

    def _signal(self, names: Sequence[str], number: int) -> None:
        for process in self._daemons(names):
            process.signal(number)
        if self.daemon.running:
            os.kill(self.daemon.pid, number)

    def _daemons(self, names: Sequence[str]) -> list[Process]:
        return [process for name in names for process in self.find(name)]

    def power_off(self) -> None:
        """End all processes of the host with SIGKILL, containers too, and its namespaces, as a power failure does."""
        self.end_all()
        self.machine.close()
        self.resources.footprint.remove()
        # It stands for /run.
        shutil.rmtree(self.resources.root / "run", ignore_errors=True)

    def power_on(self) -> None:
        """Boot it again: with the files that it had, and empty namespaces."""
        self.machine.boot()
        self.daemon.argv[: len(self.machine.enter)] = self.machine.enter
        self.start()

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fill the data root during the block; only of a host with a file system of its own for it."""
        filler = self.data / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(_CHUNK)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            yield
        finally:
            filler.unlink()

    def start_again(self) -> None:
        """Start the API daemon, and before it the host, if it has ended."""
        self.thaw()
        if not self.machine.running:
            self.power_on()
        elif not self.daemon.running:
            self.start()

    def close(self) -> list[str]:
        """End the engine and the namespaces; returns what a clean stop should not have left."""
        try:
            self.thaw()
            return self.destroy()
        finally:
            self.machine.close()


class WharfHost(Host, Wharf):
    """Wharf on a host."""

    def __init__(self, resources: EngineResources, machine: Machine, args: Sequence[str]) -> None:
        super().__init__(resources, args, containerd=None, enter=machine.enter)
        self.machine = machine


class DockerdHost(Host, Dockerd):
    """Debian's dockerd on a host."""

    def __init__(self, resources: EngineResources, machine: Machine, args: Sequence[str]) -> None:
        super().__init__(resources, args, enter=machine.enter)
        self.machine = machine

    def start(self) -> None:
        self.netns = Path(f"/proc/{self.machine.pid}/ns/net")
        super().start()
