"""Three managers and two workers, for all modules of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from compat_tests.endurance.swarm.experiment import DISKS
from compat_tests.support.hosts.group import hosts
from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import Swarm, settles


@pytest.fixture(scope="package")
def kind(request: pytest.FixtureRequest) -> str:
    return "dockerd" if request.config.getoption("--engine") == "dockerd" else "wharf"


@pytest.fixture(scope="package")
def whole(kind: str) -> Iterator[Swarm]:
    with hosts(5, kind=kind, disks=DISKS) as five:
        swarm = Swarm(five, managers=3)
        swarm.form()
        yield swarm


@pytest.fixture
def swarm(whole: Swarm) -> Iterator[Swarm]:
    """The swarm; its services, networks, secrets and configs are removed after the test."""
    yield whole
    for noun in ("service", "secret", "config"):
        if found := whole.first.docker(noun, "ls", "-q").stdout.split():
            whole.first.docker(noun, "rm", *found)
    assert settles(lambda: not any(whole.hosts.each(lambda host: host.docker("ps", "-aq").stdout)))
    shown = ("network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}")
    for network in set(whole.first.docker(*shown).stdout.split()) - {"ingress"}:
        assert settles(partial(_removed, whole.first, network))


def _removed(host: Host, network: str) -> bool:
    return host.docker("network", "rm", network, check=False).status == 0


@pytest.fixture
def balancing(kind: str) -> None:
    """Skips a test on dockerd where the kernel lacks its load balancer."""
    if kind == "dockerd" and not Path("/proc/net/ip_vs").exists():
        pytest.skip("dockerd needs ip_vs")
