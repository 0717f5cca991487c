"""Existing bridges that are adopted with other addresses."""

from ipaddress import ip_interface

import pytest

from server.networks.bridges import bridge
from server.networks.netlink.rtnetlink import Netlink
from server.networks.netlink.tests.space import own_namespace

pytestmark = pytest.mark.root


def test_addresses_change() -> None:
    with own_namespace(), Netlink() as host:

        def addresses(*expected: str) -> set[str]:
            index = bridge.ensure(host, "bridge", [ip_interface(text) for text in expected]).index
            return {
                str(address)
                for at, address in host.addresses(index)
                if at == index and (address.version == 4 or not str(address).startswith("fe80::"))
            }

        assert addresses("10.0.0.1/24", "fd00:1::1/64") == {"10.0.0.1/24", "fd00:1::1/64"}
        assert addresses("10.0.1.1/24", "fd00:2::1/64") == {"10.0.1.1/24", "fd00:2::1/64"}
        assert addresses("10.0.1.1/16") == {"10.0.1.1/16", "fd00:2::1/64"}
        # The kernel has an IPv6 address once, and only a new one gets a new prefix.
        assert addresses("10.0.1.1/16", "fd00:2::1/80") == {"10.0.1.1/16", "fd00:2::1/64"}
