"""Addresses of nodes: which are accepted, and which is chosen."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest

from engine.common.errors import WharfError
from server.swarm.interfaces import Interface, Interfaces
from server.swarm.operations import addresses


def _interface(name: str, *texts: str, kind: str = "", up: bool = True) -> Interface:
    return Interface(name, kind, up, [ip_address(text) for text in texts])


LOOPBACK = _interface("lo", "127.0.0.1", "::1", up=True)
BRIDGE = _interface("docker0", "172.17.0.1", kind="bridge")
OWN = (ip_network("172.17.0.0/16"),)


def _machine(*interfaces: Interface, advertised: str = "") -> Interfaces:
    return Interfaces([LOOPBACK, BRIDGE, *interfaces], OWN, advertised)


ONE = _machine(_interface("eth0", "192.0.2.1", "fe80::1"))


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("192.0.2.1", "192.0.2.1:2377"),
        ("192.0.2.1:4000", "192.0.2.1:4000"),
        ("tcp://192.0.2.1:4000", "192.0.2.1:4000"),
        (":4000", "0.0.0.0:4000"),
        ("eth0", "eth0:2377"),
        ("[2001:db8::1]", "[2001:db8::1]:2377"),
        ("[2001:db8::1]:4000", "[2001:db8::1]:4000"),
        ("udp://192.0.2.1:1", "udp://192.0.2.1:1"),
        ("192.0.2.1:0", "192.0.2.1:0"),
    ],
)
def test_an_address_is_completed(text: str, completed: str) -> None:
    assert addresses.complete(text) == completed


def test_listen_and_advertise() -> None:
    assert addresses.listen("0.0.0.0:2377", ONE) == ("0.0.0.0", "2377")
    assert addresses.listen("eth0:2377", ONE) == ("192.0.2.1", "2377")
    assert addresses.advertise("", "2377", ONE) == ("192.0.2.1", "2377")
    assert addresses.advertise("docker0", "2377", ONE) == ("172.17.0.1", "2377")
    assert addresses.advertise("198.51.100.7:4000", "2377", ONE) == ("198.51.100.7", "4000")
    assert addresses.advertise("2001:db8::1", "2377", ONE) == ("2001:db8::1", "2377")
    assert addresses.data_path("eth0", ONE) == "192.0.2.1"
    assert addresses.data_path("", ONE) == ""
    for text, sentence in (("nope", "could not parse listen address nope"), ("x:1", "listen address must be")):
        with pytest.raises(WharfError, match=sentence):
            addresses.listen(text, ONE)


def test_the_configured_address_is_the_default() -> None:
    machine = _machine(_interface("eth0", "192.0.2.1"), _interface("eth1", "192.0.2.2"), advertised="eth1")
    assert addresses.advertise("", "2377", machine) == ("192.0.2.2", "2377")
    assert addresses.advertise("eth0", "2377", machine) == ("192.0.2.1", "2377")
    with pytest.raises(WharfError, match="default advertise address must be a non-zero IP address"):
        addresses.advertise("", "2377", _machine(advertised="nope"))


@pytest.mark.parametrize(
    ("interfaces", "chosen"),
    [
        ([_interface("eth0", "192.0.2.1", "2001:db8::1")], "192.0.2.1"),
        ([_interface("eth0", "2001:db8::1")], "2001:db8::1"),
        ([_interface("eth0", "192.0.2.1"), _interface("eth1", "192.0.2.2", up=False)], "192.0.2.1"),
        # In a container all interfaces are virtual.
        ([_interface("eth0", "192.0.2.1", kind="veth")], "192.0.2.1"),
        ([_interface("eth0", "192.0.2.1"), _interface("tun0", "192.0.2.2", kind="tun")], "192.0.2.1"),
    ],
)
def test_the_only_address_is_chosen(interfaces: Sequence[Interface], chosen: str) -> None:
    assert str(addresses.system_address(_machine(*interfaces))) == chosen


@pytest.mark.parametrize(
    ("interfaces", "sentence"),
    [
        ([], "could not find the system's IP address"),
        (
            [_interface("eth0", "192.0.2.1"), _interface("eth1", "192.0.2.2")],
            "could not choose an IP address to advertise since this system has multiple addresses on different"
            " interfaces (192.0.2.1 on eth0 and 192.0.2.2 on eth1)",
        ),
        (
            [_interface("eth0", "192.0.2.1", "192.0.2.2")],
            "could not choose an IP address to advertise since this system has multiple addresses on interface eth0"
            " (192.0.2.1 and 192.0.2.2)",
        ),
    ],
)
def test_no_address_can_be_chosen(interfaces: Sequence[Interface], sentence: str) -> None:
    with pytest.raises(WharfError) as refused:
        addresses.system_address(_machine(*interfaces))
    assert refused.value.message == sentence


def test_an_interface_with_several_addresses_is_refused() -> None:
    machine = _machine(_interface("eth0", "192.0.2.1", "192.0.2.2"), _interface("eth1"))
    with pytest.raises(WharfError, match=r"interface eth0 has more than one IPv4 address \(192.0.2.1 and 192.0.2.2\)"):
        addresses.advertise("eth0", "2377", machine)
    with pytest.raises(WharfError, match="interface eth1 has no usable IPv4 or IPv6 address"):
        addresses.advertise("eth1", "2377", machine)


def test_the_local_address() -> None:
    assert addresses.local("127.0.0.1", "198.51.100.7", ONE) == "127.0.0.1"
    assert addresses.local("0.0.0.0", "192.0.2.1", ONE) == "192.0.2.1"
    assert addresses.local("0.0.0.0", "198.51.100.7", ONE) == "192.0.2.1"
    with pytest.raises(WharfError, match="must specify a listening address because the address to advertise is not"):
        addresses.local("0.0.0.0", "198.51.100.7", _machine())
