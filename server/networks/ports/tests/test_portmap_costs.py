"""Thousands of ports of one container: allocated and released in linear time, up to a limit."""

import time

import pytest

from api_models.container import ContainerConfig, HostConfig, PortBinding
from engine.common import limits
from engine.common.errors import WharfError
from server.networks.model import PortSpan
from server.networks.ports import portmap
from server.networks.ports.allocator import PortAllocator

TARGET = portmap.Target("b", "10.0.0.2", "")


def port_requests(count: int) -> list[portmap.PortRequest]:
    return [portmap.PortRequest("tcp", port, ("0.0.0.0", "::")) for port in range(1, count + 1)]


def test_many_random_ports() -> None:
    ports = PortAllocator()
    begin = time.monotonic()
    portmap.allocate(ports, "owner", port_requests(limits.RANDOM_PORTS), TARGET, lambda *_: False)
    assert len({held.first for held in ports.taken["owner"]}) == limits.RANDOM_PORTS
    ports.release("owner")
    assert not ports.taken
    assert time.monotonic() - begin < 60


def test_too_many_random_ports() -> None:
    ports = PortAllocator()
    with pytest.raises(WharfError, match=r"exceeds the limit RANDOM_PORTS \(8192\)"):
        portmap.allocate(ports, "owner", port_requests(65535), TARGET, lambda *_: False)
    assert not ports.taken


def test_ranges_that_overlap() -> None:
    config = ContainerConfig(
        exposed_ports={f"{first}-65535/{'UDP' if first % 2 else 'tcp'}": {} for first in range(1, 9000)}
    )
    begin = time.monotonic()
    found = portmap.exposed(config, HostConfig(port_bindings={"1/sctp": None}))
    assert found[:3] == [(1, "sctp"), (1, "udp"), (2, "tcp")]
    assert len(found) == 65535 + 65534 + 1
    assert time.monotonic() - begin < 60


def test_ports_with_many_bindings() -> None:
    many = (PortBinding(host_port="1"),) * 100
    ranges: dict[str, tuple[PortBinding, ...] | None] = {f"{first}-65535/tcp": None for first in range(1, 10)}
    for bindings in ({"1-65535/tcp": many}, ranges):
        with pytest.raises(WharfError, match=r"exceeds the limit CONTAINER_PORTS \(200000\)"):
            portmap.port_requests(ContainerConfig(), HostConfig(port_bindings=bindings), ["0.0.0.0"])
    spans = [PortSpan(1, "tcp", ("0.0.0.0",), host, 1) for host in range(1, 65536)]
    begin = time.monotonic()
    rows = portmap.inspect_ports(spans, ContainerConfig(), HostConfig())["1/tcp"]
    assert rows is not None
    assert (len(rows), rows[-1]) == (65535, PortBinding(host_ip="0.0.0.0", host_port="65535"))
    assert time.monotonic() - begin < 60
