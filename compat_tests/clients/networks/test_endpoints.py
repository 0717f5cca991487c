"""Containers on networks: connect and disconnect, network modes, links, addresses, parent interfaces."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from compat_tests.clients.networks.scenario import SERVE, Scenario, fetch


def test_connect_and_disconnect_while_it_runs(scenario: Scenario) -> None:
    docker = scenario.engine.docker
    one, two = scenario.name("one"), scenario.name("two")
    scenario.network("one", "--subnet", str(scenario.subnet()))
    scenario.network("two", "--subnet", str(scenario.subnet(1)))
    scenario.run("web", "--network", one, command=SERVE)
    scenario.run("client", "--network", two)
    address = str(scenario.subnet(1)[30])
    docker("network", "connect", "--ip", address, "--alias", "www", two, scenario.name("web"))
    assert fetch(scenario, "client", "http://www/") == scenario.inspect("web")["Config"]["Hostname"]
    assert scenario.endpoint("web", two)["IPAddress"] == address
    done = docker("network", "connect", two, scenario.name("web"), check=False)
    assert done.stderr == (
        f"Error response from daemon: endpoint with name {scenario.name('web')} already exists in network {two}\n"
    )
    addresses = {name: scenario.endpoint("web", name)["IPAddress"] for name in (one, two)}
    docker("restart", "-t", "0", scenario.name("web"))
    assert {name: scenario.endpoint("web", name)["IPAddress"] for name in (one, two)} == addresses
    assert fetch(scenario, "client", "http://www/")
    docker("network", "disconnect", two, scenario.name("web"))
    assert "bad address" in scenario.exec("client", "wget", "-T", "20", "-qO-", "http://www/", check=False)
    assert two not in scenario.inspect("web")["NetworkSettings"]["Networks"]
    assert address not in scenario.exec("web", "ip", "addr")
    done = docker("network", "disconnect", two, scenario.name("web"), check=False)
    identity = scenario.inspect("web")["Id"]
    assert done.stderr == f"Error response from daemon: container {identity} is not connected to network {two}\n"
    # disconnect the last network, and reconnect
    docker("network", "disconnect", one, scenario.name("web"))
    assert "eth" not in scenario.exec("web", "ip", "addr")
    docker("network", "connect", one, scenario.name("web"))
    assert "default via" in scenario.exec("web", "ip", "route")


def test_inspect_before_and_after_start(scenario: Scenario) -> None:
    net = scenario.name("net")
    identity = scenario.network("net", "--subnet", str(scenario.subnet()), "--ipv6", "--subnet", "fd5e:7::/64")
    addresses = {"IPv4Address": str(scenario.subnet()[20]), "IPv6Address": "fd5e:7::20"}
    name = scenario.name("one")
    scenario.containers.append(name)
    body = {
        "Image": "busybox", "Cmd": ["sleep", "1000"], "Hostname": "called", "HostConfig": {"NetworkMode": net},
        "NetworkingConfig": {"EndpointsConfig": {net: {"IPAMConfig": addresses, "Aliases": ["also"]}}},
    }  # fmt: skip
    created = scenario.engine.api.request("POST", "/containers/create", query={"name": name}, data=body).json()["Id"]
    inspected = scenario.endpoint("one", net)
    assert {key: value for key, value in inspected.items() if value and key != "GwPriority"} == {
        "IPAMConfig": addresses,
        "Aliases": ["also"],
    }
    assert inspected["DNSNames"] is None
    assert scenario.inspect("one")["NetworkSettings"]["Ports"] == {}
    assert scenario.engine.api.post(f"/containers/{name}/start").status == 204
    inspected = scenario.endpoint("one", net)
    assert inspected["NetworkID"] == identity
    assert len(inspected["EndpointID"]) == 64
    assert inspected["DNSNames"] == [name, "also", created[:12], "called"]
    assert (inspected["IPAddress"], inspected["IPPrefixLen"], inspected["Gateway"]) == (
        addresses["IPv4Address"], 26, str(scenario.subnet()[1]),
    )  # fmt: skip
    assert (inspected["GlobalIPv6Address"], inspected["GlobalIPv6PrefixLen"], inspected["IPv6Gateway"]) == (
        "fd5e:7::20", 64, "fd5e:7::1",
    )  # fmt: skip
    assert "fd5e:7::1" in scenario.exec("one", "ip", "-6", "route")
    assert "1 packets received" in scenario.exec("one", "ping", "-c", "1", "-W", "30", "fd5e:7::1")


def test_modes_that_share_a_namespace(scenario: Scenario) -> None:
    scenario.run("base", "-h", "shared", command=SERVE)
    scenario.run("joined", "--network", f"container:{scenario.name('base')}")
    assert fetch(scenario, "joined", "http://127.0.0.1/") == "shared"
    assert scenario.exec("joined", "hostname").strip() == "shared"
    assert scenario.inspect("joined")["NetworkSettings"]["Networks"] == {}
    scenario.run("alone", "--network", "none")
    assert scenario.exec("alone", "ls", "/sys/class/net").split() == ["lo"]
    scenario.run("host", "--network", "host")
    # sysfs shows the namespace of the process that mounted it: the host's links, including those of other tests
    assert {"lo", scenario.engine.resources.bridge} <= set(scenario.exec("host", "ls", "/sys/class/net").split())


def test_legacy_links(scenario: Scenario) -> None:
    server = scenario.name("server")
    scenario.run("server", "--expose", "80", "-e", "COLOUR=red", command=SERVE)
    scenario.run("client", "--link", f"{server}:db")
    address = scenario.endpoint("server", "bridge")["IPAddress"]
    assert fetch(scenario, "client", "http://db/")
    identity = scenario.inspect("server")["Config"]["Hostname"]
    assert f"{address}\tdb {identity} {server}" in scenario.exec("client", "cat", "/etc/hosts")
    environment = scenario.exec("client", "env").splitlines()
    assert {
        f"DB_PORT=tcp://{address}:80", f"DB_PORT_80_TCP_ADDR={address}", "DB_ENV_COLOUR=red",
        f"DB_NAME=/{scenario.name('client')}/db",
    } <= set(environment)  # fmt: skip
    # The link resolves to the server, also after a rename of the client.
    scenario.engine.docker("rename", scenario.name("client"), scenario.name("client") + "2")
    found = scenario.engine.api.get(f"/containers/{scenario.name('client')}2/db/json").json()
    scenario.engine.docker("rename", scenario.name("client") + "2", scenario.name("client"))
    assert found["Name"] == f"/{server}"
    # Without the link, the running client knows the server no more.
    scenario.engine.docker("rm", "--link", f"{scenario.name('client')}/db")
    assert server not in scenario.exec("client", "cat", "/etc/hosts")
    assert "bad address" in scenario.exec("client", "wget", "-T2", "-O-", "http://db/", check=False)
    # A container that disables IPv6 gets no IPv6 address.
    scenario.run("four", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1")
    assert ":" not in scenario.exec("four", "cat", "/etc/hosts")


@pytest.mark.parametrize("endpoint", [False, True])
def test_container_with_disabled_ipv6_has_no_ipv6_address(scenario: Scenario, *, endpoint: bool) -> None:
    network = scenario.name("six")
    without = ["--network", network, "--sysctl", "net.ipv6.conf.all.disable_ipv6=1"]
    if endpoint:
        sysctl = "net.ipv6.conf.IFNAME.disable_ipv6=1"
        without = ["--network", f"name={network},driver-opt=com.docker.network.endpoint.sysctls={sysctl}"]
    scenario.network("six", "--ipv6", "--subnet", str(scenario.subnet()), "--subnet", "fd00:57:12::/64")
    scenario.run("with", "--network", network)
    scenario.run("without", *without)
    assert scenario.endpoint("with", network)["GlobalIPv6Address"].startswith("fd00:57:12:")
    inspected = scenario.endpoint("without", network)
    assert (inspected["GlobalIPv6Address"], inspected["GlobalIPv6PrefixLen"], inspected["IPv6Gateway"]) == ("", 0, "")
    if not endpoint:
        assert ":" not in scenario.exec("without", "cat", "/etc/hosts")
    output = scenario.exec("with", "nslookup", scenario.name("without"), check=False)
    assert inspected["IPAddress"] in output
    assert "fd00:57:12:" not in output


@pytest.mark.parametrize("option", ["inhibit_ipv4=true", "gateway_mode_ipv4=isolated"])
def test_smallest_subnet(scenario: Scenario, option: str) -> None:
    """Without a gateway, no address is reserved for one."""
    subnet = f"{scenario.subnet()[0]}/31"
    scenario.network("pair", "--internal", "--subnet", subnet, "-o", f"com.docker.network.bridge.{option}")
    for name in ("one", "two"):
        scenario.run(name, "--network", scenario.name("pair"))
    addresses = {scenario.endpoint(name, scenario.name("pair"))["IPAddress"] for name in ("one", "two")}
    assert addresses == {str(scenario.subnet()[0]), str(scenario.subnet()[1])}
    assert " 0% packet loss" in scenario.exec("two", "ping", "-c1", "-w30", scenario.name("one"))


def test_sysctls_of_an_interface(scenario: Scenario) -> None:
    """The CLI sends them in lower case."""
    option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    scenario.run("one", "--network", f"name=bridge,driver-opt={option}")
    assert scenario.exec("one", "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians").strip() == "1"
    bad = f"name=bridge,driver-opt={option.replace('IFNAME', 'eth0')}"
    done = scenario.engine.docker("create", "--network", bad, "busybox", check=False)
    assert "unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'" in done.stderr


def test_addresses_are_exhausted_and_released(scenario: Scenario) -> None:
    tiny = next(scenario.subnet().subnets(new_prefix=30))
    scenario.network("tiny", "--subnet", str(tiny))
    net = ("--network", scenario.name("tiny"))
    scenario.run("one", *net)
    scenario.containers.append(scenario.name("two"))
    done = scenario.engine.docker("run", "-d", "--name", scenario.name("two"), *net, "busybox", "true", check=False)
    assert done.status == 125
    assert "no available IPv4 addresses on this network's address pools" in done.stderr
    scenario.engine.docker("rm", "-f", scenario.name("one"))
    scenario.engine.docker("start", scenario.name("two"))


@contextlib.contextmanager
def parent(name: str) -> Iterator[str]:
    """A link for macvlan networks; its other end is unused."""
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True, timeout=60)
    try:
        for end in (name, f"{name}p"):
            subprocess.run(["ip", "link", "set", end, "up"], check=True, timeout=60)
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=True, timeout=60)


@pytest.mark.parametrize(("driver", "mode"), [("macvlan", "bridge"), ("macvlan", "private"), ("ipvlan", "l2")])
def test_containers_on_a_parent_link(scenario: Scenario, driver: str, mode: str) -> None:
    docker = scenario.engine.docker
    with parent(f"{scenario.engine.resources.bridge[:11]}m") as link:
        options = ("-o", f"parent={link}", "-o", f"{driver}_mode={mode}")
        scenario.network("net", "-d", driver, *options, "--subnet", str(scenario.subnet()))
        try:
            scenario.containers.append(scenario.name("one"))
            flags = ("--name", scenario.name("one"), "--network", scenario.name("net"))
            started = docker("run", "-d", *flags, "busybox", "sleep", "1000", check=False)
            if started.status and driver == "ipvlan":
                assert "failed to create the ipvlan port: operation not supported" in started.stderr
                pytest.skip("this kernel has no ipvlan")
            started.checked()
            scenario.run("two", "--network", scenario.name("net"))
            other = scenario.endpoint("two", scenario.name("net"))["IPAddress"]
            patience = "1" if mode == "private" else "30"
            reached = scenario.exec("one", "ping", "-c", "1", "-W", patience, other, check=False)
            assert ("1 packets received" in reached) == (mode != "private")
            assert f"default via {scenario.subnet()[1]}" in scenario.exec("one", "ip", "route")
        finally:
            scenario.clear()
