"""Encrypted networks of a swarm on several nodes: what passes between the nodes, and what they accept.

The kernel of the build machine may lack ESP: then the traffic is tested in a virtual machine (deploy/README.md).
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.system import linux
from server.networks.model import ENCRYPTED
from server.networks.netlink import netns, xfrm
from server.networks.netlink.tests.space import WAIT, ask, inside, run, until
from server.networks.netlink.xfrm import Association
from server.networks.overlay.model import Keyring, Peer, SwarmNetwork
from server.networks.tests.nodes import Node, nodes
from server.networks.tests.test_overlay import attach
from server.networks.tests.test_traffic import echoes
from server.networks.tests.test_vxlan import link, received

pytestmark = pytest.mark.root
needs_esp = pytest.mark.skipif(not xfrm.supported(), reason="the kernel has no ESP")

NET = SwarmNetwork(
    "nwenc0123456789abcdefghijk",
    "secret",
    [("10.0.1.0/24", "10.0.1.1")],
    4097,
    options={ENCRYPTED: ""},
    port=4790,
)
VX = f"vx-{NET.id[:10]}"
MARKER = b"a marker that nobody else may read"
KEYS = [bytes([number]) * 32 for number in range(8)]


def keyring(rotations: int = 0) -> Keyring:
    return Keyring(*KEYS[rotations : rotations + 3])


def realize(node: Node, others: Sequence[tuple[str, Node]], network: SwarmNetwork = NET) -> None:
    overlay = node.world.networks.overlay
    node.call(overlay.realize(replace(network, local=node.address)))
    node.call(overlay.connect(network.id, [Peer(address, other.address) for address, other in others]))


def encrypt(node: Node, rotations: int = 0) -> None:
    node.call(node.world.networks.overlay.encrypt(keyring(rotations)))


@contextmanager
def encrypted_pair(directory: Path) -> Iterator[tuple[Node, Node, str, str]]:
    """Two nodes with keys, and the network namespace of a task on each."""
    with nodes(directory, 2) as (one, two):
        realize(one, [("10.0.1.6", two)])
        realize(two, [("10.0.1.5", one)])
        for node in (one, two):
            encrypt(node)
        near = one.call(attach(one.world, "task5", (NET, "10.0.1.5")))
        far = two.call(attach(two.world, "task6", (NET, "10.0.1.6")))
        yield one, two, near, far


def associations(node: Node) -> set[Association]:
    def found() -> set[Association]:
        with xfrm.open_channel() as channel:
            return set(xfrm.associations(channel, node.address))

    return netns.call(node.path, found)


def policies(node: Node) -> str:
    return run(["nsenter", f"--net={node.path}", "ip", "xfrm", "policy"])


@contextmanager
def capture() -> Iterator[list[bytes]]:
    """The packets on the bridge between the nodes."""
    packets: list[bytes] = []
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.bind(("lan0", 0))
    sock.settimeout(0.2)
    ended = threading.Event()

    def receive() -> None:
        while not ended.is_set():
            try:
                packets.append(sock.recv(1 << 16))
            except TimeoutError:
                continue

    run(["ip", "link", "set", "lan0", "promisc", "on"])
    thread = threading.Thread(target=receive)
    thread.start()
    try:
        yield packets
    finally:
        ended.set()
        thread.join()
        sock.close()


def protocols(packets: Sequence[bytes]) -> set[int]:
    """The protocols of the IPv4 packets between the first two nodes."""
    ends = {socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")}
    return {each[23] for each in packets if each[12:14] == b"\x08\0" and {each[26:30], each[30:34]} == ends}


def send(path: str, target: str, data: bytes) -> None:
    with linux.in_namespace(path, linux.CLONE_NEWNET):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.sendto(data, (target, 999))


def in_clear(source: str, target: str, data: bytes) -> bytes:
    """A VXLAN packet of the network as an attacker between the nodes would make it: with a UDP datagram inside."""
    addresses = [socket.inet_aton(each) for each in (source, target)]
    macs = [b"\x02\x42" + each for each in addresses]
    udp = struct.pack(">HHHH", 998, 999, 8 + len(data), 0) + data
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + b"".join(addresses)
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return struct.pack(">II", 0x08000000, NET.vni << 8) + macs[1] + macs[0] + b"\x08\0" + head + udp


@contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    with linux.in_namespace(path, linux.CLONE_NEWNET):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.bind(("0.0.0.0", 999))
        sock.settimeout(0.5)
        yield sock


def test_a_kernel_without_esp_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfrm, "supported", lambda: False)
    with nodes(tmp_path, 1) as (one,):
        with pytest.raises(WharfError, match=r"can't be encrypted: .*CONFIG_INET_ESP") as refused:
            realize(one, [])
        assert refused.value.kind is Kind.NOT_IMPLEMENTED
        assert link(one, VX) is None


def test_without_keys_nothing_leaves_and_nothing_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policies need no ESP."""
    monkeypatch.setattr(xfrm, "supported", lambda: True)
    with nodes(tmp_path, 2) as (one, two):
        realize(one, [("10.0.1.6", two)])
        realize(two, [("10.0.1.5", one)])
        near = one.call(attach(one.world, "task5", (NET, "10.0.1.5")))
        far = two.call(attach(two.world, "task6", (NET, "10.0.1.6")))
        with capture() as packets, listening(far) as server:
            send(near, "10.0.1.6", MARKER)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
                for port in (4789, 4790):
                    attacker.sendto(in_clear("10.0.1.5", "10.0.1.6", MARKER), (two.address, port))
            with pytest.raises(TimeoutError):
                server.recv(4096)
        assert protocols(packets) <= {1}
        # the device's removal takes the policies with it
        for node in (one, two):
            assert node.address in policies(node)
            for container in list(node.world.registry):
                node.call(node.world.remove(container))
            node.call(node.world.networks.overlay.discard(NET.id))
            assert until(lambda node=node: link(node, VX) is None and not policies(node))  # type: ignore[misc]


def test_what_another_program_removes_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Programs of IPsec flush all of it when they start."""
    monkeypatch.setattr(xfrm, "supported", lambda: True)
    with nodes(tmp_path, 2) as (one, two):
        realize(one, [("10.0.1.6", two)])
        whole = policies(one)
        assert whole.count(one.address) == 2
        for _ in range(2):
            run(["nsenter", f"--net={one.path}", "ip", "xfrm", "policy", "flush"])
            assert until(lambda: policies(one) == whole)
        # A new daemon watches, too.
        one.call(one.world.kill())
        one.call(one.world.open())
        run(["nsenter", f"--net={one.path}", "ip", "xfrm", "policy", "flush"])
        assert until(lambda: policies(one) == whole)
        assert until(lambda: caplog.text.count("IPsec of encrypted networks was removed by another program") == 3)


def test_the_device_is_not_made_without_its_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfrm, "supported", lambda: True)

    def refuse(*_: object) -> None:
        raise OSError(93, "Protocol not supported")

    with nodes(tmp_path, 2) as (one, _):
        monkeypatch.setattr(xfrm, "require_encryption", refuse)
        with pytest.raises(WharfError, match="network secret can't be encrypted: protocol not supported"):
            realize(one, [])
        assert link(one, VX) is None


@needs_esp
def test_packets_between_nodes_are_encrypted(tmp_path: Path) -> None:
    with nodes(tmp_path, 3) as (one, two, three):
        realize(one, [("10.0.1.6", two)])
        realize(two, [("10.0.1.5", one)])
        for node in (one, two):
            encrypt(node)
        near = one.call(attach(one.world, "task5", (NET, "10.0.1.5")))
        far = two.call(attach(two.world, "task6", (NET, "10.0.1.6")))
        with capture() as packets, listening(far) as server:
            send(near, "10.0.1.6", MARKER)
            assert server.recv(4096) == MARKER
        assert 50 in protocols(packets)
        assert 17 not in protocols(packets)
        assert not any(MARKER in each for each in packets)
        # MTU: the largest packet passes without fragments, a larger one does not leave the container
        assert "mtu 1416" in inside(near, "ip", "link", "show", "eth0")
        with capture() as packets:
            assert received(near, far, 1388) == 1388
        assert max(len(each) - 14 for each in packets if each[23] == 50) <= 1500
        with pytest.raises(OSError, match="Message too long"):
            received(near, far, 1389)
        # in clear, nobody is heard: from an attacker, and from a node itself
        with listening(far) as server:
            packet = in_clear("10.0.1.5", "10.0.1.6", MARKER)
            for path in ("", one.path, three.path):
                with linux.in_namespace(path or "/proc/thread-self/ns/net", linux.CLONE_NEWNET):
                    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with sock:
                    # from node one, this packet is encrypted by the policy of its port
                    for port in (4789, 4790) if path != one.path else (4789,):
                        sock.sendto(packet, (two.address, port))
            with pytest.raises(TimeoutError):
                server.recv(4096)
        # what has the wrong key is dropped
        encrypt(one, 4)
        with listening(far) as server:
            send(near, "10.0.1.6", MARKER)
            with pytest.raises(TimeoutError):
                server.recv(4096)


@needs_esp
def test_a_rotation_interrupts_no_connection(tmp_path: Path) -> None:
    with encrypted_pair(tmp_path) as (one, two, near, far):
        before = associations(one)
        assert len(before) == 4
        with connected(far, near) as alive:
            # The kernel may drop the packet that is on its way through an association that is removed.
            assert _lost(near, far, [lambda: encrypt(one, 1), lambda: encrypt(two, 1)]) <= 1
            assert alive()
            # of those to this node, the older one is another one now; that from this node is
            assert len(associations(one)) == 4
            assert len(associations(one) & before) == 2
            assert _lost(far, near, [lambda: encrypt(two, 2), lambda: encrypt(one, 2)]) <= 1
            assert alive()


@contextmanager
def connected(server: str, client: str) -> Iterator[Callable[[], bool]]:
    """A TCP connection between two namespaces. The function says whether it carries data."""
    with linux.in_namespace(server, linux.CLONE_NEWNET):
        listener = socket.create_server(("0.0.0.0", 80))
    with linux.in_namespace(client, linux.CLONE_NEWNET):
        near = socket.socket()
    with listener, near:
        near.settimeout(WAIT)
        near.connect(("10.0.1.6", 80))
        far = listener.accept()[0]
        with far:
            far.settimeout(WAIT)

            def alive() -> bool:
                near.sendall(MARKER)
                return far.recv(len(MARKER), socket.MSG_WAITALL) == MARKER

            yield alive


def _lost(source: str, target: str, steps: Sequence[Callable[[], None]]) -> int:
    """Sends datagrams while ``steps`` are done; returns how many were lost."""
    address = "10.0.1.6" if "10.0.1.6" in inside(target, "ip", "addr") else "10.0.1.5"
    ended = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        while not ended.is_set():
            send(source, address, struct.pack(">I", sent))
            sent += 1
            time.sleep(0.005)

    with listening(target) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for step in steps:
                before = sent
                assert until(lambda before=before: sent > before + 20)  # type: ignore[misc]
                step()
            before = sent
            assert until(lambda: sent > before + 20)
        finally:
            ended.set()
            thread.join()
        got = 0
        try:
            while True:
                server.recv(64)
                got += 1
        except TimeoutError:
            return sent - got


@needs_esp
def test_a_killed_daemon_interrupts_nothing_and_leaving_removes_all(tmp_path: Path) -> None:
    with encrypted_pair(tmp_path) as (one, two, near, far):
        with echoes((far, "far", 80)):
            run(["nsenter", f"--net={one.path}", "ip", "xfrm", "state", "flush"])
            assert until(lambda: len(associations(one)) == 4)
            assert ask("10.0.1.6", 80, path=near) == "far 10.0.1.5"
            one.call(one.world.kill())
            assert ask("10.0.1.6", 80, path=near) == "far 10.0.1.5"
            one.call(one.world.open())
            before = associations(one)
            assert ask("10.0.1.6", 80, path=near) == "far 10.0.1.5"
            realize(one, [("10.0.1.6", two), ("10.0.1.7", two)])
            encrypt(one)
            assert associations(one) == before
            assert ask("10.0.1.6", 80, path=near) == "far 10.0.1.5"
        # a daemon without keys knows which ones are its own
        one.call(one.world.kill())
        one.call(one.world.open())
        for container in list(one.world.registry):
            one.call(one.world.remove(container))
        one.call(one.world.networks.overlay.close_swarm())
        assert until(lambda: not policies(one))
        assert associations(one) == set()
        for path in (one.root, two.root):
            for file in (path / "data").rglob("*"):
                if file.is_file():
                    content = file.read_bytes()
                    assert not any(key in content for key in KEYS[1:]), file
