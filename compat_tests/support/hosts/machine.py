"""The namespaces of one host, held by an init process."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Protocol

from compat_tests.support.daemons import STOP, Completed, run_program
from compat_tests.support.host.processes import MARK

# The end of its input, which comes with the end of the test run, ends init. The engine is ended by its own pid.
_INIT = "set -e; ip link set lo up; {steps}\necho ready; exec cat"
# No DNS server answers there, so names of the internet are refused at once.
_RESOLVER = "nameserver 127.0.0.1\n"


class Port(Protocol):
    """A port of the segment."""

    @property
    def address(self) -> str: ...

    @property
    def names(self) -> str:
        """The addresses and names of all machines of the segment, as lines of /etc/hosts."""

    def plug(self, machine: Namespaces) -> None:
        """Connect the machine, whose namespaces exist: its interface is ``eth0``."""


class Namespaces:
    """A network, a UTS and a mount namespace."""

    def __init__(self, name: str, mark: str) -> None:
        self.name, self.mark = name, mark
        self._init: subprocess.Popen[bytes] | None = None

    def open(self, *steps: str) -> None:
        """Make the namespaces, and run commands of the shell in them.

        :raises AssertionError: a command fails.
        """
        script = _INIT.format(steps="; ".join(["busybox hostname " + self.name, *steps]))
        argv = ["unshare", "--net", "--uts", "--mount", "--propagation", "private", "sh", "-c", script]
        self._init = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, MARK: self.mark},
            start_new_session=True,
        )
        assert self._init.stdout is not None
        output = b""
        while line := self._init.stdout.readline():
            if line == b"ready\n":
                return
            output += line
        self.close()
        raise AssertionError(f"{self.name}: {output.decode(errors='replace')}")

    @property
    def running(self) -> bool:
        return self._init is not None

    @property
    def pid(self) -> int:
        assert self._init is not None, f"{self.name} is not open"
        return self._init.pid

    @property
    def enter(self) -> list[str]:
        """The start of a command that runs a program in the namespaces; the program gets the pid of the command."""
        return ["nsenter", "--target", str(self.pid), "--net", "--uts", "--mount", "--"]

    def run(self, *argv: str, input: str = "", check: bool = True, timeout: float = 60) -> Completed:
        """Run a program of the machine in the namespaces."""
        return run_program(
            [*self.enter, *argv], env=dict(os.environ), input=input.encode(), check=check, timeout=timeout
        )

    def path(self, path: Path) -> Path:
        """The path by which the machine reaches a file of the mount namespace."""
        return Path(f"/proc/{self.pid}/root{path}")

    def close(self) -> None:
        """End init. The namespaces end with the last process in them."""
        init, self._init = self._init, None
        if init is not None:
            for stream in (init.stdin, init.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            init.kill()
            init.wait(STOP)


class Machine(Namespaces):
    """The namespaces of a host with an engine, and its place on the segment."""

    def __init__(self, name: str, mark: str, root: Path, port: Port, *, disk: str = "") -> None:
        """``disk``: the size of a file system for the engine's data root, such as "64m"; "": it has none."""
        super().__init__(name, mark)
        self._root, self._port, self._disk = root, port, disk

    @property
    def address(self) -> str:
        """The address of its interface ``eth0``."""
        return self._port.address

    @property
    def has_disk(self) -> bool:
        return bool(self._disk)

    def boot(self) -> None:
        """Make the namespaces with a /run, an /etc/hosts and an /etc/resolv.conf of their own, and connect them."""
        etc = self._root / "etc"
        etc.mkdir(exist_ok=True)
        (etc / "hosts").write_text("127.0.0.1 localhost\n" + self._port.names)
        (etc / "resolv.conf").write_text(_RESOLVER)
        steps = ["mount -t tmpfs -o mode=755 tmpfs /run"]
        for name in ("hosts", "resolv.conf"):
            # It may be a link into /run.
            place = os.path.realpath(f"/etc/{name}")
            steps += [f"mkdir -p {os.path.dirname(place)}", f"touch {place}", f"mount --bind {etc / name} {place}"]
        if self._disk:
            data, image = self._root / "data", self._root / "data.img"
            data.mkdir(exist_ok=True)
            if not image.exists():
                make = f"truncate -s {self._disk} {image} && mkfs.ext4 -q -m 0 {image}"
                subprocess.run(["sh", "-c", make], check=True, capture_output=True, timeout=60)
            steps.append(f"mount -o loop {image} {data}")
        self.open(*steps)
        self._port.plug(self)
