"""Networks whose driver or IPAM driver is a plugin: the same calls as from dockerd, traffic, failures, restarts."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.clients.networks.scenario import SERVE, Scenario, fetch
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.polling import until
from compat_tests.support.servers.network_plugins import IpamPlugin, NetworkPlugin, plugin_name

GATEWAY = "docker_gwbridge"


@pytest.fixture
def net(scenario: Scenario) -> Iterator[NetworkPlugin]:
    """A driver on the test's engine. Its containers and networks end before it."""
    with NetworkPlugin(scenario.engine, plugin_name(scenario.engine, "net")) as plugin:
        yield plugin
        scenario.clear()
        plugin.sweep()


def settle(plugin: NetworkPlugin) -> None:
    assert until(lambda: not plugin.endpoints), plugin.endpoints
    assert until(lambda: plugin.devices() <= {plugin.bridge})


def test_a_network_of_a_plugin(scenario: Scenario, net: NetworkPlugin) -> None:
    docker, subnet = scenario.engine.docker, scenario.subnet()
    identity = scenario.network("far", "-d", net.name, "--subnet", str(subnet), "-o", "color=red", "--label", "a=b")
    far = scenario.name("far")
    shown = json.loads(docker("network", "inspect", far).stdout)[0]
    assert (shown["Driver"], shown["Scope"], shown["Options"]) == (net.name, "local", {"color": "red"})
    assert docker("network", "ls", "-q", "--no-trunc", "--filter", f"driver={net.name}").stdout.split() == [identity]
    assert net.name in scenario.engine.api.get("/info").json()["Plugins"]["Network"]
    scenario.run("web", "--network", far, "--hostname", "web", command=SERVE)
    scenario.run("two", "--network", far, "--ip", str(subnet[9]), "--mac-address", "02:42:de:ad:be:ef")
    assert fetch(scenario, "two", f"http://{scenario.name('web')}/") == "web"
    web, two = scenario.endpoint("web", far), scenario.endpoint("two", far)
    assert (web["Gateway"], web["IPPrefixLen"]) == (str(subnet[1]), subnet.prefixlen)
    assert (two["IPAddress"], two["MacAddress"]) == (str(subnet[9]), "02:42:de:ad:be:ef")
    assert scenario.exec("two", "cat", "/sys/class/net/plug0/address").strip() == "02:42:de:ad:be:ef"
    assert f"default via {subnet[1]} dev plug0" in scenario.exec("web", "ip", "route")
    members = json.loads(docker("network", "inspect", far).stdout)[0]["Containers"]
    assert {item["MacAddress"] for item in members.values()} == {web["MacAddress"], "02:42:de:ad:be:ef"}
    assert "has active endpoints" in docker("network", "rm", far, check=False).stderr
    docker("restart", "-t", "0", scenario.name("web"))
    assert fetch(scenario, "two", f"http://{scenario.name('web')}/") == "web"
    docker("network", "disconnect", far, scenario.name("two"))
    assert until(lambda: len(net.endpoints) == 1)
    assert "plug0" not in scenario.exec("two", "ip", "-o", "link")
    docker("network", "connect", "--ip", str(subnet[8]), far, scenario.name("two"))
    assert f"{subnet[8]}/{subnet.prefixlen}" in scenario.exec("two", "ip", "-o", "addr")
    docker("rm", "-f", scenario.name("web"), scenario.name("two"))
    settle(net)
    docker("network", "rm", far)
    assert not net.networks
    assert not net.devices()


def test_neighbours_learn_the_mac_address_of_a_new_link(scenario: Scenario, net: NetworkPlugin) -> None:
    if scenario.engine.kind == "dockerd":
        pytest.skip("since Docker 28.1")
    docker, subnet = scenario.engine.docker, scenario.subnet()
    scenario.network("far", "-d", net.name, "--subnet", str(subnet), "-o", "com.docker.network.advertise_addr_ms=100")
    scenario.run("two", "--network", scenario.name("far"))

    def known() -> str:
        """The MAC address with which the neighbour knows the address."""
        return scenario.exec("two", "ip", "neigh", "show", str(subnet[9])).rpartition("lladdr ")[2][:17]

    for mac in ("02:42:de:ad:be:01", "02:42:de:ad:be:02"):
        scenario.run("web", "--network", scenario.name("far"), "--ip", str(subnet[9]), "--mac-address", mac)
        if known():
            assert until(lambda mac=mac: known() == mac, seconds=5), known()  # type: ignore[misc]
        scenario.exec("two", "ping", "-c", "1", str(subnet[9]))
        assert known() == mac
        docker("rm", "-f", scenario.name("web"))


def test_without_a_gateway_traffic_leaves_by_the_engine(scenario: Scenario, net: NetworkPlugin) -> None:
    net.gateway = False
    docker = scenario.engine.docker
    scenario.network("far", "-d", net.name, "--subnet", str(scenario.subnet()))
    scenario.run("web", "--network", scenario.name("far"), "-p", "80", "--hostname", "web", command=SERVE)
    scenario.networks.append(GATEWAY)
    shown = json.loads(docker("network", "inspect", GATEWAY).stdout)[0]
    assert shown["Driver"] == "bridge"
    assert shown["Options"].items() >= {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
    }.items()  # fmt: skip
    (member,) = shown["Containers"].values()
    assert re.fullmatch("gateway_[0-9a-f]{12}", member["Name"])
    assert list(scenario.inspect("web")["NetworkSettings"]["Networks"]) == [scenario.name("far")]
    gateway = shown["IPAM"]["Config"][0]["Gateway"]
    assert f"default via {gateway} dev eth0" in scenario.exec("web", "ip", "route")
    assert member["IPv4Address"].partition("/")[0] not in scenario.exec("web", "cat", "/etc/hosts")
    port = scenario.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    scenario.run("client")
    bridge = json.loads(docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"][0]["Gateway"]
    assert fetch(scenario, "client", f"http://{bridge}:{port}/") == "web"
    # A network that leads out replaces it while the container runs, and its end brings it back.
    docker("network", "connect", "bridge", scenario.name("web"))
    assert not json.loads(docker("network", "inspect", GATEWAY).stdout)[0]["Containers"]
    docker("network", "disconnect", "bridge", scenario.name("web"))
    assert json.loads(docker("network", "inspect", GATEWAY).stdout)[0]["Containers"]
    assert f"default via {gateway} " in scenario.exec("web", "ip", "route")
    net.joined = {"DisableGatewayService": True}
    scenario.run("alone", "--network", scenario.name("far"))
    assert "default" not in scenario.exec("alone", "ip", "route")


def test_what_a_plugin_refuses(scenario: Scenario, net: NetworkPlugin) -> None:
    docker = scenario.engine.docker
    net.instead["CreateNetwork"] = lambda: {"Err": "no more networks"}
    refused = docker("network", "create", "-d", net.name, "--subnet", str(scenario.subnet()), "x", check=False)
    assert refused.stderr.strip() == "Error response from daemon: remote: no more networks"
    del net.instead["CreateNetwork"]
    scenario.network("far", "-d", net.name, "--subnet", str(scenario.subnet()))
    far = scenario.name("far")
    scenario.containers.append(scenario.name("box"))
    for word, words in (
        ("CreateEndpoint", f"failed to create endpoint {scenario.name('box')} on network {far}: remote: not today"),
        ("Join", "remote: not today"),
        ("ProgramExternalConnectivity", "driver failed programming external connectivity on endpoint"),
    ):
        net.instead[word] = lambda: {"Err": "not today"}
        done = docker("run", "--name", scenario.name("box"), "--network", far, "busybox", "true", check=False)
        assert done.status == 125, word
        assert words in done.stderr, word
        docker("rm", "-f", scenario.name("box"))
        del net.instead[word]
        settle(net)
    box = scenario.run("box")
    net.instead["Join"] = lambda: {"Err": "not today"}
    done = docker("network", "connect", far, box, check=False)
    assert done.stderr.strip() == "Error response from daemon: remote: not today"
    del net.instead["Join"]
    settle(net)
    assert list(scenario.inspect("box")["NetworkSettings"]["Networks"]) == ["bridge"]
    for word in ("ProgramExternalConnectivity", "RevokeExternalConnectivity"):
        net.instead[word] = lambda: b"HTTP/1.0 404 Not Found\r\n\r\nno such method"
    assert docker("run", "--rm", "--network", far, "busybox", "echo", "runs").stdout == "runs\n"
    settle(net)


#: dockerd 26 lacks these; dockerd 29 sends and shows them as Wharf does, the last one at every API version.
NEWER = ("com.docker.network.enable_ipv4", "com.docker.network.endpoint.name", "GwPriority", "EnableIPv4")
#: Only dockerd 28 sends this: it is an option for its own bridges, which it removes from the calls of plugins since 29.
PRIVATE = "com.docker.network.driver.private.no_proxy_6to4"
EXPOSED = "com.docker.network.endpoint.exposedports"


def comparable(found: Any) -> Any:
    """The same without what depends on dockerd's version, or on the order of Go's maps."""
    if isinstance(found, list):
        return [comparable(item) for item in found]
    if not isinstance(found, dict):
        return found
    kept = {key: comparable(value) for key, value in found.items() if key not in (*NEWER, PRIVATE)}
    if "Subnet" in kept:
        # Before dockerd 29, inspect did not show the gateway that was chosen for a given subnet.
        kept.pop("Gateway", None)
    if EXPOSED in kept:
        kept[EXPOSED] = sorted(kept[EXPOSED], key=lambda port: int(port["Port"]))
    if "Interface" in kept:
        # Before dockerd 28, CreateEndpoint had the ports that are exposed and not published too.
        kept["Options"].pop(EXPOSED, None)
    return kept


def transcript(engine: Engine) -> tuple[list[Any], list[Any]]:
    """All calls of the plugins in a fixed story, and what the engine shows; ids, names and subnets are replaced."""
    scenario = Scenario(engine, "story")
    base = scenario.subnet()
    net_name, ipam_name = plugin_name(engine, "snet"), plugin_name(engine, "sipam")
    shown: list[Any] = []
    with NetworkPlugin(engine, net_name) as net, IpamPlugin(engine, ipam_name, base, RequiresMACAddress=True) as ipam:
        try:
            args = ("-d", net_name, "--ipam-driver", ipam_name, "--ipam-opt", "size=small", "-o", "color=red")
            scenario.network("far", *args, "--aux-address", f"router={base[5]}", "--subnet", f"{base[0]}/28")
            scenario.network("own", "--ipam-driver", ipam_name, "--internal")
            far, own = scenario.name("far"), scenario.name("own")
            scenario.run("box", "--network", far, "-p", "127.0.0.1:0:80/tcp", "--expose", "53/udp")
            scenario.run("two", "--network", own, "--mac-address", "02:42:de:ad:be:ef")
            # CLI 29 shows what the engine answers at its newest version, which is another one here and there.
            known = {"DOCKER_API_VERSION": "1.45"}
            shown += json.loads(engine.docker("network", "inspect", far, own, env=known).stdout)
            shown += [scenario.inspect(name)["NetworkSettings"]["Networks"] for name in ("box", "two")]
            engine.docker("network", "connect", "--driver-opt", "speed=low", far, scenario.name("two"))
            shown.append(scenario.exec("two", "ip", "route"))
            engine.docker("network", "disconnect", far, scenario.name("two"))
            engine.docker("rm", "-f", scenario.name("two"))
            engine.docker("rm", "-f", scenario.name("box"))
            settle(net)
            engine.docker("network", "rm", far, own)
        finally:
            scenario.clear()
            net.sweep()
        calls = [(method, body) for method, body in net.calls if method != "NetworkDriver.EndpointOperInfo"]
        text = json.dumps([calls, ipam.calls, shown])
    for number, address in sorted(enumerate(base), key=lambda item: -len(str(item[1]))):
        text = re.sub(rf"(?<![0-9.]){re.escape(str(address))}(?![0-9])", f"<{number}>", text)
    ids: dict[str, str] = {}
    text = re.sub(r"\b[0-9a-f]{64}\b", lambda found: ids.setdefault(found[0], f"<id {len(ids)}>"), text)
    for identity, replaced in ids.items():
        text = text.replace(f'"{identity[:12]}"', f'"{replaced}"')
    text = re.sub(r'"SandboxKey": "[^"]*"', '"SandboxKey": "<path>"', text)
    text = re.sub(r'"Created": "[^"]*"', '"Created": "<time>"', text)
    # Since dockerd 28, the MAC addresses that nobody chose are random.
    text = re.sub(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "<mac>", text)
    text = text.replace(net_name, "<net>").replace(ipam_name, "<ipam>")
    net_calls, ipam_calls, answers = json.loads(text)
    # dockerd asks for the address spaces once for a network, dockerd 28 and newer twice.
    ipam_calls = [call for call, _ in itertools.groupby(ipam_calls)]
    return comparable([*net_calls, *ipam_calls]), comparable(answers)


def test_plugins_get_the_same_calls_as_from_dockerd(engine: Engine, oracle: Dockerd) -> None:
    ours, shown = transcript(engine)
    theirs, expected = transcript(oracle)
    assert ours == theirs
    assert shown == expected


def test_an_ipam_plugin_for_a_bridge(scenario: Scenario) -> None:
    base = scenario.subnet()
    with IpamPlugin(scenario.engine, plugin_name(scenario.engine, "ipam"), base) as ipam:
        try:
            scenario.network("near", "--ipam-driver", ipam.name)
            if scenario.engine.kind != "dockerd":
                # The protocol has no request for the number of addresses in use.
                shown = scenario.engine.api.get(f"/networks/{scenario.name('near')}").json()
                assert shown["Status"] == {"IPAM": {}}
            scenario.run("web", "--network", scenario.name("near"), "--hostname", "web", command=SERVE)
            scenario.run("two", "--network", scenario.name("near"))
            assert fetch(scenario, "two", f"http://{scenario.name('web')}/") == "web"
            assert scenario.endpoint("web", scenario.name("near"))["IPAddress"] == str(base[2])
            refused = scenario.engine.docker(
                "network", "create", "--ipam-driver", ipam.name, "--subnet", f"{base[0]}/28", "x", check=False
            )
            assert "remote: no subnet is free" in refused.stderr
        finally:
            scenario.clear()
        assert until(lambda: not ipam.pools)
        assert not ipam.taken


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_a_daemon_that_ends_and_starts_again(own_engine: Engine, end: str) -> None:
    engine, scenario = own_engine, Scenario(own_engine, f"again-{end}")
    base = scenario.subnet()
    net_name, ipam_name = plugin_name(engine, "rnet"), plugin_name(engine, "ripam")
    with NetworkPlugin(engine, net_name) as net:
        ipam = IpamPlugin(engine, ipam_name, base, RequiresRequestReplay=True)
        try:
            scenario.network("far", "-d", net_name, "--ipam-driver", ipam_name)
            scenario.run("web", "--network", scenario.name("far"), "--hostname", "web", command=SERVE)
            scenario.run("two", "--network", scenario.name("far"))
            taken = {pool: set(addresses) for pool, addresses in ipam.taken.items()}
            # A plugin that stores nothing restarts with the daemon.
            ipam.close()
            if end == "kill":
                engine.kill("wharfd")
                ipam = IpamPlugin(engine, ipam_name, base, RequiresRequestReplay=True)
                engine.start()
            else:
                ipam = IpamPlugin(engine, ipam_name, base, RequiresRequestReplay=True)
                engine.restart()
            assert ipam.taken == taken
            assert len(net.of("Join")) == 2
            assert fetch(scenario, "two", f"http://{scenario.name('web')}/") == "web"
            scenario.run("three", "--network", scenario.name("far"))
            assert fetch(scenario, "three", f"http://{scenario.name('web')}/") == "web"
            engine.docker("rm", "-f", *scenario.containers)
            settle(net)
            engine.docker("network", "rm", scenario.name("far"))
            assert not net.networks
            assert not ipam.pools
        finally:
            scenario.clear()
            net.sweep()
            ipam.close()


def test_containers_that_end_while_the_daemon_is_down(own_engine: Engine) -> None:
    engine, scenario = own_engine, Scenario(own_engine, "down")
    with NetworkPlugin(engine, plugin_name(engine, "dnet")) as net:
        try:
            scenario.network("far", "-d", net.name, "--subnet", str(scenario.subnet()))
            scenario.run("box", "--network", scenario.name("far"))
            pid = scenario.inspect("box")["State"]["Pid"]
            engine.kill("wharfd")
            os.kill(pid, signal.SIGKILL)
            engine.start()
            settle(net)
            assert not net.joins
            engine.docker("start", scenario.name("box"))
            assert len(net.joins) == 1
        finally:
            scenario.clear()
            net.sweep()


def test_a_plugin_that_dies(own_engine: Engine) -> None:
    engine, scenario = own_engine, Scenario(own_engine, "dies")
    plugin = NetworkPlugin(engine, plugin_name(engine, "gone"))
    # A daemon that starts waits for plugins that start at the same time.
    engine.daemon.env["WHARF_TIMEOUTS"] = "network.plugin-start=1"
    try:
        scenario.network("far", "-d", plugin.name, "--subnet", str(scenario.subnet(1)))
        scenario.network("near", "-d", plugin.name, "--subnet", str(scenario.subnet(2)))
        scenario.run("box", "--network", scenario.name("far"))
        engine.docker("network", "connect", scenario.name("near"), scenario.name("box"))
        plugin.close()
        engine.docker("network", "disconnect", scenario.name("near"), scenario.name("box"))
        assert "plug1" not in scenario.exec("box", "ip", "-o", "link")
        engine.docker("network", "rm", scenario.name("near"))
        started = time.monotonic()
        refused = engine.docker("run", "--network", scenario.name("far"), "--name", "dies-two", "busybox", check=False)
        scenario.containers.append("dies-two")
        assert "not found" in refused.stderr or "plugin" in refused.stderr
        assert time.monotonic() - started < 60
        engine.docker("rm", "-f", scenario.name("box"))
        assert until(lambda: plugin.devices() <= {plugin.bridge})
        engine.restart()
        refused = engine.docker("network", "rm", scenario.name("far"), check=False)
        assert "error while removing network: failed deleting Network: plugin" in refused.stderr
        assert scenario.name("far") in engine.docker("network", "ls").stdout
        engine.restart()
        assert until(lambda: scenario.name("far") not in engine.docker("network", "ls").stdout)
    finally:
        scenario.clear()
        plugin.sweep()


def test_a_plugin_that_answers_garbage(own_engine: Engine) -> None:
    engine, scenario = own_engine, Scenario(own_engine, "odd")
    with NetworkPlugin(engine, plugin_name(engine, "odd")) as net:
        try:
            for garbage in (b"what?", b"", b"HTTP/1.0 200 OK\r\n\r\n[]", b"HTTP/1.0 500 X\r\n\r\nbroken"):
                net.instead["CreateNetwork"] = lambda garbage=garbage: garbage  # type: ignore[misc]
                subnet = str(scenario.subnet())
                refused = engine.docker("network", "create", "-d", net.name, "--subnet", subnet, "x", check=False)
                assert refused.status == 1
                assert "NetworkDriver.CreateNetwork" in refused.stderr or net.name in refused.stderr
            del net.instead["CreateNetwork"]
            scenario.network("far", "-d", net.name, "--subnet", str(scenario.subnet()))
            scenario.containers.append(scenario.name("box"))
            for answer, words in (
                ({"InterfaceName": {"SrcName": "wtnone", "DstPrefix": "eth"}}, "failed to get link by name"),
                ({"InterfaceName": "eth0"}, "InterfaceName"),
                ({"InterfaceName": None, "Gateway": "nowhere"}, 'unable to parse Gateway "nowhere"'),
                ({"StaticRoutes": [{"Destination": "10.0.0.0/8", "NextHop": "192.0.2.1"}]}, "unreachable"),
            ):
                net.joined = answer
                name = scenario.name("box")
                refused = engine.docker(
                    "run", "--name", name, "--network", scenario.name("far"), "busybox", check=False
                )
                assert refused.status == 125
                assert words in refused.stderr
                engine.docker("rm", "-f", name)
                settle(net)
            net.joined = {}
        finally:
            scenario.clear()
            net.sweep()
