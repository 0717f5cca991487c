"""What one test of networks makes on an engine, removed at its end."""

from __future__ import annotations

import ipaddress
from typing import Any

from compat_tests.support.engines import Engine
from compat_tests.support.polling import until


class Stage:
    """Creates a test's objects under names of its own; removes them at the end."""

    def __init__(self, engine: Engine, prefix: str) -> None:
        self.engine, self.prefix = engine, prefix
        self.containers: list[str] = []
        self.networks: list[str] = []
        pool = engine.resources.pool.partition("=")[2].partition(",")[0]
        # The upper half of the engine's range: networks without a subnet get the lower half.
        self._subnets = list(ipaddress.IPv4Network(pool).subnets(new_prefix=26))[::-1]

    def name(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def subnet(self, number: int = 0) -> ipaddress.IPv4Network:
        return self._subnets[number]

    def network(self, name: str, *args: str) -> str:
        full = self.name(name)
        self.networks.append(full)
        return self.engine.docker("network", "create", *args, full).stdout.strip()

    def api_network(self, name: str, **fields: object) -> str:
        full = self.name(name)
        self.networks.append(full)
        answer = self.engine.api.post("/networks/create", {"Name": full, **fields})
        assert answer.status == 201, answer.body
        return str(answer.json()["Id"])

    def run(self, name: str, *args: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        full = self.name(name)
        self.containers.append(full)
        return self.engine.docker("run", "-d", "--name", full, *args, "busybox", *command).stdout.strip()

    def exec(self, name: str, *argv: str, check: bool = True) -> str:
        return self.engine.docker("exec", self.name(name), *argv, check=check).output

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.api.get(f"/containers/{self.name(name)}/json").json()
        return found

    def endpoint(self, name: str, network: str) -> dict[str, Any]:
        found: dict[str, Any] = self.inspect(name)["NetworkSettings"]["Networks"][network]
        return found

    def clear(self) -> None:
        for container in self.containers:
            self.engine.api.delete(f"/containers/{container}", force=1)
        for network in self.networks:
            self.engine.api.delete(f"/networks/{network}")


SERVE = ("sh", "-c", "mkdir /w; hostname >/w/index.html; exec httpd -f -h /w -p 80")


def fetch(stage: Stage, client: str, url: str) -> str:
    """Fetch from a server that may still be starting."""
    answer = ""

    def served() -> bool:
        nonlocal answer
        answer = stage.exec(client, "wget", "-T", "20", "-qO-", url, check=False)
        return "wget:" not in answer

    until(served)
    return answer.strip()
