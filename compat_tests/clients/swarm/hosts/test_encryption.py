"""Encrypted networks: what a machine between the hosts sees."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest

from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import Swarm, count, placed, running, settles

MARKER = "what-only-the-hosts-of-a-network-may-read"
SERVE = f"echo {MARKER} > /index.html; exec httpd -f -p 80 -h /"
#: Writes what passes the bridge to standard output; argument: the bridge.
CAPTURE = """
import socket, struct, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind((sys.argv[1], 0))
# SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC: else a bridge passes on what is not for itself.
sock.setsockopt(263, 1, struct.pack("=iHH8s", socket.if_nametoindex(sys.argv[1]), 1, 0, b""))
print("ready", file=sys.stderr, flush=True)
while True:
    sys.stdout.buffer.write(sock.recv(65536))
    sys.stdout.buffer.flush()
"""


def _has_esp(host: Host) -> bool:
    plugins = json.loads(host.docker("node", "inspect", "self", "-f", "{{json .Description.Engine.Plugins}}").stdout)
    return {"Type": "Kernel", "Name": "esp"} in plugins


@pytest.fixture
def esp(swarm: Swarm, kind: str) -> None:
    if not (Path("/sys/module/esp4").exists() if kind == "dockerd" else _has_esp(swarm.first)):
        pytest.skip("the kernel has no ESP")


@contextlib.contextmanager
def _capture(swarm: Swarm, path: Path) -> Iterator[Callable[[], bytes]]:
    with path.open("wb") as file:
        argv = [*swarm.hosts.enter, sys.executable, "-c", CAPTURE, "br0"]
        with subprocess.Popen(argv, stdout=file, stderr=subprocess.PIPE, text=True) as sniffer:
            try:
                assert sniffer.stderr is not None
                assert sniffer.stderr.readline() == "ready\n"
                yield path.read_bytes
            finally:
                sniffer.kill()


def _address(host: Host, network: str) -> str:
    (id,) = running([host], "web")[host.name]
    shown = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    return host.docker("inspect", "-f", shown, id).stdout.strip()


def _asks(host: Host, address: str) -> bool:
    (id,) = running([host], "web")[host.name]
    # The first packets may come before the keys; so the client must not wait for one connection for long.
    ask = ("wget", "-T", "5", "-qO-", f"http://{address}/")
    return host.docker("exec", id, *ask, check=False).stdout == f"{MARKER}\n"


@pytest.mark.usefixtures("esp")
def test_nobody_between_the_hosts_reads_an_encrypted_network(swarm: Swarm, tmp_path: Path) -> None:
    first = swarm.first
    first.docker("network", "create", "-d", "overlay", "open")
    first.docker("network", "create", "-d", "overlay", "--opt", "encrypted", "secret")
    networks = ("--network", "open", "--network", "secret")
    first.docker(
        "service", "create", "-d", "--name", "web", "--mode", "global", *networks, "busybox", "sh", "-c", SERVE
    )
    assert settles(lambda: count(swarm.hosts, "web") == len(swarm.hosts)), placed(first, "web")
    addresses = {host.name: _address(host, "secret") for host in swarm.hosts}
    for one, other in combinations(swarm.hosts, 2):
        with _capture(swarm, tmp_path / f"{one.name}-{other.name}") as seen:
            assert settles(partial(_asks, one, addresses[other.name]))
            assert settles(partial(_asks, other, addresses[one.name]))
        assert MARKER.encode() not in seen()
    # The capture shows what is in clear.
    host = swarm.workers[0]
    with _capture(swarm, tmp_path / "clear") as seen:
        assert settles(partial(_asks, first, _address(host, "open")))
        assert settles(lambda: MARKER.encode() in seen())
