"""A small network around the engine: a "host" namespace with one neighbour outside, both created for the test."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from engine.common.system import linux, mounts
from engine.proxy import dnsmessage
from server.networks.netlink import netns
from server.networks.netlink.rtnetlink import Netlink, address_add, link_add, link_set, route_add
from server.networks.netlink.tests.space import WAIT, answered, own_namespace
from server.networks.tests.world import World, opened

HOST, HOST6 = "192.0.2.1", "2001:db8::1"
OUTSIDE, OUTSIDE6 = "192.0.2.2", "2001:db8::2"
UPLINK = "up0"


def scenario(
    root: Path,
    body: Callable[[World, str], Awaitable[None]],
    *,
    before: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
    **settings: Any,
) -> None:
    """Runs a test with an engine on the "host"; the second argument is the path of the neighbour's namespace.

    ``before`` and ``after`` are called before the engine's start, and after its end.
    """
    with lan(root) as outside:
        if before:
            before()

        async def run() -> None:
            async with opened(root, **settings) as world:
                await body(world, outside)

        asyncio.run(run())
        if after:
            after()


@contextlib.contextmanager
def lan(root: Path) -> Iterator[str]:
    """Makes this thread a host with an uplink; yields the path of the namespace at the other end.

    The neighbour's default route leads to the host, as if that were its router: so tests see what the host forwards.
    """
    with own_namespace():
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            netns.sysctl(name, "0")  # a new namespace inherits the host's settings
        directory = root / "outside"
        netns.prepare(str(directory))
        path = str(directory / "neighbour")
        try:
            with Netlink() as host, netns.create(path) as there:
                target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    host.run(link_add("veth", UPLINK, peer="eth0", peer_netns=target))
                finally:
                    os.close(target)
                for netlink, name, addresses in (
                    (host, UPLINK, (f"{HOST}/24", f"{HOST6}/64")),
                    (there, "eth0", (f"{OUTSIDE}/24", f"{OUTSIDE6}/64")),
                ):
                    link = netlink.link(name)
                    assert link is not None
                    netlink.run(
                        link_set(index=link.index, up=True),
                        *(address_add(link.index, ip_interface(text)) for text in addresses),
                    )
                there.run(route_add("default4", gateway=HOST), route_add("default6", gateway=HOST6))
            yield path
        finally:
            netns.delete(path)
            netns.unprepare(str(directory))
            mounts.unmount_under(str(root))  # remove what a failed test left: it must not affect the next ones


def nft(text: str) -> str:
    """Runs nft commands in this thread's namespace."""
    done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def query(name: str, kind: int = dnsmessage.A, *, number: int = 7) -> bytes:
    """An encoded DNS question."""
    labels = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".") if part)
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def resolve(path: str, name: str, kind: int = dnsmessage.A, *, tcp: bool = False) -> tuple[int, list[str]]:
    """The answer of 127.0.0.11 in the namespace at ``path``: the code, and the records' values (addresses, names)."""
    answer = exchange(path, query(name, kind), tcp=tcp)
    return dnsmessage.code(answer), _values(answer)


def exchange(path: str, data: bytes, *, tcp: bool = False, server: str = "127.0.0.11") -> bytes:
    """Sends a raw question and returns the raw answer."""
    with linux.in_namespace(path, linux.CLONE_NEWNET):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(WAIT)
        sock.connect((server, 53))
        if not tcp:
            return answered(sock, data)
        sock.sendall(struct.pack(">H", len(data)) + data)
        (length,) = struct.unpack(">H", _exactly(sock, 2))
        return _exactly(sock, length)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk, "the server hung up"
        data += chunk
    return data


def _values(answer: bytes) -> list[str]:
    count = struct.unpack_from(">H", answer, 6)[0]
    offset = answer.index(b"\0", 12) + 5
    found = []
    for _ in range(count):
        kind, _, _, length = struct.unpack_from(">HHIH", answer, offset + 2)
        data = answer[offset + 12 : offset + 12 + length]
        if kind in (dnsmessage.A, dnsmessage.AAAA):
            found.append(socket.inet_ntop(socket.AF_INET if kind == dnsmessage.A else socket.AF_INET6, data))
        else:
            labels = []
            while data and data[0]:
                labels.append(data[1 : 1 + data[0]].decode())
                data = data[1 + data[0] :]
            found.append(".".join(labels))
        offset += 12 + length
    return found
