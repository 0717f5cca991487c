"""Networks of a swarm with the docker CLI: names, published ports, names used again."""

from __future__ import annotations

import json
import urllib.request

import pytest

from compat_tests.clients.swarm.test_services import containers, replicas
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.servers.network_plugins import NetworkPlugin, plugin_name

SERVE = "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"


def test_the_name_of_a_removed_network_is_free_while_its_tasks_stop(swarm: Engine) -> None:
    def network(*words: str) -> int:
        return swarm.docker("network", *words, check=False).status

    swarm.docker("network", "create", "-d", "overlay", "again")
    # As process 1, sleep ignores SIGTERM: the container has its endpoint for three seconds more.
    slow = ("--network", "again", "--stop-grace-period", "3s", "busybox", "sleep", "1000")
    swarm.docker("service", "create", "--name", "former", *slow)
    swarm.docker("service", "rm", "former")
    assert until(lambda: network("rm", "again") == 0)
    assert containers(swarm, "former")
    assert "network again not found" in swarm.docker("network", "inspect", "again", check=False).stderr
    assert "again" not in swarm.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    swarm.docker("network", "create", "-d", "overlay", "again")
    try:
        swarm.docker("service", "create", "-d", "--name", "next", *slow)
        assert until(lambda: replicas(swarm, "next") == "1/1")
    finally:
        swarm.docker("service", "rm", "next", check=False)
        assert until(lambda: not containers(swarm, "next", everything=True))
        swarm.docker("network", "rm", "again")


def test_a_kernel_without_esp_encrypts_no_network(swarm: Engine) -> None:
    plugins = swarm.docker("node", "inspect", "self", "--format", "{{json .Description.Engine.Plugins}}").stdout
    able = {"Type": "Kernel", "Name": "esp"} in json.loads(plugins)
    created = swarm.docker("network", "create", "-d", "overlay", "--opt", "encrypted", "secret", check=False)
    assert (created.status == 0) is able, created.output
    if able:
        swarm.docker("network", "rm", "secret")
    else:
        assert "can't be encrypted on this node: the kernel has no IPsec ESP (CONFIG_INET_ESP" in created.stderr


def test_the_routing_mesh_and_the_virtual_address_reach_all_tasks(swarm: Engine) -> None:
    swarm.docker("network", "create", "-d", "overlay", "--attachable", "front")
    try:
        swarm.docker(
            "service", "create", "--name", "web", "--network", "front", "--replicas", "3", "-p", "80",
            "--init", "busybox", "sh", "-c", SERVE,
        )  # fmt: skip
        tasks = {id[:12] for id in containers(swarm, "web")}
        ask = ("run", "--rm", "--network", "front", "busybox", "sh", "-c")
        loop = "for i in 1 2 3 4 5 6; do wget -qO- http://web/; done"
        assert set(swarm.docker(*ask, loop).stdout.split()) == tasks
        port = swarm.docker("service", "inspect", "-f", "{{(index .Endpoint.Ports 0).PublishedPort}}", "web").stdout
        answers = {
            urllib.request.urlopen(f"http://127.0.0.1:{port.strip()}/").read().decode().strip() for _ in range(6)
        }
        assert answers == tasks
    finally:
        swarm.docker("service", "rm", "web", check=False)
        assert until(lambda: not containers(swarm, "web", everything=True))
        swarm.docker("network", "rm", "front")


@pytest.mark.parametrize("options", [(), ("--scope", "swarm")], ids=["driver", "option"])
def test_a_network_of_a_plugin_with_global_scope(swarm: Engine, oracle_swarm: Engine, options: tuple[str, ...]) -> None:
    def refusal(engine: Engine) -> str:
        with NetworkPlugin(engine, plugin_name(engine, "all"), scope="global") as plugin:
            made = engine.docker("network", "create", "-d", plugin.name, *options, "far", check=False)
            return f"{made.status}: {made.output}".replace(plugin.name, "PLUGIN")

    assert refusal(swarm) == refusal(oracle_swarm)


def test_a_network_of_a_missing_plugin(swarm: Engine, oracle_swarm: Engine) -> None:
    command = ("network", "create", "-d", "nothing", "--scope", "swarm", "far")
    mine, theirs = (engine.docker(*command, check=False) for engine in (swarm, oracle_swarm))
    assert (mine.status, mine.output) == (theirs.status, theirs.output)


def test_options_of_ipam(swarm: Engine, oracle_swarm: Engine) -> None:
    def shown(engine: Engine) -> str:
        engine.docker("network", "create", "-d", "overlay", "--ipam-opt", "foo=bar", "far")
        try:
            return engine.docker("network", "inspect", "-f", "{{json .IPAM.Options}}", "far").stdout
        finally:
            engine.docker("network", "rm", "far")

    assert shown(swarm) == shown(oracle_swarm)
