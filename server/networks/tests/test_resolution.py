"""The name service at 127.0.0.11: local names, forwarded questions, and operation without the daemon."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.common.system import linux
from engine.proxy.dnsmessage import AAAA, NOERROR, NXDOMAIN, PTR, SERVFAIL, A
from server.networks.tests.lan import OUTSIDE, exchange, query, resolve, scenario
from server.networks.tests.world import World

pytestmark = pytest.mark.root
MX = 15


class Upstream:
    """A name server outside: truncates answers over UDP for ``big.…``; answers REFUSED for ``refuse.…``."""

    def __init__(self, path: str) -> None:
        self.asked: list[tuple[str, str]] = []
        with linux.in_namespace(path, linux.CLONE_NEWNET):
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._udp.bind(("0.0.0.0", 53))
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._tcp.bind(("0.0.0.0", 53))
        self._tcp.listen(16)
        self._threads = [threading.Thread(target=serve, daemon=True) for serve in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def _answer(self, data: bytes, how: str) -> bytes:
        name = _name(data)
        self.asked.append((how, name))
        flags, count, records = 0x8180, 1, b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 60, 4) + bytes((198, 51, 100, 7))
        if name.startswith("big."):
            if how == "udp":
                flags, count, records = 0x8380, 0, b""
            else:
                count, records = 300, records * 300
        elif name.startswith("refuse."):
            flags, count, records = 0x8185, 0, b""
        elif name.startswith("nowhere."):
            flags, count, records = 0x8183, 0, b""
        return data[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0) + data[12:] + records

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, address = self._udp.recvfrom(2048)
                if not address:
                    return
                self._udp.sendto(self._answer(data, "udp"), address)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._tcp.accept()
                with client:
                    (length,) = struct.unpack(">H", client.recv(2, socket.MSG_WAITALL))
                    answer = self._answer(client.recv(length, socket.MSG_WAITALL), "tcp")
                    client.sendall(struct.pack(">H", len(answer)) + answer)

    def close(self) -> None:
        for sock in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(60)


def _name(data: bytes) -> str:
    labels, offset = [], 12
    while data[offset]:
        labels.append(data[offset + 1 : offset + 1 + data[offset]].decode())
        offset += 1 + data[offset]
    return ".".join(labels)


@contextlib.contextmanager
def upstream(path: str) -> Iterator[Upstream]:
    server = Upstream(path)
    try:
        yield server
    finally:
        server.close()


async def ask(path: str, name: str, kind: int = A, *, tcp: bool = False) -> tuple[int, list[str]]:
    return await asyncio.to_thread(resolve, path, name, kind, tcp=tcp)


def test_names_of_a_network(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        subnets = {"Config": [{"Subnet": "10.9.9.0/24"}, {"Subnet": "fd99:9::/64"}]}
        await world.network("net", EnableIPv6=True, IPAM=subnets)
        await world.network("other")
        one, path = await world.run("One", network="net", endpoints={"net": {"Aliases": ["db", "Shared"]}})
        two, _ = await world.run(
            "two", network="net", endpoints={"net": {"Aliases": ["shared"]}}, config={"Hostname": "called"}
        )
        far, _ = await world.run("far", network="other")
        v4, v6 = world.address(one, "net"), str(world.endpoint(one, "net")["GlobalIPv6Address"])
        for name in ("One", "one", "ONE.net", "db", "db.net", one.id[:12], "one."):
            for tcp in (False, True):
                assert await ask(path, name, tcp=tcp) == (NOERROR, [v4]), name
        assert await ask(path, "one", AAAA) == (NOERROR, [v6])
        assert await ask(path, "called") == (NOERROR, [world.address(two, "net")])
        code, both = await ask(path, "shared")
        assert (code, sorted(both)) == (NOERROR, sorted([v4, world.address(two, "net")]))
        assert await ask(path, ".".join(reversed(v4.split("."))) + ".in-addr.arpa", PTR) == (NOERROR, ["One.net"])
        nibbles = ".".join(reversed(socket.inet_pton(socket.AF_INET6, v6).hex())) + ".ip6.arpa"
        assert await ask(path, nibbles, PTR) == (NOERROR, ["One.net"])
        # it exists, but not with this type; names of other networks don't exist at all
        assert await ask(path, "one", MX) == (NOERROR, [])
        assert (await ask(path, "far"))[0] == SERVFAIL
        assert await ask(path, "two.other", A) == (SERVFAIL, [])
        # an IPv4-only network has no IPv6 address
        await world.networks.connect("other", "One", None)
        assert await ask(path, "far") == (NOERROR, [world.address(far, "other")])
        assert await ask(path, "far", AAAA) == (NOERROR, [])
        await world.stop(far)
        await world.networks.rename(two, "two")
        assert (await ask(path, "far"))[0] == SERVFAIL
        await world.networks.disconnect("other", "One")

    scenario(tmp_path, body, dns=(OUTSIDE,))


def test_links_are_names_for_one_container_only(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        server, path1 = await world.run("server", network="net")
        _, path2 = await world.run("client", network="net", endpoints={"net": {"Links": ["server:db"]}})
        assert await ask(path2, "db") == (NOERROR, [world.address(server, "net")])
        assert (await ask(path1, "db"))[0] == SERVFAIL

    scenario(tmp_path, body, dns=(OUTSIDE,))


def test_other_questions_are_forwarded(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        await world.network("inner", Internal=True)
        _, path = await world.run("one", network="net")
        _, shut = await world.run("shut", network="inner")
        with upstream(outside) as server:
            assert await ask(path, "example.test") == (NOERROR, ["198.51.100.7"])
            assert await ask(path, "example.test", tcp=True) == (NOERROR, ["198.51.100.7"])
            assert (await ask(path, "nowhere.test"))[0] == NXDOMAIN
            answer = await asyncio.to_thread(exchange, path, query("big.test"))
            assert answer[2] & 0x02, "the truncation has to reach the client"
            code, many = await ask(path, "big.test", tcp=True)
            assert (code, len(many)) == (NOERROR, 300)
            assert {how for how, name in server.asked if name == "big.test"} == {"udp", "tcp"}
            # without external connectivity nothing is found, and the host doesn't forward
            before = len(server.asked)
            assert (await ask(shut, "example.test"))[0] == SERVFAIL
            assert len(server.asked) == before

    scenario(tmp_path, body, dns=(OUTSIDE,))


def test_the_next_server_is_queried_after_a_refusal(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        _, path = await world.run("one", network="net", Dns=["192.0.2.1", OUTSIDE])
        with upstream(outside) as server:
            # nothing listens at the first one: the kernel reports it at once
            assert await ask(path, "example.test") == (NOERROR, ["198.51.100.7"])
            assert server.asked == [("udp", "example.test")]

    scenario(tmp_path, body)


def test_names_resolve_without_the_daemon(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        one, path = await world.run("one", network="net")
        gone, _ = await world.run("gone", network="net")
        await world.kill()
        assert await ask(path, "one") == (NOERROR, [world.address(one, "net")])
        gone.state.running = False
        await world.open()
        assert await ask(path, "one") == (NOERROR, [world.address(one, "net")])
        assert (await ask(path, "gone"))[0] == SERVFAIL
        two, _ = await world.run("two", network="net")
        assert await ask(path, "two") == (NOERROR, [world.address(two, "net")])

    scenario(tmp_path, body, dns=(OUTSIDE,))


def test_a_new_proxy_replaces_a_killed_one(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        one, path = await world.run("one", network="net", PortBindings={"80/tcp": [{"HostPort": "8080"}]})
        forwarder = world.networks.context.forwarder
        connection = forwarder._connection
        assert connection is not None
        pid = (await forwarder._ask(connection, {"op": "hello"}))["pid"]
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        await asyncio.wait([connection.task])
        healing = forwarder._healing
        assert healing is not None
        await healing
        assert await ask(path, "one") == (NOERROR, [world.address(one, "net")])
        with socket.socket() as sock, pytest.raises(OSError, match="in use"):
            sock.bind(("0.0.0.0", 8080))

    scenario(tmp_path, body, dns=(OUTSIDE,))


def test_fifty_at_once_have_addresses_and_names(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        ready = await asyncio.gather(
            *(world.run(f"c{number}", network="net", PortBindings={"80/tcp": [{}]}) for number in range(50))
        )
        addresses = {world.address(container, "net") for container, _ in ready}
        ports = {world.settings(container)["Ports"]["80/tcp"][0]["HostPort"] for container, _ in ready}
        assert len(addresses) == len(ports) == 50
        for number, (container, _) in enumerate(ready):
            path = ready[(number + 1) % 50][1]
            assert await ask(path, container.name) == (NOERROR, [world.address(container, "net")])

    scenario(tmp_path, body, dns=(OUTSIDE,))
