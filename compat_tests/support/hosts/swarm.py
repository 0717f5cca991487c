"""A swarm of several hosts: joined with the docker CLI, and what clients see of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from compat_tests.support.hosts.group import Hosts
from compat_tests.support.hosts.host import Host
from compat_tests.support.patience import FACTOR
from compat_tests.support.polling import until

#: Nodes count as down after three periods, in which a slow machine must have sent one.
HEARTBEAT = f"{FACTOR:g}s"
PORT = 2377
LABEL = "com.docker.swarm.service.name"


class Swarm:
    """The first hosts are managers, the others workers."""

    def __init__(self, hosts: Hosts, managers: int) -> None:
        self.hosts = hosts
        self.managers, self.workers = list(hosts)[:managers], list(hosts)[managers:]

    @property
    def first(self) -> Host:
        return self.hosts[0]

    def form(self, *, heartbeat: str = HEARTBEAT) -> None:
        """Make the swarm on the first host; all others join it."""
        first = self.first
        first.docker("swarm", "init", "--advertise-addr", first.address, "--dispatcher-heartbeat", heartbeat)
        # One manager after the other, as administrators do.
        for host in self.managers[1:]:
            self.join(host, "manager")
        self.hosts.each(lambda host: self.join(host, "worker"), self.workers)
        assert settles(lambda: {row["Status"] for row in nodes(first).values()} == {"Ready"}), nodes(first)

    def join(self, host: Host, role: str, *, through: Host | None = None) -> None:
        manager = through or self.first
        token = manager.docker("swarm", "join-token", "-q", role).stdout.strip()
        host.docker("swarm", "join", "--token", token, f"{manager.address}:{PORT}")

    def rejoin(self, host: Host, role: str) -> None:
        """Make a host a node again whose swarm is lost or left; its former node is removed."""
        through = next(manager for manager in self.managers if manager is not host)
        host.docker("swarm", "leave", "--force", check=False)
        for id in through.docker("node", "ls", "-q", "--filter", f"name={host.name}").stdout.split():
            through.docker("node", "demote", id, check=False)
            assert until(partial(_removed, through, id))
        self.join(host, role, through=through)


def _removed(manager: Host, id: str) -> bool:
    return manager.docker("node", "rm", "--force", id, check=False).status == 0


def info(host: Host) -> dict[str, Any]:
    """The section on the swarm of ``docker info``."""
    found: dict[str, Any] = json.loads(host.docker("info", "--format", "{{json .Swarm}}").stdout)
    return found


def nodes(host: Host) -> dict[str, dict[str, str]]:
    """The rows of ``docker node ls``, by host name."""
    rows = host.docker("node", "ls", "--format", "json").stdout.splitlines()
    return {row["Hostname"]: row for row in map(json.loads, rows)}


def listed(host: Host, noun: str) -> list[tuple[str, ...]]:
    """What ``docker <noun> ls`` shows on a manager, in order, as far as it is the same on all of them."""
    shown = {
        "node": "{{.ID}} {{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}",
        "service": "{{.ID}} {{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}",
    }.get(noun, "{{.ID}} {{.Name}}")
    only = ("--filter", "scope=swarm") if noun == "network" else ()
    done = host.docker(noun, "ls", *only, "--format", shown)
    return sorted(tuple(line.split()) for line in done.stdout.splitlines())


def running(hosts: Iterable[Host], service: str) -> dict[str, list[str]]:
    """The running containers of a service, by host: those that exist, whatever the managers know."""
    words = ("ps", "-q", "--no-trunc", "--filter", f"label={LABEL}={service}", "--filter", "status=running")
    return {host.name: host.docker(*words).stdout.split() for host in hosts}


def count(hosts: Iterable[Host], service: str) -> int:
    return sum(map(len, running(hosts, service).values()))


def placed(host: Host, service: str) -> list[tuple[str, str]]:
    """The nodes and states of the tasks that shall run, as a manager knows them."""
    words = ("service", "ps", "--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}", service)
    lines = host.docker(*words, check=False).stdout.splitlines()
    return sorted((line.split()[0], line.split()[1]) for line in lines if len(line.split()) > 1)


def agree(managers: Iterable[Host], noun: str) -> bool:
    """Whether all of these managers show the same."""
    shown = [listed(host, noun) for host in managers]
    return all(each == shown[0] for each in shown)


def leader(hosts: Iterable[Host]) -> Host:
    """The manager that these hosts name as the leader."""
    found: list[Host] = []

    def known() -> bool:
        for host in hosts:
            done = host.docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}", check=False)
            named = [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" Leader")]
            found[:] = [each for each in hosts if each.name in named]
            if found:
                return True
        return False

    assert until(known), "no leader"
    return found[0]


def settles(condition: Callable[[], bool], *, seconds: float = 30) -> bool:
    """``until`` for conditions that ask hosts which may not answer."""

    def holds() -> bool:
        try:
            return condition()
        except (AssertionError, OSError, IndexError):
            return False

    return until(holds, seconds=seconds)
