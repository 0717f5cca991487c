"""Network fields of a create request; a container shows the effect of each. See matrix.py."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support.api import Api
from compat_tests.support.containers import output, running
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.polling import until


def network_settings(engine: Engine, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.api.get(f"/containers/{identity}/json").json()["NetworkSettings"]
    return found


@honours("HostConfig.NetworkMode")
def test_network_modes(engine: Engine) -> None:
    count = "ls /sys/class/net | wc -l"
    assert output(engine, {"HostConfig": {"NetworkMode": "none"}}, count) == ["1"]
    assert output(engine, {"HostConfig": {"NetworkMode": "default"}}, count) == ["2"]
    with running(engine, {"HostConfig": {"NetworkMode": "bridge"}}) as other:
        address = network_settings(engine, other)["Networks"]["bridge"]["IPAddress"]
        joined = output(engine, {"HostConfig": {"NetworkMode": f"container:{other}"}}, "ip -o -4 addr show eth0")
        assert f" {address}/" in joined[0]


@pytest.mark.parametrize(
    ("mode", "endpoints", "interfaces"),
    [
        ("", ["apart"], 1),
        ("bridge", ["apart"], 1),
        ("none", ["apart"], 1),
        ("bridge", ["bridge", "apart"], 2),
        ("default", ["default", "apart"], 2),
        ("apart", ["bridge"], 1),
        ("bridge", ["none"], 0),
        ("none", ["none"], 0),
    ],
)
def test_endpoints_are_all_networks(
    engine: Engine, oracle: Dockerd, mode: str, endpoints: list[str], interfaces: int
) -> None:
    """The network of NetworkMode is included only if it is named."""
    config: dict[str, Any] = {name: {} for name in endpoints}
    body = {"HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": config}}
    answers = []
    for each in (engine, oracle):
        assert each.api.post("/networks/create", {"Name": "apart"}).status == 201
        try:
            with running(each, body) as identity:
                answers.append(sorted(network_settings(each, identity)["Networks"]))
            assert output(each, body, "ls /sys/class/net | grep -c eth || true") == [str(interfaces)]
        finally:
            each.api.delete("/networks/apart")
    assert answers[0] == answers[1]


def test_host_network_excludes_others(engine: Engine) -> None:
    for mode, name in (("host", "bridge"), ("bridge", "host")):
        body = {"HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": {name: {}}}}
        answer = engine.api.post("/containers/create", {"Image": "busybox", **body})
        assert answer.status == 400
        assert "network" in answer.message


@honours("Config.NetworkDisabled")
def test_network_disabled(engine: Engine) -> None:
    body = {"NetworkDisabled": True, "HostConfig": {"NetworkMode": "bridge"}}
    assert output(engine, body, "ls /sys/class/net") == ["lo"]


@honours("Config.MacAddress", "Endpoint.MacAddress")
def test_mac_address(engine: Engine) -> None:
    mac = "02:42:ac:11:00:77"
    bridge = {"NetworkMode": "bridge"}
    wide = {"Image": "busybox", "Cmd": ["sleep", "60"], "MacAddress": mac, "HostConfig": bridge}
    # dockerd ignores the container's own address from 1.52 on.
    for version in ("1.44",) if engine.kind == "dockerd" else ("1.44", "1.55"):
        api = Api(engine.resources.socket, version=version)
        created = api.post("/containers/create", wide).json()
        try:
            assert "MacAddress field is now deprecated" in created["Warnings"][0]
            assert api.post(f"/containers/{created['Id']}/start").status == 204
            assert network_settings(engine, created["Id"])["Networks"]["bridge"]["MacAddress"] == mac
        finally:
            api.delete(f"/containers/{created['Id']}", force=1)
    endpoints = {"EndpointsConfig": {"bridge": {"MacAddress": mac}}}
    body = {"HostConfig": bridge, "NetworkingConfig": endpoints}
    assert output(engine, body, "cat /sys/class/net/eth0/address") == [mac]


@honours("Endpoint.IPAMConfig", "Endpoint.Aliases")
def test_endpoint_settings(engine: Engine) -> None:
    pool = ipaddress.IPv4Network(engine.resources.pool.partition("=")[2].partition(",")[0])
    *_, subnet = pool.subnets(new_prefix=26)  # networks without a subnet get lower ones
    chosen = str(subnet[27])
    settings = {"IPAM": {"Config": [{"Subnet": str(subnet)}]}}
    created = engine.api.post("/networks/create", {"Name": "fields", "Driver": "bridge", **settings})
    assert created.status == 201, created.body
    try:
        endpoint = {
            "IPAMConfig": {"IPv4Address": chosen},
            "Aliases": ["nickname"],
            "GwPriority": 1,
        }
        body: dict[str, Any] = {
            "HostConfig": {"NetworkMode": "fields"},
            "NetworkingConfig": {"EndpointsConfig": {"fields": endpoint}},
        }
        with running(engine, body) as identity:
            endpoint = network_settings(engine, identity)["Networks"]["fields"]
            assert endpoint["IPAddress"] == chosen
            assert "nickname" in endpoint["Aliases"]
            script = f"nslookup nickname | grep -c '{chosen}$'"
            found = output(engine, {"HostConfig": {"NetworkMode": "fields"}}, script)
            assert found == ["1"]
        bad = {**body, "NetworkingConfig": {"EndpointsConfig": {"fields": {"IPAMConfig": {"IPv4Address": "10.9.9.9"}}}}}
        answer = engine.api.post("/containers/create", {"Image": "busybox", **bad})
        assert (answer.status, answer.message.splitlines()[-1]) == (
            400,
            "no configured subnet contains IP address 10.9.9.9",
        )
        if engine.kind != "dockerd":
            options = {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}
            body["NetworkingConfig"]["EndpointsConfig"]["fields"] = {"DriverOpts": options}
            assert output(engine, body, "cat /proc/sys/net/ipv4/conf/eth0/log_martians") == ["1"]
    finally:
        engine.api.delete("/networks/fields")


def test_files_of_the_last_run(engine: Engine) -> None:
    body = {"Cmd": ["true"], "Hostname": "boxhost", "HostConfig": {"NetworkMode": "none"}}
    with running(engine, body) as identity:
        engine.api.post(f"/containers/{identity}/wait")
        path = engine.api.get(f"/containers/{identity}/json").json()["HostsPath"]
        output = engine.docker("cp", f"{identity}:/etc/hosts", "-").stdout
        assert Path(path).read_text() in output
        assert "boxhost" in engine.docker("cp", f"{identity}:/etc/hostname", "-").stdout


def names_of(engine: Engine, name: str) -> list[str]:
    rows = engine.api.get(f'/containers/json?filters={{"name":["^/{name}$"]}}').json()
    return sorted(rows[0]["Names"], key=len)


@honours("HostConfig.Links")
def test_links(engine: Engine) -> None:
    with running(engine, {"HostConfig": {"NetworkMode": "bridge"}, "ExposedPorts": {"99/tcp": {}}}, name="target"):
        body: dict[str, Any] = {"HostConfig": {"NetworkMode": "bridge", "Links": ["target:alias"]}}
        lines = output(engine, body, "grep -c alias /etc/hosts; echo $ALIAS_NAME; echo $ALIAS_PORT")
        assert lines[0] == "1"
        assert lines[1].endswith("/alias")
        assert lines[2].startswith("tcp://")
        with running(engine, body) as identity:
            document = engine.api.get(f"/containers/{identity}/json").json()
            assert document["HostConfig"]["Links"] == [f"/target:{document['Name']}/alias"]
            assert names_of(engine, "target") == ["/target", f"{document['Name']}/alias"]
        # the list does not show links to a removed container
        assert names_of(engine, "target") == ["/target"]
        created = engine.api.post("/networks/create", {"Name": "linked", "Driver": "bridge"})
        assert created.status == 201
        try:
            engine.api.post("/networks/linked/connect", {"Container": "target"})
            endpoint = {"EndpointsConfig": {"linked": {"Links": ["target:mate"]}}}
            body = {"HostConfig": {"NetworkMode": "linked"}, "NetworkingConfig": endpoint}
            assert output(engine, body, "nslookup mate >/dev/null && echo found") == ["found"]
            # on a user network, a link is a property of the endpoint
            body = {"HostConfig": {"NetworkMode": "linked", "Links": ["target:mate"]}}
            with running(engine, body) as identity:
                document = engine.api.get(f"/containers/{identity}/json").json()
                assert document["HostConfig"]["Links"] is None
                assert document["NetworkSettings"]["Networks"]["linked"]["Links"] is None
        finally:
            engine.api.post("/networks/linked/disconnect", {"Container": "target", "Force": True})
            engine.api.delete("/networks/linked")


@honours("HostConfig.PortBindings", "HostConfig.PublishAllPorts")
def test_published_ports(engine: Engine) -> None:
    """`-P` and `-p` with a port that the engine chooses: a server answers on both."""
    serve = ["sh", "-c", "while :; do echo answer | nc -l -p 80; done"]
    host = {"NetworkMode": "bridge", "PublishAllPorts": True, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}}
    if engine.kind == "dockerd":
        pytest.skip("its test engine lives in a network namespace of its own")
    with running(engine, {"Cmd": serve, "ExposedPorts": {"80/tcp": {}, "81/tcp": {}}, "HostConfig": host}) as identity:
        ports = network_settings(engine, identity)["Ports"]
        assert ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
        assert int(ports["81/tcp"][0]["HostPort"]) > 0
        port = int(ports["80/tcp"][0]["HostPort"])

        def answers() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                    return client.recv(100) == b"answer\n"
            except OSError:
                return False

        assert until(answers)
