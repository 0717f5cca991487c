"""The networks and containers of one test, removed at its end."""

from __future__ import annotations

import ipaddress
from typing import Any

from compat_tests.support.containers import inspect
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until


class Scenario:
    """Creates a test's networks and containers under names of its own."""

    def __init__(self, engine: Engine, prefix: str) -> None:
        self.engine, self.prefix = engine, prefix
        self.containers: list[str] = []
        self.networks: list[str] = []
        pool = engine.resources.pool.partition("=")[2].partition(",")[0]
        # The upper half of the engine's range: networks without a subnet get the lower half.
        self._subnets = list(ipaddress.IPv4Network(pool).subnets(new_prefix=26))[::-1]

    def name(self, name: str) -> str:
        """Return the full name of an object, which no other test uses."""
        return f"{self.prefix}-{name}"

    def subnet(self, number: int = 0) -> ipaddress.IPv4Network:
        """Return a subnet that the engine does not assign itself."""
        return self._subnets[number]

    def network(self, name: str, *args: str) -> str:
        """Create a network; return its id."""
        full = self.name(name)
        self.networks.append(full)
        return self.engine.docker("network", "create", *args, full).stdout.strip()

    def run(self, name: str, *args: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        """Run a container in the background; return its id."""
        full = self.name(name)
        self.containers.append(full)
        return self.engine.docker("run", "-d", "--name", full, *args, "busybox", *command).stdout.strip()

    def exec(self, name: str, *argv: str, check: bool = True) -> str:
        """Return the output of a command in a container."""
        return self.engine.docker("exec", self.name(name), *argv, check=check).output

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what inspect answers for a container."""
        return inspect(self.engine, self.name(name))

    def endpoint(self, name: str, network: str) -> dict[str, Any]:
        """Return the endpoint of a container on a network."""
        found: dict[str, Any] = self.inspect(name)["NetworkSettings"]["Networks"][network]
        return found

    def clear(self) -> None:
        """Remove the containers, then the networks."""
        for container in self.containers:
            self.engine.api.delete(f"/containers/{container}", force=1)
        for network in self.networks:
            self.engine.api.delete(f"/networks/{network}")


SERVE = ("sh", "-c", "mkdir /w; hostname >/w/index.html; exec httpd -f -h /w -p 80")


def fetch(scenario: Scenario, client: str, url: str) -> str:
    """Fetch from a server that may still be starting."""
    answer = ""

    def served() -> bool:
        nonlocal answer
        answer = scenario.exec(client, "wget", "-T", "20", "-qO-", url, check=False)
        return "wget:" not in answer

    until(served)
    return answer.strip()
