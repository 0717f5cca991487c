"""From ``-p`` to published ports: ranges stay ranges, and a failing request allocates nothing."""

from typing import Any

import pytest

from api_models.container import ContainerConfig, HostConfig
from engine.common.errors import WharfError
from server.networks.ports import portmap
from server.networks.ports.allocator import PortAllocator
from server.networks.ports.portmap import Published, Target

EVERYWHERE = ["0.0.0.0", "::"]


def published(
    bindings: dict[str, Any],
    target: Target | None = None,
    ports: PortAllocator | None = None,
    own: tuple[int, int] | None = None,
) -> Published:
    wanted = portmap.port_requests(ContainerConfig(), HostConfig.parse({"PortBindings": bindings}), EVERYWHERE)
    allocator = ports if ports is not None else PortAllocator()
    return portmap.allocate(allocator, "owner", wanted, target or Target("br", "10.0.0.2", ""), lambda *_: False, own)


def shown(done: Published) -> dict[str, list[tuple[str, str]]]:
    found = portmap.inspect_ports(done.ports, ContainerConfig(), HostConfig())
    return {key: [(item.host_ip, item.host_port) for item in value or ()] for key, value in found.items()}


def test_neighbours_become_one_span() -> None:
    done = published({f"{port}/tcp": [{"HostPort": str(port + 1000)}] for port in range(7000, 9000)})
    assert [(span.port, span.host_port, span.count) for span in done.ports] == [(7000, 8000, 2000)]
    assert len(done.listens) == 1
    assert (done.listens[0].port, done.listens[0].size, done.listens[0].both) == (8000, 2000, True)
    assert len(shown(done)) == 2000
    assert shown(done)["8999/tcp"] == [("0.0.0.0", "9999"), ("::", "9999")]


def test_fixed_ports_are_allocated_first() -> None:
    done = published({"80/tcp": [{"HostPort": "0"}, {}], "81/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}]})
    assert shown(done)["81/tcp"] == [("127.0.0.1", "32768")]
    assert len(shown(done)["80/tcp"]) == 4
    assert "32768" not in {port for _, port in shown(done)["80/tcp"]}


def test_a_range_of_the_host_for_one_port() -> None:
    ports = PortAllocator()
    first = published({"80/tcp": [{"HostPort": "9000-9001"}]}, ports=ports)
    assert shown(first)["80/tcp"][0] == ("0.0.0.0", "9000")
    assert shown(published({"80/tcp": [{"HostPort": "9000-9001"}]}, ports=ports))["80/tcp"][0] == ("0.0.0.0", "9001")
    with pytest.raises(WharfError, match="port is already allocated"):
        published({"80/tcp": [{"HostPort": "9000-9001"}]}, ports=ports)


def test_random_ports_are_of_the_range_of_the_role() -> None:
    ports = PortAllocator()
    done = published({"80/tcp": [{}, {"HostPort": "0"}], "81/udp": None}, ports=ports, own=(20000, 20001))
    assert {port for rows in shown(done).values() for _, port in rows} == {"20000", "20001"}
    with pytest.raises(WharfError, match="the policy allows you the host ports 20000-20001, and none of them is free"):
        published({"82/tcp": [{}]}, ports=ports, own=(20000, 20001))
    assert ports.taken.keys() == set()


def test_a_failed_request_allocates_nothing() -> None:
    ports = PortAllocator()
    with pytest.raises(WharfError, match=r"Bind for 0\.0\.0\.0:90 failed: port is already allocated"):
        published({"80/tcp": [{"HostPort": "90"}], "81/tcp": [{"HostPort": "90"}]}, ports=ports)
    assert ports.taken == {}


def test_routed_networks_translate_nothing() -> None:
    done = published({"80/tcp": [{"HostPort": "8080"}]}, Target("br", "10.0.0.2", "fd00::2", nat4=False, nat6=False))
    assert done.listens == []
    assert {(item.target, item.translate) for item in done.publications} == {("10.0.0.2", False), ("fd00::2", False)}
    assert shown(done) == {"80/tcp": [("0.0.0.0", ""), ("::", "")]}


def test_one_family_is_routed() -> None:
    done = published({"80/tcp": [{"HostPort": "8080"}]}, Target("br", "10.0.0.2", "fd00::2", nat4=False))
    assert [(item.host, item.both) for item in done.listens] == [("::", False)]
    assert {(item.target, item.translate) for item in done.publications} == {("10.0.0.2", False), ("fd00::2", True)}
    assert shown(done) == {"80/tcp": [("::", "8080"), ("0.0.0.0", "")]}
    only4 = published({"80/tcp": [{"HostIp": "127.0.0.1"}]}, Target("br", "10.0.0.2", "fd00::2", nat4=False))
    assert (only4.listens, shown(only4)) == ([], {"80/tcp": [("0.0.0.0", "")]})


@pytest.mark.parametrize(
    "text", ["", "0/tcp", "65536", "9-8", "80/icmp", "80-", "-80", "8o/tcp", "80/tcp/udp", "\u0664/tcp"]
)
def test_invalid_ports(text: str) -> None:
    with pytest.raises(WharfError, match="invalid port specification"):
        portmap.parse_port(text)
