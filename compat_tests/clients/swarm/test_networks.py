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


CREATE = ("network", "create", "--scope", "swarm")
SUBNET = ("--subnet", "10.77.1.0/24", "--gateway", "10.77.1.1")
NEAR = (
    ("network", "create", "--config-only", *SUBNET, "--label", "x=y", "cfg"),
    (*CREATE, "-d", "bridge", "--config-from", "cfg", "--attachable", "near"),
    (*CREATE, "-d", "macvlan", "--config-from", "nosuch", "missing"),
    (*CREATE, "--config-from", "cfg", "--subnet", "10.9.0.0/24", "x"),
    (*CREATE, "--config-from", "cfg", "-o", "a=b", "x"),
    (*CREATE, "-d", "null", "x"),
    (*CREATE, "-d", "bridge", "--ingress", "x"),
    (*CREATE, "-d", "bridge", "--ipam-driver", "foo", "x"),
)
SHOWN = "{{.Scope}} {{.Driver}} {{.Attachable}} {{json .IPAM.Config}} {{.ConfigFrom.Network}} {{json .Labels}}"


def test_node_local_networks_as_dockerd_has_them(swarm: Engine, oracle_swarm: Engine) -> None:
    """A node makes its network of its own configuration when it gets a task."""

    def outcomes(engine: Engine) -> list[str]:
        docker = engine.docker
        found = [done.stderr for done in (docker(*words, check=False) for words in NEAR)]
        bridges = ("--filter", "driver=bridge", "--filter", "scope=swarm")
        found.append(docker("network", "ls", *bridges, "--format", "{{.Name}} {{.Scope}}").stdout)
        form = ("network", "inspect", "-f", "{{.Scope}} {{.Driver}} {{json .IPAM.Config}} {{.ConfigFrom.Network}}")
        found.append(docker(*form, "near", "missing").stdout)
        create = ("service", "create", "-d", "--init", "--restart-condition", "none", "--name")
        docker(*create, "near", "--network", "near", "-p", "80", "busybox", "sleep", "1000")
        docker(*create, "missing", "--network", "missing", "busybox", "sleep", "1000")
        assert until(lambda: state(engine, "near").startswith("Running"))
        assert until(lambda: state(engine, "missing").startswith("Rejected"))
        found.append(state(engine, "missing").partition("ago")[2])
        endpoint = json.loads(docker("service", "inspect", "-f", "{{json .Endpoint}}", "near").stdout)
        found.append(str([each.get("Addr") is not None for each in endpoint["VirtualIPs"]]))
        (task,) = docker("service", "ps", "-q", "near").stdout.split()
        networks = json.loads(docker("inspect", "-f", "{{json .NetworksAttachments}}", task).stdout)
        found.append(str(sorted((each["Network"]["Spec"]["Name"], "Addresses" in each) for each in networks)))
        found.append(docker("network", "inspect", "-f", SHOWN, "near").stdout)
        found.append(docker("network", "rm", "cfg", check=False).stderr)
        address = ("run", "--rm", "--network", "near", "busybox", "ip", "-4", "-o", "addr")
        found.append(str("inet 10.77.1.3/24" in docker(*address).stdout))
        (container,) = containers(engine, "near")
        known = '{{(index .NetworkSettings.Networks "near").IPAddress}}'
        found.append(docker("inspect", "-f", known, container).stdout)
        docker("service", "rm", "near", "missing")
        assert until(lambda: not containers(engine, "near", everything=True))
        assert until(lambda: docker("network", "rm", "near", check=False).status == 0)
        docker("network", "rm", "missing")
        assert until(lambda: docker("network", "rm", "cfg", check=False).status == 0)
        return found

    assert outcomes(swarm) == outcomes(oracle_swarm)


def state(engine: Engine, service: str) -> str:
    form = ("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}")
    return engine.docker(*form, service).stdout.strip()


def test_a_container_learns_why_its_node_has_no_network(swarm: Engine) -> None:
    swarm.docker(*CREATE, "-d", "bridge", "--config-from", "nosuch", "--attachable", "missing")
    try:
        started = swarm.docker("run", "--rm", "--network", "missing", "busybox", "true", check=False)
        assert 'network missing: configuration network "nosuch" does not exist' in started.stderr
    finally:
        swarm.docker("network", "rm", "missing")


def test_a_node_local_network_outlives_the_daemon(swarm: Engine) -> None:
    swarm.docker("network", "create", "--config-only", "--subnet", "10.77.2.0/24", "cfg")
    swarm.docker(*CREATE, "--config-from", "cfg", "--attachable", "near")
    try:
        near = ("--init", "--network", "near", "busybox", "sleep", "1000")
        swarm.docker("service", "create", "-d", "--name", "web", *near)
        assert until(lambda: replicas(swarm, "web") == "1/1")
        before = containers(swarm, "web")
        swarm.kill("wharfd")
        swarm.start()
        swarm.docker("service", "scale", "web=2")
        assert set(before) < set(containers(swarm, "web"))
        one, other = containers(swarm, "web")
        name = swarm.docker("inspect", "-f", "{{.Name}}", other).stdout.strip("/\n")
        swarm.docker("exec", one, "ping", "-c1", name)
        # dockerd ignores the address that a user wants here.
        user = ("run", "--rm", "--network", "near", "--ip", "10.77.2.9", "busybox", "ip", "-4", "-o", "addr")
        assert "inet 10.77.2.9/24" in swarm.docker(*user).stdout
    finally:
        swarm.docker("service", "rm", "web", check=False)
        assert until(lambda: not containers(swarm, "web", everything=True))
        swarm.docker("network", "rm", "near")
        assert until(lambda: swarm.docker("network", "rm", "cfg", check=False).status == 0)


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
