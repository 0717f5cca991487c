"""Allocation of addresses, subnets and ports; none is allocated twice."""

import random
from ipaddress import ip_address, ip_network

import pytest

from engine.common.errors import WharfError
from server.networks.ipam import allocator
from server.networks.ipam.allocator import AddressInUse, AddressPool, DefaultPool, PoolExhausted, mac_from_address
from server.networks.ports.allocator import PortAllocator, PortRange


def test_the_lowest_free_address() -> None:
    pool = AddressPool(ip_network("10.0.0.0/29"), reserved={ip_address("10.0.0.1")})
    assert [str(pool.allocate(f"e{n}")) for n in range(5)] == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(PoolExhausted):
        pool.allocate("more")
    pool.release(ip_address("10.0.0.4"), "e2")
    pool.release(ip_address("10.0.0.3"), "somebody else")
    assert str(pool.allocate("again")) == "10.0.0.4"


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.7", "10.0.0.1", "10.0.0.2"])
def test_addresses_that_cannot_be_requested(text: str) -> None:
    pool = AddressPool(ip_network("10.0.0.0/29"), reserved={ip_address("10.0.0.1")})
    pool.allocate("first")
    with pytest.raises(AddressInUse):
        pool.allocate("chosen", requested=ip_address(text))


def test_a_range_bounds_allocation_but_not_requests() -> None:
    pool = AddressPool(ip_network("10.0.0.0/24"), ip_network("10.0.0.128/31"))
    assert [str(pool.allocate(f"e{n}")) for n in range(2)] == ["10.0.0.128", "10.0.0.129"]
    with pytest.raises(PoolExhausted):
        pool.allocate("more")
    assert str(pool.allocate("asked", requested=ip_address("10.0.0.5"))) == "10.0.0.5"
    pool.release(ip_address("10.0.0.128"), "e0")
    assert str(pool.allocate("back", prefer=ip_address("10.0.0.5"))) == "10.0.0.128"


@pytest.mark.parametrize(
    ("subnet", "area", "used", "free"),
    [  # with the gateway and two endpoints
        ("10.0.0.0/24", None, 5, 251),
        ("10.0.0.0/24", "10.0.0.128/30", 5, 2),
        ("fd00::/64", None, 4, 2**64 - 4),
    ],
)
def test_counts_of_addresses(subnet: str, area: str | None, used: int, free: int) -> None:
    network = ip_network(subnet)
    pool = AddressPool(network, ip_network(area) if area else None, {network[1]})
    for owner in ("one", "two"):
        pool.allocate(owner)
    assert pool.counts() == (used, free)


def test_every_address_has_one_owner_in_any_order() -> None:
    chance = random.Random(7)
    pool = AddressPool(ip_network("10.0.0.0/26"))
    held: dict[str, str] = {}
    for number in range(2000):
        if held and chance.random() < 0.5:
            address = chance.choice(sorted(held))
            pool.release(ip_address(address), held.pop(address))
            continue
        if len(held) == 62:
            continue
        owner = f"e{number}"
        address = str(pool.allocate(owner))
        assert address not in held
        held[address] = owner


def test_subnets_avoid_existing_networks() -> None:
    pools = [DefaultPool(ip_network("10.1.0.0/22"), 24)]
    taken = [ip_network("10.1.0.0/25"), ip_network("10.1.2.128/32"), ip_network("0.0.0.0/0")]
    assert str(allocator.choose_subnet(pools, taken, version=4)) == "10.1.1.0/24"
    taken += [ip_network("10.1.1.0/24"), ip_network("10.1.3.0/24")]
    with pytest.raises(PoolExhausted):
        allocator.choose_subnet(pools, taken, version=4)


def test_subnets_of_a_requested_size() -> None:
    pools = [DefaultPool(ip_network("10.0.0.0/16"), 20), DefaultPool(ip_network("fd00::/48"), 64)]
    taken = [ip_network("10.0.0.8/29"), ip_network("10.0.0.0/30"), ip_network("fd00::/64")]
    for size, version, expected in (
        (29, 4, "10.0.0.16/29"),
        (30, 4, "10.0.0.4/30"),
        (0, 4, "10.0.16.0/20"),
        (120, 6, "fd00:0:0:1::/120"),
    ):
        assert str(allocator.choose_subnet(allocator.of_size(pools, size), taken, version=version)) == expected
    with pytest.raises(WharfError, match="invalid address pool"):
        allocator.of_size(pools, 8)


def test_a_mac_for_each_address() -> None:
    assert mac_from_address(ip_address("172.17.0.2")) == "02:42:ac:11:00:02"
    assert mac_from_address(ip_address("fd00::1:2")) != mac_from_address(ip_address("fd00::1:3"))


def test_port_conflicts() -> None:
    ports = PortAllocator()
    ports.allocate("a", PortRange("tcp", "127.0.0.1", 80, 80))
    ports.allocate("a", PortRange("udp", "127.0.0.1", 80, 80))
    ports.allocate("b", PortRange("tcp", "192.0.2.1", 80, 80))
    ports.allocate("b", PortRange("tcp", "::1", 80, 80))
    ports.allocate("c", PortRange("tcp", "0.0.0.0", 1000, 2999))
    for requested, at in (
        (PortRange("tcp", "0.0.0.0", 80, 80), 80),
        (PortRange("tcp", "::", 70, 90), 80),
        (PortRange("tcp", "192.0.2.7", 2999, 2999), 2999),
        (PortRange("tcp", "192.0.2.7", 900, 1000), 1000),
    ):
        with pytest.raises(WharfError, match=f":{at} failed: port is already allocated"):
            ports.allocate("d", requested)
    ports.release("a")
    ports.allocate("d", PortRange("tcp", "127.0.0.1", 80, 80))
    ports.release("b")
    ports.release("c")
    ports.release("d")
    assert ports.taken == {}
    ports.allocate("e", PortRange("tcp", "0.0.0.0", 1, 65535))


def test_random_ports_are_reused_last() -> None:
    ports = PortAllocator()
    for expected in (5000, 5001, 5002, 5003, 5000):
        port = next(ports.free("tcp", ["0.0.0.0", "::"], 5000, 5003))
        assert port == expected
        ports.allocate("a", PortRange("tcp", "0.0.0.0", port, port))
        ports.mark_used(port, 5000, 5003)
        ports.release("a")
    assert next(ports.free("tcp", ["0.0.0.0"], 6000, 6003)) == 6000
    ports.allocate("b", PortRange("tcp", "::", 5000, 5001))
    assert list(ports.free("tcp", ["0.0.0.0", "::"], 5000, 5002)) == [5002]
