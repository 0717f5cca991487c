"""Containers on networks: connect and disconnect, network modes, links, addresses, parent interfaces."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from compat_tests.clients.networks.stage import SERVE, Stage, fetch


def test_connect_and_disconnect_while_it_runs(stage: Stage) -> None:
    docker = stage.engine.docker
    one, two = stage.name("one"), stage.name("two")
    stage.network("one", "--subnet", str(stage.subnet()))
    stage.network("two", "--subnet", str(stage.subnet(1)))
    stage.run("web", "--network", one, command=SERVE)
    stage.run("client", "--network", two)
    address = str(stage.subnet(1)[30])
    docker("network", "connect", "--ip", address, "--alias", "www", two, stage.name("web"))
    assert fetch(stage, "client", "http://www/") == stage.inspect("web")["Config"]["Hostname"]
    assert stage.endpoint("web", two)["IPAddress"] == address
    done = docker("network", "connect", two, stage.name("web"), check=False)
    assert done.stderr == (
        f"Error response from daemon: endpoint with name {stage.name('web')} already exists in network {two}\n"
    )
    addresses = {name: stage.endpoint("web", name)["IPAddress"] for name in (one, two)}
    docker("restart", "-t", "0", stage.name("web"))
    assert {name: stage.endpoint("web", name)["IPAddress"] for name in (one, two)} == addresses
    assert fetch(stage, "client", "http://www/")
    docker("network", "disconnect", two, stage.name("web"))
    assert "bad address" in stage.exec("client", "wget", "-T", "20", "-qO-", "http://www/", check=False)
    assert two not in stage.inspect("web")["NetworkSettings"]["Networks"]
    assert address not in stage.exec("web", "ip", "addr")
    done = docker("network", "disconnect", two, stage.name("web"), check=False)
    identity = stage.inspect("web")["Id"]
    assert done.stderr == f"Error response from daemon: container {identity} is not connected to network {two}\n"
    # disconnect the last network, and reconnect
    docker("network", "disconnect", one, stage.name("web"))
    assert "eth" not in stage.exec("web", "ip", "addr")
    docker("network", "connect", one, stage.name("web"))
    assert "default via" in stage.exec("web", "ip", "route")


def test_inspect_before_and_after_start(stage: Stage) -> None:
    net = stage.name("net")
    identity = stage.network("net", "--subnet", str(stage.subnet()), "--ipv6", "--subnet", "fd5e:7::/64")
    addresses = {"IPv4Address": str(stage.subnet()[20]), "IPv6Address": "fd5e:7::20"}
    name = stage.name("one")
    stage.containers.append(name)
    body = {
        "Image": "busybox", "Cmd": ["sleep", "1000"], "Hostname": "called", "HostConfig": {"NetworkMode": net},
        "NetworkingConfig": {"EndpointsConfig": {net: {"IPAMConfig": addresses, "Aliases": ["also"]}}},
    }  # fmt: skip
    created = stage.engine.api.request("POST", "/containers/create", query={"name": name}, data=body).json()["Id"]
    inspected = stage.endpoint("one", net)
    assert {key: value for key, value in inspected.items() if value and key != "GwPriority"} == {
        "IPAMConfig": addresses,
        "Aliases": ["also"],
    }
    assert inspected["DNSNames"] is None
    assert stage.inspect("one")["NetworkSettings"]["Ports"] == {}
    assert stage.engine.api.post(f"/containers/{name}/start").status == 204
    inspected = stage.endpoint("one", net)
    assert inspected["NetworkID"] == identity
    assert len(inspected["EndpointID"]) == 64
    assert inspected["DNSNames"] == [name, "also", created[:12], "called"]
    assert (inspected["IPAddress"], inspected["IPPrefixLen"], inspected["Gateway"]) == (
        addresses["IPv4Address"], 26, str(stage.subnet()[1]),
    )  # fmt: skip
    assert (inspected["GlobalIPv6Address"], inspected["GlobalIPv6PrefixLen"], inspected["IPv6Gateway"]) == (
        "fd5e:7::20", 64, "fd5e:7::1",
    )  # fmt: skip
    assert "fd5e:7::1" in stage.exec("one", "ip", "-6", "route")
    assert "1 packets received" in stage.exec("one", "ping", "-c", "1", "-W", "30", "fd5e:7::1")


def test_modes_that_share_a_namespace(stage: Stage) -> None:
    stage.run("base", "-h", "shared", command=SERVE)
    stage.run("joined", "--network", f"container:{stage.name('base')}")
    assert fetch(stage, "joined", "http://127.0.0.1/") == "shared"
    assert stage.exec("joined", "hostname").strip() == "shared"
    assert stage.inspect("joined")["NetworkSettings"]["Networks"] == {}
    stage.run("alone", "--network", "none")
    assert stage.exec("alone", "ls", "/sys/class/net").split() == ["lo"]
    stage.run("host", "--network", "host")
    # sysfs shows the namespace of the process that mounted it: the host's links, including those of other tests
    assert {"lo", stage.engine.resources.bridge} <= set(stage.exec("host", "ls", "/sys/class/net").split())


def test_legacy_links(stage: Stage) -> None:
    server = stage.name("server")
    stage.run("server", "--expose", "80", "-e", "COLOUR=red", command=SERVE)
    stage.run("client", "--link", f"{server}:db")
    address = stage.endpoint("server", "bridge")["IPAddress"]
    assert fetch(stage, "client", "http://db/")
    identity = stage.inspect("server")["Config"]["Hostname"]
    assert f"{address}\tdb {identity} {server}" in stage.exec("client", "cat", "/etc/hosts")
    environment = stage.exec("client", "env").splitlines()
    assert {
        f"DB_PORT=tcp://{address}:80", f"DB_PORT_80_TCP_ADDR={address}", "DB_ENV_COLOUR=red",
        f"DB_NAME=/{stage.name('client')}/db",
    } <= set(environment)  # fmt: skip
    # The link resolves to the server, also after a rename of the client.
    stage.engine.docker("rename", stage.name("client"), stage.name("client") + "2")
    found = stage.engine.api.get(f"/containers/{stage.name('client')}2/db/json").json()
    stage.engine.docker("rename", stage.name("client") + "2", stage.name("client"))
    assert found["Name"] == f"/{server}"
    # A container that disables IPv6 gets no IPv6 address.
    stage.run("four", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1")
    assert ":" not in stage.exec("four", "cat", "/etc/hosts")


def test_container_with_disabled_ipv6_has_no_ipv6_address(stage: Stage) -> None:
    network = stage.name("six")
    stage.network("six", "--ipv6", "--subnet", str(stage.subnet()), "--subnet", "fd00:57:12::/64")
    stage.run("with", "--network", network)
    stage.run("without", "--network", network, "--sysctl", "net.ipv6.conf.all.disable_ipv6=1")
    assert stage.endpoint("with", network)["GlobalIPv6Address"].startswith("fd00:57:12:")
    inspected = stage.endpoint("without", network)
    assert (inspected["GlobalIPv6Address"], inspected["GlobalIPv6PrefixLen"], inspected["IPv6Gateway"]) == ("", 0, "")
    assert ":" not in stage.exec("without", "cat", "/etc/hosts")
    output = stage.exec("with", "nslookup", stage.name("without"), check=False)
    assert inspected["IPAddress"] in output
    assert "fd00:57:12:" not in output


@pytest.mark.parametrize("option", ["inhibit_ipv4=true", "gateway_mode_ipv4=isolated"])
def test_smallest_subnet(stage: Stage, option: str) -> None:
    """Without a gateway, no address is reserved for one."""
    subnet = f"{stage.subnet()[0]}/31"
    stage.network("pair", "--internal", "--subnet", subnet, "-o", f"com.docker.network.bridge.{option}")
    for name in ("one", "two"):
        stage.run(name, "--network", stage.name("pair"))
    addresses = {stage.endpoint(name, stage.name("pair"))["IPAddress"] for name in ("one", "two")}
    assert addresses == {str(stage.subnet()[0]), str(stage.subnet()[1])}
    assert " 0% packet loss" in stage.exec("two", "ping", "-c1", "-w30", stage.name("one"))


def test_sysctls_of_an_interface(stage: Stage) -> None:
    """The CLI sends them in lower case."""
    option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    stage.run("one", "--network", f"name=bridge,driver-opt={option}")
    assert stage.exec("one", "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians").strip() == "1"
    bad = f"name=bridge,driver-opt={option.replace('IFNAME', 'eth0')}"
    done = stage.engine.docker("create", "--network", bad, "busybox", check=False)
    assert "unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'" in done.stderr


def test_addresses_are_exhausted_and_released(stage: Stage) -> None:
    tiny = next(stage.subnet().subnets(new_prefix=30))
    stage.network("tiny", "--subnet", str(tiny))
    net = ("--network", stage.name("tiny"))
    stage.run("one", *net)
    stage.containers.append(stage.name("two"))
    done = stage.engine.docker("run", "-d", "--name", stage.name("two"), *net, "busybox", "true", check=False)
    assert done.status == 125
    assert "no available IPv4 addresses on this network's address pools" in done.stderr
    stage.engine.docker("rm", "-f", stage.name("one"))
    stage.engine.docker("start", stage.name("two"))


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
def test_containers_on_a_parent_link(stage: Stage, driver: str, mode: str) -> None:
    docker = stage.engine.docker
    with parent(f"{stage.engine.resources.bridge[:11]}m") as link:
        options = ("-o", f"parent={link}", "-o", f"{driver}_mode={mode}")
        stage.network("net", "-d", driver, *options, "--subnet", str(stage.subnet()))
        try:
            stage.containers.append(stage.name("one"))
            run = ("run", "-d", "--name", stage.name("one"), "--network", stage.name("net"), "busybox", "sleep", "1000")
            started = docker(*run, check=False)
            if started.status and driver == "ipvlan":
                assert "failed to create the ipvlan port: operation not supported" in started.stderr
                pytest.skip("this kernel has no ipvlan")
            started.checked()
            stage.run("two", "--network", stage.name("net"))
            other = stage.endpoint("two", stage.name("net"))["IPAddress"]
            patience = "1" if mode == "private" else "30"
            reached = stage.exec("one", "ping", "-c", "1", "-W", patience, other, check=False)
            assert ("1 packets received" in reached) == (mode != "private")
            assert f"default via {stage.subnet()[1]}" in stage.exec("one", "ip", "route")
        finally:
            stage.clear()
