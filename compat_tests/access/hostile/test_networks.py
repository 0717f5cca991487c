"""Networks of a victim, attacked from containers of others: packets, spoofed packets, names, gateways, ports."""

from __future__ import annotations

import itertools
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from compat_tests.access.hostile.conftest import Victim
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User

NETWORKS = ("bridge", "net4", "net6")
SERVE = "echo {who} > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
#: Asks all addresses at once and prints those that answer.
ASK = """
for each in {targets}; do
  (wget -q -T 2 -O - http://$each/ > /dev/null 2>&1 && echo tcp $each) &
  bare=$(echo $each | tr -d '[]')
  (ping -c 1 -W 2 $bare > /dev/null 2>&1 && echo icmp $each) &
done
wait
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A container with an HTTP server on three networks of its owner. ``settings``: by network."""

    user: User
    id: str
    pid: int
    settings: dict[str, dict[str, Any]]

    @property
    def addresses(self) -> list[str]:
        found = [each["IPAddress"] for each in self.settings.values()]
        return [*found, f"[{self.settings['net6']['GlobalIPv6Address']}]"]

    @property
    def gateways(self) -> list[str]:
        found = [each["Gateway"] for each in self.settings.values()]
        return [*found, f"[{self.settings['net6']['IPv6Gateway']}]"]


def _serve(user: User, *words: str) -> Server:
    prefix = f"fd{random.randrange(256):02x}:{random.randrange(1 << 16):x}::/64"
    user.docker("network", "create", "net4")
    user.docker("network", "create", "--ipv6", "--subnet", prefix, "net6")
    script = SERVE.format(who=user.name)
    id = user.docker("run", "-d", "--name", "server", *words, "busybox", "sh", "-c", script).stdout.strip()
    for name in NETWORKS[1:]:
        user.docker("network", "connect", name, "server")
    shown = user.api.get(f"/containers/{id}/json").json()
    return Server(user, id, shown["State"]["Pid"], shown["NetworkSettings"]["Networks"])


@pytest.fixture(scope="module")
def servers(hostile_lab: Lab) -> Iterator[tuple[Server, Server]]:
    """alice's and bob's."""
    alice, bob = hostile_lab["alice"], hostile_lab["bob"]
    yield _serve(alice, "-p", "80", "-p", "127.0.0.1::80"), _serve(bob)
    for user in (alice, bob):
        user.docker("rm", "-f", "server")
        user.docker("network", "rm", "net4", "net6")


def _answering(user: User, network: str, targets: Sequence[str]) -> set[str]:
    """What answers in a container of the user on one network: ``tcp ADDRESS`` and ``icmp ADDRESS``."""
    script = ASK.format(targets=" ".join(f"'{each}'" for each in targets))
    return set(user.docker("run", "--rm", "--network", network, "busybox", "sh", "-c", script).stdout.splitlines())


@pytest.mark.parametrize("network", NETWORKS)
def test_no_packets_between_owners(servers: tuple[Server, Server], network: str) -> None:
    alices, bobs = servers
    seen = _answering(bobs.user, network, [*alices.addresses, *bobs.addresses])
    own = bobs.settings[network]["IPAddress"]
    assert f"tcp {own}" in seen
    assert f"icmp {own}" in seen
    if network == "net6":
        assert f"tcp {bobs.addresses[-1]}" in seen
    assert not [each for each in seen if each.split()[1] in alices.addresses]


def _in_netns(pid: int, script: str, *words: str) -> subprocess.Popen[str]:
    """Run Python in the network namespace of a container, as its root can run any program."""
    argv = ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", script, *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


#: Prints the datagrams that arrive at an address, until one says "end".
RECEIVE = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 9999))
sock.settimeout(60)
print("ready", flush=True)
while (data := sock.recv(100)) != b"end":
    print(data.decode(), flush=True)
"""
END = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'end', (sys.argv[1], 9999))"
#: Seconds after which a datagram that was sent has arrived, or never does.
LATE = 1.5
#: Sends a UDP datagram with a chosen source in a frame to a chosen MAC address, from each interface.
SEND = """
import socket, struct, sys
source, target, payload = sys.argv[1], sys.argv[2], sys.argv[3].encode()
mac = bytes.fromhex(sys.argv[4].replace(":", ""))
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
udp = struct.pack("!4H", 9999, 9999, 8 + len(payload), 0) + payload
addresses = socket.inet_aton(source) + socket.inet_aton(target)
head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
head = head[:10] + struct.pack("!H", checksum(head + addresses)) + addresses
for _, name in socket.if_nameindex():
    if name != "lo":
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sock.bind((name, 0))
        sock.send(mac + sock.getsockname()[4] + b"\\x08\\x00" + head + udp)
"""


def _mac_of_gateway(server: Server, network: str) -> str:
    """The MAC address of the host's end, which a container resolves."""
    gateway = server.settings[network]["Gateway"]
    server.user.docker("exec", server.id, "ping", "-c", "1", "-W", "2", gateway)
    table = server.user.docker("exec", server.id, "cat", "/proc/net/arp").stdout
    return next(line.split()[3] for line in table.splitlines() if line.split()[0] == gateway)


def _received(listening: Server, network: str, sender: Server, *sent: tuple[str, str]) -> list[tuple[str, str]]:
    """Send datagrams with these sources to these MAC addresses; return those that arrive at a server's address."""
    target = listening.settings[network]["IPAddress"]
    with _in_netns(listening.pid, RECEIVE, target) as receiver:
        assert receiver.stdout
        assert receiver.stdout.readline() == "ready\n"
        for source, mac in sent:
            with _in_netns(sender.pid, SEND, source, target, f"{source} {mac}", mac) as sending:
                assert sending.wait(60) == 0
        time.sleep(LATE)
        with _in_netns(listening.pid, END, target) as ending:
            assert ending.wait(60) == 0
        arrived = [line.split() for line in receiver.stdout]
        assert receiver.wait(60) == 0
    return [(source, mac) for source, mac in arrived]


@pytest.mark.parametrize("network", ["bridge", "net4"])
def test_spoofed_packets_do_not_arrive(servers: tuple[Server, Server], network: str) -> None:
    """bob sends from an address of alice's network, by the host's end of his own bridge, or to her MAC address."""
    alices, bobs = servers
    own = bobs.settings[network]
    neighbour = own["IPAddress"].rpartition(".")[0] + ".77"
    assert _received(bobs, network, bobs, (neighbour, own["MacAddress"])) == []  # a bridge sends nothing back
    gateway = _mac_of_gateway(bobs, network)
    hers = alices.settings[network]
    sources = (hers["Gateway"], hers["IPAddress"].rpartition(".")[0] + ".77", own["IPAddress"], "127.0.0.1")
    macs = (gateway, hers["MacAddress"], "ff:ff:ff:ff:ff:ff")
    assert _received(alices, network, bobs, *itertools.product(sources, macs)) == []


def test_the_sender_of_the_test_above_works(servers: tuple[Server, Server]) -> None:
    """A second container of alice reaches the first one."""
    alice = servers[0].user
    id = alice.docker("run", "-d", "--network", "net4", "busybox", "sleep", "600").stdout.strip()
    try:
        shown = alice.api.get(f"/containers/{id}/json").json()
        second = Server(alice, id, shown["State"]["Pid"], shown["NetworkSettings"]["Networks"])
        sent = second.settings["net4"]["IPAddress"], servers[0].settings["net4"]["MacAddress"]
        assert _received(servers[0], "net4", second, sent) == [sent]
    finally:
        alice.docker("rm", "-f", id)


#: Claims addresses: unsolicited ARP answers, and unsolicited neighbour advertisements with the override flag.
CLAIM = """
import socket, struct, sys
gateway4, gateway6 = sys.argv[1:]
for _, name in socket.if_nameindex():
    if name == "lo":
        continue
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((name, 0))
    own = sock.getsockname()[4]
    claimed = socket.inet_aton(gateway4)
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + own + claimed + b"\\xff" * 6 + claimed
    sock.send(b"\\xff" * 6 + own + b"\\x08\\x06" + arp)
    claimed, everybody = (socket.inet_pton(socket.AF_INET6, each) for each in (gateway6, "ff02::1"))
    body = struct.pack("!BBHI", 136, 0, 0, 0xA0000000) + claimed + b"\\x02\\x01" + own
    pseudo = claimed + everybody + struct.pack("!II", len(body), 58)
    total = sum(struct.unpack(f"!{len(pseudo + body) // 2}H", pseudo + body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    packet = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + claimed + everybody + body
    sock.send(b"\\x33\\x33\\x00\\x00\\x00\\x01" + own + b"\\x86\\xdd" + packet)
"""


def _neighbours(server: Server) -> dict[str, str]:
    """The MAC addresses that a container knows of its gateways."""
    gateways = [gateway.strip("[]") for gateway in server.gateways]
    for gateway in gateways:
        server.user.docker("exec", server.id, "ping", "-c", "1", "-W", "2", gateway, check=False)
    argv = ["nsenter", "-t", str(server.pid), "-n", "ip", "-j", "neigh"]
    entries = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout)
    return {entry["dst"]: entry["lladdr"] for entry in entries if entry["dst"] in gateways and "lladdr" in entry}


def test_claimed_addresses_stay_on_the_own_bridge(servers: tuple[Server, Server]) -> None:
    alices, bobs = servers
    before = _neighbours(alices)
    assert len(before) == 4
    for gateway in alices.gateways[:3]:
        with _in_netns(bobs.pid, CLAIM, gateway, alices.gateways[3].strip("[]")) as sender:
            assert sender.wait(60) == 0
    assert _neighbours(alices) == before


def _query(server: Server, name: str, kind: int) -> bytes:
    """The answer of a container's resolver; b"" for none within two seconds."""
    script = """
import socket, struct, sys
labels = b"".join(bytes([len(each)]) + each.encode() for each in sys.argv[1].split("."))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(2)
sock.connect(("127.0.0.11", 53))
sock.send(struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, int(sys.argv[2]), 1))
try:
    print(sock.recv(4096)[2:].hex())
except TimeoutError:
    print()
"""
    with _in_netns(server.pid, script, name, str(kind)) as asked:
        assert asked.stdout
        return bytes.fromhex(asked.stdout.read().strip())


def _answers(reply: bytes) -> int:
    return int.from_bytes(reply[4:6], "big") if reply else 0


def test_names_and_addresses_of_others_do_not_resolve(victim: Victim, servers: tuple[Server, Server]) -> None:
    alices, bobs = servers
    a, aaaa, ptr = 1, 28, 12
    assert _answers(_query(alices, "server", a)) == 1
    reverse = [".".join(reversed(each["IPAddress"].split("."))) + ".in-addr.arpa" for each in alices.settings.values()]
    full = socket.inet_pton(socket.AF_INET6, alices.addresses[-1].strip("[]")).hex()
    reverse.append(".".join(reversed(full)) + ".ip6.arpa")
    assert _answers(_query(alices, reverse[1], ptr)) == 1
    names = ["vic-web", "vic-web.vic-net", "server.net4x", victim.container[:12], alices.id[:12], alices.id]
    for name in (each for each in names if len(each) < 64):
        for kind in (a, aaaa):
            assert _answers(_query(bobs, name, kind)) == 0, name
    for name in reverse:
        assert _answers(_query(bobs, name, ptr)) == 0, name


def _published(server: Server) -> tuple[int, int]:
    """The host ports: on all addresses, on the loopback only."""
    bindings = server.user.api.get(f"/containers/{server.id}/json").json()["NetworkSettings"]["Ports"]["80/tcp"]
    everywhere = next(each["HostPort"] for each in bindings if each["HostIp"] != "127.0.0.1")
    return int(everywhere), int(next(each["HostPort"] for each in bindings if each["HostIp"] == "127.0.0.1"))


def test_gateways_of_others_are_the_host(servers: tuple[Server, Server]) -> None:
    """As with dockerd: a container reaches what the host offers to everybody, on any address of the host, and nothing
    of the host's loopback."""
    alices, bobs = servers
    everywhere, loopback = _published(alices)
    offered = socket.create_server(("0.0.0.0", 0))
    hidden = socket.create_server(("127.0.0.1", 0))
    ports = [everywhere, loopback, offered.getsockname()[1], hidden.getsockname()[1]]
    gateways = [bobs.settings["bridge"]["Gateway"], alices.settings["net4"]["Gateway"]]
    script = "".join(
        # A connection that is made waits for the server until the program is ended.
        f"(timeout 3 nc -w 2 {address} {port} < /dev/null > /dev/null 2>&1; [ $? = 1 ] || echo {address} {port}) &\n"
        for address in (*gateways, "127.0.0.1")
        for port in ports
    )
    try:
        seen = bobs.user.docker("run", "--rm", "busybox", "sh", "-c", f"{script}wait").stdout.splitlines()
    finally:
        offered.close()
        hidden.close()
    reached = {int(line.split()[1]) for line in seen if line.split()[0] == gateways[0]}
    assert reached == {ports[0], ports[2]}
    assert not [line for line in seen if int(line.split()[1]) in (ports[1], ports[3])]
    assert not [line for line in seen if line.startswith("127.")]


def test_packets_to_the_loopback_of_the_host(servers: tuple[Server, Server]) -> None:
    """The route_localnet of an interface would let them in."""
    bobs = servers[1]
    mac = _mac_of_gateway(bobs, "bridge")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(1)
        script = SEND.replace("9999, 9999", f"9999, {service.getsockname()[1]}")
        with _in_netns(bobs.pid, script, bobs.settings["bridge"]["IPAddress"], "127.0.0.1", "x", mac) as sender:
            assert sender.wait(60) == 0
        with pytest.raises(TimeoutError):
            service.recv(10)


def test_the_error_for_a_port_in_use_does_not_name_its_owner(servers: tuple[Server, Server]) -> None:
    alices, bobs = servers
    with socket.create_server(("0.0.0.0", 0)) as taken:
        ports = [_published(alices)[0], taken.getsockname()[1]]
        said = []
        for port in ports:
            failed = bobs.user.docker("run", "--rm", "-p", f"{port}:80", "busybox", check=False)
            assert failed.status == 125
            said.append(failed.stderr.replace(str(port), "PORT"))
    for text in said:
        assert "PORT" in text
        assert alices.user.name not in text
        assert alices.id[:12] not in text
        for each in (*alices.addresses, "server"):
            assert each not in text
    assert until(lambda: bobs.user.docker("ps", "-aq", "--filter", "status=created").stdout == "")
