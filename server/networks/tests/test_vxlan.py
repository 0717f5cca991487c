"""Networks of a swarm on several nodes, with real traffic between their namespaces."""

import contextlib
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from engine.common.errors import WharfError
from engine.common.system import linux
from server.networks.netlink import neighbours, netns
from server.networks.netlink.rtnetlink import Link
from server.networks.netlink.tests.space import ask, inside, refused, run, until
from server.networks.overlay.model import MeshPort, Peer, SwarmNetwork
from server.networks.tests.nodes import Node, nodes
from server.networks.tests.test_overlay import INGRESS, NET, UDP, VIP, attach, service
from server.networks.tests.test_traffic import echoes

pytestmark = pytest.mark.root

VX, VX_INGRESS = f"vx-{NET.id[:10]}", f"vx-{INGRESS.id[:10]}"


def on(node: Node, network: SwarmNetwork = NET) -> SwarmNetwork:
    """The network as the node has it."""
    own = f"10.0.0.10{node.address[-1]}/24" if network.ingress else ""
    return replace(network, local=node.address, node_address=own)


def realize(node: Node, peers: Mapping[str, Node], network: SwarmNetwork = NET) -> None:
    overlay = node.world.networks.overlay
    node.call(overlay.realize(on(node, network)))
    node.call(overlay.connect(network.id, [Peer(address, other.address) for address, other in peers.items()]))


def task(node: Node, address: str, network: SwarmNetwork = NET) -> str:
    return node.call(attach(node.world, f"task{address.rpartition('.')[2]}", (network, address)))


def link(node: Node, name: str = VX) -> Link | None:
    with contextlib.closing(netns.open_netlink(node.path)) as netlink:
        return netlink.link(name)


def entries(node: Node, name: str = VX) -> Mapping[str, str]:
    found = link(node, name)
    assert found is not None
    with contextlib.closing(netns.open_netlink(node.path)) as netlink:
        return neighbours.present(netlink, found.index)


def test_tasks_reach_each_other(tmp_path: Path) -> None:
    with nodes(tmp_path, 3) as (one, two, three):
        realize(one, {"10.0.1.6": two})
        realize(two, {"10.0.1.5": one})
        near, far = task(one, "10.0.1.5"), task(two, "10.0.1.6")
        assert "3 packets received" in inside(near, "ping", "-c3", "-i0.1", "-W5", "10.0.1.6")
        assert "02:42:0a:00:01:06" in inside(near, "ip", "neigh")
        with echoes((far, "far", 80)), echoes((far, "far", 53), kind=UDP):
            assert ask("10.0.1.6", 80, path=near) == "far 10.0.1.5"
            assert ask("10.0.1.6", 53, path=near, kind=UDP) == "far 10.0.1.5"
        # MTU: the largest packet passes without fragments, a larger one does not leave the container
        assert "mtu 1450" in inside(near, "ip", "link", "show", "eth0")
        assert received(near, far, 1422) == 1422
        with pytest.raises(OSError, match="Message too long"):
            received(near, far, 1423)
        # virtual addresses lead to both nodes
        for node in (one, two):
            node.call(node.world.networks.overlay.balance(NET.id, [service(["10.0.1.5", "10.0.1.6"])]))
        with echoes((near, "near", 80), (far, "far", 80)), echoes((near, "near", 53), (far, "far", 53), kind=UDP):
            for client in (near, far):
                assert Counter(ask(VIP, 80, path=client).split()[0] for _ in range(4)) == {"near": 2, "far": 2}
                assert {ask(VIP, 53, path=client, kind=UDP).split()[0] for _ in range(4)} == {"near", "far"}
        # the task moves to a third node, with its address
        (container,) = two.world.registry
        two.call(two.world.remove(container))
        realize(one, {"10.0.1.6": three})
        realize(three, {"10.0.1.5": one})
        far = task(three, "10.0.1.6")
        with echoes((far, "three", 80)):
            assert ask("10.0.1.6", 80, path=near, seconds=1) == "three 10.0.1.5"
        assert entries(one) == {"10.0.1.6": three.address}
        realize(one, {})
        assert entries(one) == {}
        assert refused("10.0.1.6", 80, path=near)


def received(source: str, target: str, size: int) -> int:
    """Sends a datagram that must not be fragmented; returns the size of the one that arrives."""
    with linux.in_namespace(target, linux.CLONE_NEWNET):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with linux.in_namespace(source, linux.CLONE_NEWNET):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.settimeout(10)
        server.bind(("10.0.1.6", 999))
        client.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        client.sendto(b"x" * size, ("10.0.1.6", 999))
        return len(server.recv(4096))


def test_the_mesh_reaches_tasks_on_other_nodes(tmp_path: Path) -> None:
    with nodes(tmp_path, 2) as (one, two):
        for node in (one, two):  # first a swarm of one node each
            node.call(node.world.networks.overlay.realize(INGRESS))
        assert link(one, VX_INGRESS) is None
        here = task(one, "10.0.0.5", INGRESS)
        realize(one, {"10.0.0.6": two, "10.0.0.102": two}, INGRESS)
        realize(two, {"10.0.0.5": one, "10.0.0.101": one}, INGRESS)
        there = task(two, "10.0.0.6", INGRESS)
        port = MeshPort("tcp", 8080, 80, ["10.0.0.6"])
        dns = MeshPort("udp", 53, 53, ["10.0.0.6"])
        for node in (one, two):
            node.call(node.world.networks.overlay.publish([port, dns]))
        with echoes((there, "there", 80), (here, "here", 80)), echoes((there, "there", 53), kind=UDP):
            # from outside, from the node itself, also by the proxy, and at the node of the task
            assert ask(one.address, 8080) == "there 10.0.0.101"
            assert ask(one.address, 53, kind=UDP) == "there 10.0.0.101"
            for address in ("127.0.0.1", one.address, "::1"):
                assert ask(address, 8080, path=one.path) == "there 10.0.0.101", address
            assert ask(two.address, 8080) == "there 10.0.0.102"
            assert ask("127.0.0.1", 8080, path=two.path) == "there 10.0.0.102"
            both = replace(port, backends=["10.0.0.5", "10.0.0.6"])
            one.call(one.world.networks.overlay.publish([both]))
            assert {ask(one.address, 8080) for _ in range(2)} == {"here 10.0.0.101", "there 10.0.0.101"}
            # the last other node leaves
            one.call(one.world.networks.overlay.connect(INGRESS.id, []))
            one.call(one.world.networks.overlay.realize(INGRESS))
            assert link(one, VX_INGRESS) is None
            one.call(one.world.networks.overlay.publish([replace(port, backends=["10.0.0.5"])]))
            assert ask(one.address, 8080) == "here 10.0.0.1"


def test_a_killed_daemon_interrupts_nothing_and_leaving_removes_all(tmp_path: Path) -> None:
    with nodes(tmp_path, 2) as (one, two):
        realize(one, {"10.0.1.6": two, "10.0.1.7": two})
        realize(two, {"10.0.1.5": one})
        near, far = task(one, "10.0.1.5"), task(two, "10.0.1.6")
        device = link(one)
        with echoes((far, "far", 80)):
            one.call(one.world.kill())
            assert ask("10.0.1.6", 80, path=near) == "far 10.0.1.5"
            # what another program changes meanwhile comes back
            run(["nsenter", f"--net={one.path}", "ip", "neigh", "del", "10.0.1.7", "dev", VX])
            one.call(one.world.open())
            assert link(one) == device
            assert entries(one) == {"10.0.1.6": two.address, "10.0.1.7": two.address}
            run(["nsenter", f"--net={one.path}", "ip", "link", "del", VX])
            assert until(lambda: ask("10.0.1.6", 80, path=near, seconds=1) == "far 10.0.1.5")
        overlay = one.world.networks.overlay
        for container in list(one.world.registry):
            one.call(one.world.remove(container))
        one.call(overlay.close_swarm())
        assert until(lambda: link(one) is None)
        assert one.call(one.world.networks.context.store.load_overlays()) == {}
        # a network that nobody uses is removed
        for container in list(two.world.registry):
            two.call(two.world.remove(container))
        two.call(two.world.networks.overlay.discard(NET.id))
        assert until(lambda: link(two) is None)


def test_conflicts_are_named(tmp_path: Path) -> None:
    with nodes(tmp_path, 2) as (one, two):
        overlay = one.world.networks.overlay
        foreign = ["vx9", "type", "vxlan", "id", str(NET.vni), "dstport", "4789", "local", one.address]
        run(["nsenter", f"--net={one.path}", "ip", "link", "add", *foreign])
        with pytest.raises(WharfError, match="another VXLAN device of this host has the identifier 4097"):
            one.call(overlay.realize(on(one)))
        assert list(overlay.realized()) == []
        run(["nsenter", f"--net={one.path}", "ip", "link", "del", "vx9"])
        with linux.in_namespace(one.path, linux.CLONE_NEWNET):
            busy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with busy:
            busy.bind(("0.0.0.0", 4789))
            with pytest.raises(WharfError, match="UDP port 4789 is in use by another program"):
                one.call(overlay.realize(on(one)))
        realize(one, {})
        settings = {NET.id: {"IPAMConfig": {"IPv4Address": "10.0.1.5"}, "MacAddress": "02:00:00:00:00:01"}}
        with pytest.raises(WharfError, match="MAC address cannot be chosen on network app"):
            one.call(one.world.run("own", network=NET.id, endpoints=settings))
        # thousands of addresses: the first time, and one more; those of this node are not counted
        many = {f"10.0.{number >> 8}.{number & 255}": two for number in range(256, 4096)}
        realize(one, {**many, "10.0.17.1": one})
        assert len(entries(one)) == len(many)
        realize(one, {**many, "10.0.16.1": two})
        assert len(entries(one)) == len(many) + 1
