"""Networks with the docker CLI, docker-py and compose: from create to rm, dockerd's errors, prune, events."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from pathlib import Path

import docker
import docker.errors
import docker.types
import pytest

from compat_tests.clients.networks.scenario import Scenario
from compat_tests.support.host.traces import links
from compat_tests.support.polling import until


def test_lifecycle_of_a_network(scenario: Scenario) -> None:
    docker = scenario.engine.docker
    subnet, net = scenario.subnet(), scenario.name("net")
    low = subnet[40]
    identity = scenario.network(
        "net", "--subnet", str(subnet), "--ip-range", f"{subnet[32]}/28", "--gateway", str(subnet[9]),
        "--aux-address", f"router={subnet[33]}", "--label", "a=b", "--label", "c", "--attachable",
        "-o", "com.docker.network.driver.mtu=1400",
    )  # fmt: skip
    inspected = json.loads(docker("network", "inspect", identity[:10]).stdout)[0]
    assert inspected["IPAM"]["Config"] == [
        {
            "Subnet": str(subnet), "IPRange": f"{subnet[32]}/28", "Gateway": str(subnet[9]),
            "AuxiliaryAddresses": {"router": str(subnet[33])},
        }
    ]  # fmt: skip
    assert (inspected["Id"], inspected["Name"]) == (identity, net)
    assert (inspected["Driver"], inspected["Scope"]) == ("bridge", "local")
    assert (inspected["Labels"], inspected["Attachable"], inspected["Internal"]) == ({"a": "b", "c": ""}, True, False)
    assert f"br-{identity[:12]}" in links()
    listed = docker("network", "ls", "-q", "--no-trunc", "--filter", "label=a=b", "--filter", f"name={net}").stdout
    assert listed.split() == [identity]
    assert docker("network", "ls", "-q", "--filter", f"name={net}", "--filter", "label=a=x").stdout == ""
    # An id is an expression, too, as k3d sends it.
    assert docker("network", "ls", "-q", "--no-trunc", "--filter", f"id=^/?{identity}$").stdout == f"{identity}\n"
    # the first free address of the range, except auxiliary ones; a chosen address may be outside the range
    scenario.run("one", "--network", net)
    scenario.run("two", "--network", net, "--ip", str(subnet[5]), "--mac-address", "02:42:de:ad:be:ef")
    assert scenario.endpoint("one", net)["IPAddress"] == str(subnet[32])
    assert scenario.endpoint("two", net)["IPAddress"] == str(subnet[5])
    assert scenario.exec("two", "cat", "/sys/class/net/eth0/address").strip() == "02:42:de:ad:be:ef"
    assert scenario.exec("two", "cat", "/sys/class/net/eth0/mtu").strip() == "1400"
    assert f"default via {subnet[9]} dev eth0" in scenario.exec("two", "ip", "route")
    assert "1 packets received" in scenario.exec("one", "ping", "-c", "1", "-W", "30", scenario.name("two"))
    members = json.loads(docker("network", "inspect", net).stdout)[0]["Containers"]
    assert sorted(item["Name"] for item in members.values()) == [scenario.name("one"), scenario.name("two")]
    assert f"{low}" not in json.dumps(members)
    # the CLI checks the gateway's subnet less strictly
    config = {"Config": [{"Subnet": "10.99.0.0/24", "Gateway": "10.98.0.1"}]}
    answer = scenario.engine.api.post("/networks/create", {"Name": "x", "IPAM": config})
    assert answer.error == (
        400,
        "invalid network config:\ninvalid gateway 10.98.0.1: parent subnet 10.99.0.0/24 does not contain this address",
    )
    done = docker("network", "rm", net, check=False)
    assert re.match(
        f"Error response from daemon: error while removing network: network {net} has active endpoints "
        rf'\(name:"{scenario.name("one")}" id:"[0-9a-f]{{12}}", name:"{scenario.name("two")}" id:"[0-9a-f]{{12}}"\)\n',
        done.stderr,
    )
    docker("rm", "-f", scenario.name("one"), scenario.name("two"))
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


def test_subnets_of_which_only_the_size_is_given(scenario: Scenario) -> None:
    version = scenario.engine.api.get("/version").json()["ApiVersion"]
    if version < "1.52":
        pytest.skip("dockerd knows sizes since 29")
    scenario.network("sized", "--ipv6", "--subnet", "::/120", "--subnet", "0.0.0.0/29")
    path = f"/networks/{scenario.name('sized')}"
    subnets = sorted(
        (ipaddress.ip_network(each["Subnet"]) for each in scenario.engine.api.get(path).json()["IPAM"]["Config"]),
        key=lambda x: x.version,
    )
    assert [net.prefixlen for net in subnets] == [29, 120]
    assert not any(net.network_address.is_unspecified for net in subnets)
    scenario.run("in-sized", "--network", scenario.name("sized"))
    assert ipaddress.ip_address(scenario.endpoint("in-sized", scenario.name("sized"))["IPAddress"]) in subnets[0]
    used = [each["IPsInUse"] for each in scenario.engine.api.get(path).json()["Status"]["IPAM"]["Subnets"].values()]
    # A removed container's addresses are free as soon as the answer has come.
    scenario.engine.docker("rm", "-f", scenario.name("in-sized"))
    left = [each["IPsInUse"] for each in scenario.engine.api.get(path).json()["Status"]["IPAM"]["Subnets"].values()]
    assert left == [count - 1 for count in used]


def test_errors_in_dockerds_words(scenario: Scenario) -> None:
    engine = scenario.engine
    before = {item["Id"] for item in engine.api.get("/networks").json()}
    for args, words in BAD:
        done = engine.docker("network", "create", *args, check=False)
        assert done.status == 1, args
        assert words in done.stderr, args
    scenario.network("net", "--subnet", str(scenario.subnet()))
    net = scenario.name("net")
    for args, words in (
        (("create", net), f"network with name {net} already exists"),
        (("create", "--subnet", str(scenario.subnet()), "other"), "Pool overlaps with other one on this address space"),
        (("rm", "none"), "none is a pre-defined network and cannot be removed"),
        (("inspect", "nosuch"), "network nosuch not found"),
        (("connect", net, "nosuch"), "No such container: nosuch"),
    ):
        done = engine.docker("network", *args, check=False)
        assert done.status == 1
        assert words in done.stderr, args
    for host, words in (
        (("--network", net, "--ip", "1.2.3.4"), "no configured subnet contains IP address 1.2.3.4"),
        (("--ip", str(scenario.subnet()[9])), "user-specified IP address is supported on user-defined networks only"),
        (("--network", "nosuch"), "network nosuch not found"),
        (("--network", "container:nosuch"), "No such container: nosuch"),
    ):
        done = engine.docker("run", "--rm", *host, "busybox", "true", check=False)
        assert done.status == 125
        assert words in done.stderr, host
    scenario.run("private")
    scenario.run("hosted", "--network", "host")
    for verb, container in (("connect", "private"), ("disconnect", "hosted")):
        done = engine.docker("network", verb, "host", scenario.name(container), check=False)
        assert f"cannot {verb} container " in done.stderr
        assert "in host network mode" in done.stderr
    engine.api.delete(f"/networks/{net}")
    assert {item["Id"] for item in engine.api.get("/networks").json()} == before


def test_static_address_in_a_subnet_that_the_engine_chose(scenario: Scenario) -> None:
    scenario.network("auto")
    net = scenario.name("auto")
    chosen = scenario.engine.api.get(f"/networks/{net}").json()["IPAM"]["Config"][0]["Subnet"]
    address = str(ipaddress.ip_network(chosen)[5])
    scenario.run("box", "--network", net, "--ip", address)
    assert scenario.endpoint("box", net)["IPAddress"] == address


def test_prune_removes_unused_networks(scenario: Scenario) -> None:
    label = scenario.name("label")
    used = ("--network", scenario.name("used"))
    for name in ("used", "free", "kept"):
        scenario.network(name, "--label", label if name != "kept" else f"{label}-not")
    scenario.run("one", *used)
    done = scenario.engine.docker("network", "prune", "-f", "--filter", f"label={label}")
    assert done.stdout == f"Deleted Networks:\n{scenario.name('free')}\n\n"
    remaining = scenario.engine.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert {scenario.name("used"), scenario.name("kept"), "bridge", "host", "none"} <= set(remaining)


def test_config_only_network(scenario: Scenario) -> None:
    docker = scenario.engine.docker
    scenario.networks.append(scenario.name("made"))
    scenario.network("config", "--config-only", "--subnet", str(scenario.subnet()), "--label", "x=y")
    docker("network", "create", "--config-from", scenario.name("config"), scenario.name("made"))
    inspected = json.loads(docker("network", "inspect", scenario.name("made")).stdout)[0]
    assert (inspected["ConfigFrom"], inspected["Labels"]) == ({"Network": scenario.name("config")}, {"x": "y"})
    # dockerd shows the chosen gateway since 29.
    chosen = {} if scenario.engine.kind == "dockerd" else {"Gateway": str(scenario.subnet()[1])}
    assert inspected["IPAM"]["Config"] == [{"Subnet": str(scenario.subnet()), **chosen}]
    scenario.run("one", "--network", scenario.name("made"))
    assert scenario.endpoint("one", scenario.name("made"))["IPAddress"] == str(scenario.subnet()[2])
    done = docker("network", "rm", scenario.name("config"), check=False)
    assert f'configuration network "{scenario.name("config")}" is in use' in done.stderr


def test_networks_by_docker_py(scenario: Scenario) -> None:
    client, name = scenario.engine.client, scenario.name("net")
    scenario.networks.append(name)
    pool = docker.types.IPAMPool(subnet=str(scenario.subnet()), gateway=str(scenario.subnet()[1]))
    network = client.networks.create(name, ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"by": "py"})
    assert [item.id for item in client.networks.list(names=[name], filters={"driver": "bridge"})] == [network.id]
    scenario.run("one", "--network", name)
    scenario.run("two", "--network", "none")
    one = client.containers.get(scenario.name("one"))
    with pytest.raises(docker.errors.APIError, match="already exists in network"):
        network.connect(one)
    network.disconnect(one, force=True)
    network.connect(one, aliases=["again"], ipv4_address=str(scenario.subnet()[7]))
    network.reload()
    assert [item.name for item in network.containers] == [one.name]
    assert network.attrs["Containers"][one.id]["IPv4Address"] == f"{scenario.subnet()[7]}/26"
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


def test_events_of_a_network(scenario: Scenario) -> None:
    began = int(time.time())
    identity = scenario.network("net")
    scenario.run("one", "--network", scenario.name("net"))
    container = scenario.inspect("one")["Id"]
    for verb in ("disconnect", "connect"):
        scenario.engine.docker("network", verb, scenario.name("net"), scenario.name("one"))
    scenario.engine.docker("rm", "-f", scenario.name("one"))
    scenario.engine.docker("network", "rm", scenario.name("net"))
    filters = json.dumps({"type": ["network"], "network": [identity]})
    lines = scenario.engine.api.get("/events", since=began, until=int(time.time()) + 1, filters=filters).lines()
    actions = ["create", "connect", "disconnect", "connect", "disconnect", "destroy"]
    assert [line["Action"] for line in lines] == actions
    attributes = {"name": scenario.name("net"), "type": "bridge"}
    assert lines[0]["Actor"] == {"ID": identity, "Attributes": attributes}
    assert lines[1]["Actor"] == {"ID": identity, "Attributes": {**attributes, "container": container}}


def test_a_compose_project(scenario: Scenario, tmp_path: Path) -> None:
    project = tmp_path / "compose.yaml"
    project.write_text(
        f"""
name: {scenario.prefix}
services:
  web:
    image: busybox
    command: sh -c 'mkdir /w; echo served >/w/index.html; exec httpd -f -h /w -p 80'
    networks:
      front: {{aliases: [www]}}
      back: {{ipv4_address: {scenario.subnet()[20]}}}
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
    ipam: {{config: [{{subnet: {scenario.subnet()}}}]}}
"""
    )
    compose = ("docker", "compose", "-f", str(project))
    run = scenario.engine.run
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
    remaining = scenario.engine.docker("network", "ls", "--filter", f"name={scenario.prefix}", "-q").stdout
    assert remaining == ""
