"""The checks of a swarm under faults, on hosts that answer as the test says."""

from __future__ import annotations

from typing import cast

from compat_tests.endurance.swarm.mesh import REPLICAS, Mesh
from compat_tests.support.daemons import Completed
from compat_tests.support.hosts.group import Hosts
from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.segment import Segment
from compat_tests.support.hosts.swarm import LABEL, Swarm

WEB = [f"{number:064}" for number in range(REPLICAS)]
_RESOLVED = "Address: server\n" + "Address: task\n" * REPLICAS


class Answering:
    """A host with all containers of ``web``. From the second look at them on, it runs two containers of ``each``: its
    session ended for a moment, and the successor starts while the task stops."""

    name, address = "host1", "192.0.2.1"

    def __init__(self) -> None:
        self._looks = 0

    def docker(self, *args: str, check: bool = True) -> Completed:
        if args[0] == "exec":
            assert args[1] == "first"
            return Completed(args, 0, f"{WEB[0][:12]}\n{_RESOLVED}", "")
        if f"label={LABEL}=web" in args:
            return Completed(args, 0, "\n".join(WEB), "")
        self._looks += 1
        return Completed(args, 0, "first" if self._looks == 1 else "first\nsecond", "")

    def fetch(self, host: str, port: int) -> str:
        return WEB[1][:12]


def test_a_container_that_starts_during_the_check() -> None:
    hosts = Hosts(cast(Segment, None), [cast(Host, Answering())])
    swarm = Swarm(hosts, managers=1)
    assert Mesh().wrong(swarm) == []
    assert Mesh().wrong(swarm) == ["each has 2 containers on host1"]
