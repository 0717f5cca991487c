"""Networks that need kernel modules which may be missing: ipvlan, 802.1q, SCTP. Skipped by name where one is.

A stock distribution's kernel runs them all.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from engine.common.system import linux
from server.networks.netlink import netns
from server.networks.netlink.rtnetlink import Netlink, address_add, link_add, link_set
from server.networks.netlink.tests.space import WAIT, ask, link_names, own_namespace
from server.networks.tests.lan import HOST, OUTSIDE, UPLINK, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World

pytestmark = pytest.mark.root

GATEWAY = "198.51.100.1"
POOL = {"Config": [{"Subnet": "198.51.100.0/24", "Gateway": GATEWAY}]}
ROUTED = {"Config": [{"Subnet": "198.51.100.0/24"}]}
SCTP = 132


def need(kind: str, *data: tuple[str, object]) -> None:
    """Skips the test if the kernel can't create links of this kind."""
    with own_namespace(), Netlink() as netlink:
        netlink.run(link_add("veth", "below", peer="other"))
        below = netlink.link("below")
        assert below is not None
        try:
            netlink.run(link_add(kind, "probe", parent=below.index, data=data))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            pytest.skip(f"this kernel has no {kind}")


def neighbour(path: str, *, vlan: int = 0) -> None:
    """Gives the neighbour the gateway's address, on a VLAN of its link if one is given."""
    with contextlib.closing(netns.open_netlink(path)) as there:
        link = there.link("eth0")
        if vlan:
            assert link is not None
            there.run(link_add("vlan", "tagged", parent=link.index, data=(("IFLA_VLAN_ID", vlan),)))
            link = there.link("tagged")
        assert link is not None
        there.run(link_set(index=link.index, up=True), address_add(link.index, ip_interface(f"{GATEWAY}/24")))


async def two(world: World) -> tuple[str, str, str, str]:
    """Two containers on the network ``net``: their namespaces and addresses."""
    one, path_one = await world.run("one", network="net")
    other, path_other = await world.run("other", network="net")
    return path_one, path_other, world.address(one, "net"), world.address(other, "net")


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_ipvlan(tmp_path: Path, mode: str) -> None:
    need("ipvlan", ("IFLA_IPVLAN_MODE", {"l2": 0, "l3": 1, "l3s": 2}[mode]))
    routed = mode != "l2"

    async def body(world: World, outside: str) -> None:
        fields: dict[str, Any] = {"Driver": "ipvlan", "Options": {"parent": UPLINK, "ipvlan_mode": mode}}
        await world.network("net", IPAM=ROUTED if routed else POOL, **fields)
        if not routed:
            neighbour(outside)  # routed networks are reached by the neighbour's existing route
        one, other, address_one, address_other = await two(world)
        with echoes((one, "one", 80), (other, "other", 80), (outside, "out", 80)):
            assert ask(address_other, 80, path=one) == f"other {address_one}"
            assert ask(OUTSIDE if routed else GATEWAY, 80, path=one) == f"out {address_one}"
            assert ask(address_one, 80, path=outside).startswith("one ")
            # A parent can't reach its slaves, in any mode.
            assert ask(address_one, 80, seconds=0.3) == ""
        assert UPLINK in link_names()

    scenario(tmp_path, body)


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_a_sub_interface_for_a_vlan(tmp_path: Path, driver: str) -> None:
    """It is created for the network, tags its traffic, and is removed with it; the link below stays."""
    need("vlan", ("IFLA_VLAN_ID", 10))
    need(driver)

    async def body(world: World, outside: str) -> None:
        await world.network("net", Driver=driver, Options={"parent": f"{UPLINK}.10"}, IPAM=POOL)
        neighbour(outside, vlan=10)
        one, other, address_one, address_other = await two(world)
        assert f"{UPLINK}.10" in link_names()
        with echoes((one, "one", 80), (other, "other", 80), (outside, "out", 80)):
            assert ask(address_other, 80, path=one) == f"other {address_one}"
            assert ask(GATEWAY, 80, path=one) == f"out {address_one}"
            assert ask(address_one, 80, path=outside).startswith("one ")
        for container in list(world.registry):
            await world.stop(container)
            await world.remove(container)
        await world.networks.delete("net")
        await world.networks.context.wait_teardowns()
        assert f"{UPLINK}.10" not in link_names()
        assert UPLINK in link_names()

    scenario(tmp_path, body)


@contextlib.contextmanager
def sctp_socket(path: str = "") -> Iterator[socket.socket]:
    """A one-to-one socket in a namespace; this thread's by default."""
    with linux.in_namespace(path, linux.CLONE_NEWNET) if path else contextlib.nullcontext():
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP)
        except OSError as error:
            if error.errno not in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                raise
            pytest.skip("this kernel has no sctp")
    with sock:
        sock.settimeout(WAIT)
        yield sock


def test_a_published_sctp_port(tmp_path: Path) -> None:
    with sctp_socket():
        pass

    def heard(server: socket.socket, address: str, port: int, path: str = "") -> bytes:
        with sctp_socket(path) as client:
            client.connect((address, port))
            answering, _ = server.accept()
            with answering:
                answering.settimeout(WAIT)
                client.sendall(b"asked")
                assert answering.recv(100) == b"asked"
                answering.sendall(b"answered")
                return client.recv(100)

    async def body(world: World, outside: str) -> None:
        web, path = await world.run("web", PortBindings=bindings("8132:132", protocol="sctp"))
        _, client = await world.run("client")
        with sctp_socket(path) as server:
            server.bind((world.address(web), 132))
            server.listen(8)
            assert heard(server, HOST, 8132, outside) == b"answered"
            assert heard(server, HOST, 8132) == b"answered"
            assert heard(server, HOST, 8132, client) == b"answered"
            assert heard(server, world.address(web), 132, client) == b"answered"

    scenario(tmp_path, body)
