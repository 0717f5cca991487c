"""Networks and their containers, with the docker CLI, compose and the bare API: real traffic, dockerd's words."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.types
import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.traces import links, until

pytestmark = pytest.mark.root


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


@pytest.fixture
def stage(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(engine, request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")[:40])
    yield stage
    stage.clear()


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


def test_a_network_from_create_to_rm(stage: Stage) -> None:
    docker = stage.engine.docker
    subnet, net = stage.subnet(), stage.name("net")
    low = subnet[40]
    identity = stage.network(
        "net", "--subnet", str(subnet), "--ip-range", f"{subnet[32]}/28", "--gateway", str(subnet[9]),
        "--aux-address", f"router={subnet[33]}", "--label", "a=b", "--label", "c", "--attachable",
        "-o", "com.docker.network.driver.mtu=1400",
    )  # fmt: skip
    shown = json.loads(docker("network", "inspect", identity[:10]).stdout)[0]
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": str(subnet), "IPRange": f"{subnet[32]}/28", "Gateway": str(subnet[9]),
            "AuxiliaryAddresses": {"router": str(subnet[33])},
        }
    ]  # fmt: skip
    assert (shown["Id"], shown["Name"], shown["Driver"], shown["Scope"]) == (identity, net, "bridge", "local")
    assert (shown["Labels"], shown["Attachable"], shown["Internal"]) == ({"a": "b", "c": ""}, True, False)
    assert f"br-{identity[:12]}" in links()
    listed = docker("network", "ls", "-q", "--no-trunc", "--filter", "label=a=b", "--filter", f"name={net}").stdout
    assert listed.split() == [identity]
    assert docker("network", "ls", "-q", "--filter", f"name={net}", "--filter", "label=a=x").stdout == ""
    # the first free address of the range, except auxiliary ones; a chosen address may be outside the range
    stage.run("one", "--network", net)
    stage.run("two", "--network", net, "--ip", str(subnet[5]), "--mac-address", "02:42:de:ad:be:ef")
    assert stage.endpoint("one", net)["IPAddress"] == str(subnet[32])
    assert stage.endpoint("two", net)["IPAddress"] == str(subnet[5])
    assert stage.exec("two", "cat", "/sys/class/net/eth0/address").strip() == "02:42:de:ad:be:ef"
    assert stage.exec("two", "cat", "/sys/class/net/eth0/mtu").strip() == "1400"
    assert f"default via {subnet[9]} dev eth0" in stage.exec("two", "ip", "route")
    assert "1 packets received" in stage.exec("one", "ping", "-c", "1", "-W", "30", stage.name("two"))
    members = json.loads(docker("network", "inspect", net).stdout)[0]["Containers"]
    assert sorted(item["Name"] for item in members.values()) == [stage.name("one"), stage.name("two")]
    assert f"{low}" not in json.dumps(members)
    # the CLI checks the gateway's subnet less strictly
    config = {"Config": [{"Subnet": "10.99.0.0/24", "Gateway": "10.98.0.1"}]}
    answer = stage.engine.api.post("/networks/create", {"Name": "x", "IPAM": config})
    assert (answer.status, answer.message) == (
        400,
        "invalid network config:\ninvalid gateway 10.98.0.1: parent subnet 10.99.0.0/24 does not contain this address",
    )
    done = docker("network", "rm", net, check=False)
    assert re.match(
        f"Error response from daemon: error while removing network: network {net} has active endpoints "
        rf'\(name:"{stage.name("one")}" id:"[0-9a-f]{{12}}", name:"{stage.name("two")}" id:"[0-9a-f]{{12}}"\)\n',
        done.stderr,
    )
    docker("rm", "-f", stage.name("one"), stage.name("two"))
    assert docker("network", "rm", net).stdout == f"{net}\n"
    assert until(lambda: f"br-{identity[:12]}" not in links())


BAD: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("--subnet", "10.99.0.5/24", "x"),
        "invalid network config:\ninvalid subnet 10.99.0.5/24: it should be 10.99.0.0/24",
    ),
    (("-d", "nosuch", "x"), 'plugin "nosuch" not found'),
    (("-d", "host", "x"), 'only one instance of "host" network is allowed'),
    (("--ipam-driver", "nosuch", "x"), "nosuch"),
    (("bridge",), "operation is not permitted on predefined bridge network"),
    (("host",), "operation is not permitted on predefined host network"),
    (("-o", "com.docker.network.driver.mtu=many", "x"), "failed to parse com.docker.network.driver.mtu value: many"),
    (("-o", "com.docker.network.bridge.name=lo", "x"), "existing interface lo is not a bridge"),
    (("-d", "macvlan", "-o", "parent=lo", "x"), "loopback interface is not a valid macvlan parent link"),
    (("-d", "macvlan", "-o", "macvlan_mode=odd", "x"), "requested macvlan mode 'odd' is not valid"),
    (("-d", "ipvlan", "-o", "ipvlan_mode=odd", "x"), "requested ipvlan mode 'odd' is not valid"),
    (("--config-from", "nosuch", "x"), 'configuration network "nosuch" does not exist'),
    (("-d", "overlay", "x"), "This node is not a swarm manager."),
)


def test_errors_in_dockerds_words(stage: Stage) -> None:
    engine = stage.engine
    before = {item["Id"] for item in engine.api.get("/networks").json()}
    for args, words in BAD:
        done = engine.docker("network", "create", *args, check=False)
        assert done.status == 1, args
        assert words in done.stderr, args
    stage.network("net", "--subnet", str(stage.subnet()))
    net = stage.name("net")
    for args, words in (
        (("create", net), f"network with name {net} already exists"),
        (("create", "--subnet", str(stage.subnet()), "other"), "Pool overlaps with other one on this address space"),
        (("rm", "none"), "none is a pre-defined network and cannot be removed"),
        (("inspect", "nosuch"), "network nosuch not found"),
        (("connect", net, "nosuch"), "No such container: nosuch"),
    ):
        done = engine.docker("network", *args, check=False)
        assert done.status == 1
        assert words in done.stderr, args
    for host, words in (
        (("--network", net, "--ip", "1.2.3.4"), "no configured subnet or ip-range contain the IP address 1.2.3.4"),
        (("--ip", str(stage.subnet()[9])), "user specified IP address is supported on user defined networks only"),
        (("--network", "nosuch"), "network nosuch not found"),
        (("--network", "container:nosuch"), "No such container: nosuch"),
    ):
        done = engine.docker("run", "--rm", *host, "busybox", "true", check=False)
        assert done.status == 125
        assert words in done.stderr, host
    engine.api.delete(f"/networks/{net}")
    assert {item["Id"] for item in engine.api.get("/networks").json()} == before


def test_prune_takes_what_nobody_uses(stage: Stage) -> None:
    label = stage.name("label")
    used = ("--network", stage.name("used"))
    for name in ("used", "free", "kept"):
        stage.network(name, "--label", label if name != "kept" else f"{label}-not")
    stage.run("one", *used)
    done = stage.engine.docker("network", "prune", "-f", "--filter", f"label={label}")
    assert done.stdout == f"Deleted Networks:\n{stage.name('free')}\n\n"
    left = stage.engine.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert {stage.name("used"), stage.name("kept"), "bridge", "host", "none"} <= set(left)


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
    asked = {"IPv4Address": str(stage.subnet()[20]), "IPv6Address": "fd5e:7::20"}
    name = stage.name("one")
    stage.containers.append(name)
    body = {
        "Image": "busybox", "Cmd": ["sleep", "1000"], "Hostname": "called", "HostConfig": {"NetworkMode": net},
        "NetworkingConfig": {"EndpointsConfig": {net: {"IPAMConfig": asked, "Aliases": ["also"]}}},
    }  # fmt: skip
    created = stage.engine.api.request("POST", "/containers/create", query={"name": name}, data=body).json()["Id"]
    shown = stage.endpoint("one", net)
    assert {key: value for key, value in shown.items() if value and key != "GwPriority"} == {
        "IPAMConfig": asked,
        "Aliases": ["also"],
    }
    assert shown["DNSNames"] is None
    assert stage.inspect("one")["NetworkSettings"]["Ports"] == {}
    assert stage.engine.api.post(f"/containers/{name}/start").status == 204
    shown = stage.endpoint("one", net)
    assert shown["NetworkID"] == identity
    assert len(shown["EndpointID"]) == 64
    assert shown["DNSNames"] == [name, "also", created[:12], "called"]
    assert (shown["IPAddress"], shown["IPPrefixLen"], shown["Gateway"]) == (
        asked["IPv4Address"], 26, str(stage.subnet()[1]),
    )  # fmt: skip
    assert (shown["GlobalIPv6Address"], shown["GlobalIPv6PrefixLen"], shown["IPv6Gateway"]) == (
        "fd5e:7::20", 64, "fd5e:7::1",
    )  # fmt: skip
    assert "fd5e:7::1" in stage.exec("one", "ip", "-6", "route")
    assert "1 packets received" in stage.exec("one", "ping", "-c", "1", "-W", "30", "fd5e:7::1")


def test_modes_that_share(stage: Stage) -> None:
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
    shown = stage.endpoint("without", network)
    assert (shown["GlobalIPv6Address"], shown["GlobalIPv6PrefixLen"], shown["IPv6Gateway"]) == ("", 0, "")
    assert ":" not in stage.exec("without", "cat", "/etc/hosts")
    told = stage.exec("with", "nslookup", stage.name("without"), check=False)
    assert shown["IPAddress"] in told
    assert "fd00:57:12:" not in told


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
    wanted = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    stage.run("one", "--network", f"name=bridge,driver-opt={wanted}")
    assert stage.exec("one", "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians").strip() == "1"
    bad = f"name=bridge,driver-opt={wanted.replace('IFNAME', 'eth0')}"
    done = stage.engine.docker("create", "--network", bad, "busybox", check=False)
    assert "unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'" in done.stderr


def test_a_configuration_network(stage: Stage) -> None:
    docker = stage.engine.docker
    stage.networks.append(stage.name("made"))
    stage.network("config", "--config-only", "--subnet", str(stage.subnet()), "--label", "x=y")
    docker("network", "create", "--config-from", stage.name("config"), stage.name("made"))
    shown = json.loads(docker("network", "inspect", stage.name("made")).stdout)[0]
    assert (shown["ConfigFrom"], shown["Labels"]) == ({"Network": stage.name("config")}, {"x": "y"})
    assert shown["IPAM"]["Config"] == [{"Subnet": str(stage.subnet())}]
    stage.run("one", "--network", stage.name("made"))
    assert stage.endpoint("one", stage.name("made"))["IPAddress"] == str(stage.subnet()[2])
    done = docker("network", "rm", stage.name("config"), check=False)
    assert f'configuration network "{stage.name("config")}" is in use' in done.stderr


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


def test_with_docker_py(stage: Stage) -> None:
    client, name = stage.engine.client, stage.name("net")
    stage.networks.append(name)
    pool = docker.types.IPAMPool(subnet=str(stage.subnet()), gateway=str(stage.subnet()[1]))
    network = client.networks.create(name, ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"by": "py"})
    assert [item.id for item in client.networks.list(names=[name], filters={"driver": "bridge"})] == [network.id]
    stage.run("one", "--network", name)
    stage.run("two", "--network", "none")
    one = client.containers.get(stage.name("one"))
    with pytest.raises(docker.errors.APIError, match="already exists in network"):
        network.connect(one)
    network.disconnect(one, force=True)
    network.connect(one, aliases=["again"], ipv4_address=str(stage.subnet()[7]))
    network.reload()
    assert [item.name for item in network.containers] == [one.name]
    assert network.attrs["Containers"][one.id]["IPv4Address"] == f"{stage.subnet()[7]}/26"
    one.reload()
    assert one.attrs["NetworkSettings"]["Networks"][name]["Aliases"] == ["again"]
    with pytest.raises(docker.errors.APIError) as caught:
        network.remove()
    assert caught.value.status_code == 403
    assert "has active endpoints" in str(caught.value.explanation)
    # An exited container disconnects from a network that was removed meanwhile.
    one.stop(timeout=0)
    network.remove()
    with pytest.raises(docker.errors.NotFound):
        client.networks.get(name)
    client.api.disconnect_container_from_network(str(one.id), name)
    one.reload()
    assert not one.attrs["NetworkSettings"]["Networks"]
    with pytest.raises(docker.errors.APIError, match=f"is not connected to the network {name}"):
        client.api.disconnect_container_from_network(str(one.id), name, force=True)
    one.remove(force=True)


def test_events_of_a_network(stage: Stage) -> None:
    began = int(time.time())
    identity = stage.network("net")
    stage.run("one", "--network", stage.name("net"))
    container = stage.inspect("one")["Id"]
    for verb in ("disconnect", "connect"):
        stage.engine.docker("network", verb, stage.name("net"), stage.name("one"))
    stage.engine.docker("rm", "-f", stage.name("one"))
    stage.engine.docker("network", "rm", stage.name("net"))
    filters = json.dumps({"type": ["network"], "network": [identity]})
    lines = stage.engine.api.get("/events", since=began, until=int(time.time()) + 1, filters=filters).lines()
    actions = ["create", "connect", "disconnect", "connect", "disconnect", "destroy"]
    assert [line["Action"] for line in lines] == actions
    attributes = {"name": stage.name("net"), "type": "bridge"}
    assert lines[0]["Actor"] == {"ID": identity, "Attributes": attributes}
    assert lines[1]["Actor"] == {"ID": identity, "Attributes": {**attributes, "container": container}}


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


def test_a_compose_project(stage: Stage, tmp_path: Path) -> None:
    project = tmp_path / "compose.yaml"
    project.write_text(
        f"""
name: {stage.prefix}
services:
  web:
    image: busybox
    command: sh -c 'mkdir /w; echo served >/w/index.html; exec httpd -f -h /w -p 80'
    networks:
      front: {{aliases: [www]}}
      back: {{ipv4_address: {stage.subnet()[20]}}}
    stop_grace_period: 0s
  api:
    image: busybox
    command: sleep 1000
    networks: [back]
    scale: 3
    stop_grace_period: 0s
  beside:
    image: busybox
    command: sleep 1000
    network_mode: "service:web"
    stop_grace_period: 0s
networks:
  front: {{}}
  back:
    internal: true
    ipam: {{config: [{{subnet: {stage.subnet()}}}]}}
"""
    )
    compose = ("docker", "compose", "-f", str(project))
    run = stage.engine.run
    try:
        run(*compose, "up", "-d", timeout=110)
        names = [
            line for line in run(*compose, "exec", "web", "nslookup", "api.").stdout.splitlines() if "Address:" in line
        ]
        assert len(set(names)) == 4, "the server's own, and one for each of three"
        answer = ""

        def served() -> bool:
            nonlocal answer
            done = run(*compose, "exec", "api", "wget", "-T", "20", "-qO-", "http://web/", check=False)
            answer = done.stdout
            return done.status == 0

        until(served)
        assert answer == "served\n"
        assert run(*compose, "exec", "beside", "wget", "-T", "20", "-qO-", "http://127.0.0.1/").stdout == "served\n"
        assert "default via" not in run(*compose, "exec", "api", "ip", "route").stdout
        assert "default via" in run(*compose, "exec", "web", "ip", "route").stdout
    finally:
        run(*compose, "down", timeout=110)
    left = stage.engine.docker("network", "ls", "--filter", f"name={stage.prefix}", "-q").stdout
    assert left == ""
