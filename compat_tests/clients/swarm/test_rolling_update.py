"""Rolling updates under load: no request is lost, through the routing mesh and through the virtual address."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from compat_tests.clients.swarm.test_services import containers
from compat_tests.support.engines import Engine
from compat_tests.support.http_load import SERVER, load
from compat_tests.support.polling import until

HEALTHY = ("--health-cmd", "wget -qO- http://127.0.0.1/", "--health-interval", "200ms")
#: Requests per second of each of the two loads.
RATE = 60


@pytest.fixture
def web(swarm: Engine) -> Iterator[str]:
    swarm.docker("network", "create", "-d", "overlay", "--attachable", "front")
    yield "web"
    swarm.docker("service", "rm", "web", check=False)
    swarm.docker("rm", "-f", "client", check=False)
    assert until(lambda: not containers(swarm, "web", everything=True))
    swarm.docker("network", "rm", "front")


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_no_request_is_lost(swarm: Engine, web: str, order: str) -> None:
    swarm.docker(
        "service", "create", "-q", "--name", web, "--replicas", "3", "--network", "front", "-p", "80", "--init",
        "--update-order", order, "--update-monitor", "200ms", *HEALTHY, "--env", "VERSION=1",
        "busybox", "sh", "-c", SERVER,
    )  # fmt: skip
    shown = json.loads(swarm.docker("service", "inspect", web).stdout)[0]["Endpoint"]
    port = shown["Ports"][0]["PublishedPort"]
    swarm.docker("run", "-d", "--name", "client", "--network", "front", "--init", "busybox", "sleep", "1000")
    front = swarm.docker("network", "inspect", "-f", "{{.Id}}", "front").stdout.strip()
    virtual = next(each["Addr"] for each in shown["VirtualIPs"] if each["NetworkID"] == front).partition("/")[0]
    pid = swarm.docker("inspect", "-f", "{{.State.Pid}}", "client").stdout.strip()
    inside = ("nsenter", "--target", pid, "--net")
    with load("127.0.0.1", port, rate=RATE) as mesh, load(virtual, 80, rate=RATE, enter=inside) as local:
        assert "converged" in swarm.docker("service", "update", "--env-add", "VERSION=2", web).stdout
    for name, each in (("mesh", mesh), ("virtual address", local)):
        assert not each.failures, f"{name}: {len(each.failures)} of {sum(each.answers.values())}: {each.failures[:9]}"
        assert set(each.answers) == {"1", "2"}
