"""Thousands of ports of one container: taken and given back in linear time, and not without end."""

import time

import pytest

from engine import limits
from engine.errors import WharfError
from engine.network.ports import PortAllocator
from server.services.networks import portmap

TARGET = portmap.Target("b", "10.0.0.2", "")


def wishes(count: int) -> list[portmap.Wish]:
    return [portmap.Wish("tcp", port, ("0.0.0.0", "::")) for port in range(1, count + 1)]


def test_many_random_ports() -> None:
    ports = PortAllocator()
    begin = time.monotonic()
    portmap.allocate(ports, "owner", wishes(limits.RANDOM_PORTS), TARGET, lambda *_: False)
    assert len({held.first for held in ports.taken["owner"]}) == limits.RANDOM_PORTS
    ports.release("owner")
    assert not ports.taken
    assert time.monotonic() - begin < 60


def test_too_many_random_ports() -> None:
    ports = PortAllocator()
    with pytest.raises(WharfError, match=r"exceeds the limit RANDOM_PORTS \(8192\)"):
        portmap.allocate(ports, "owner", wishes(65535), TARGET, lambda *_: False)
    assert not ports.taken
