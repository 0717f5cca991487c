"""`--allow-direct-routing` and `--bridge-accept-fwmark`: a neighbour of the host routes to containers' addresses."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from compat_tests.clients.networks.scenario import Scenario
from compat_tests.support import engines
from compat_tests.support.engines import Engine
from compat_tests.support.patience import FACTOR
from compat_tests.support.polling import until

pytestmark = pytest.mark.root

SERVE = ("sh", "-c", "mkdir /w; echo served >/w/index.html; httpd -h /w -p 81; exec httpd -f -h /w -p 80")


class Neighbour:
    """A network namespace beyond a link of the host; its default route leads to the host."""

    def __init__(self, engine: Engine) -> None:
        self.name = f"n{engine.resources.bridge}"
        self._table = f"wharf-test-{self.name}"
        self._subnet = Scenario(engine, "routed").subnet(3)

    def __enter__(self) -> Neighbour:
        host, own = f"{self._subnet[1]}/26", f"{self._subnet[2]}/26"
        self._run(f"ip netns add {self.name}")
        self._run(f"ip link add {self.name} type veth peer name eth0 netns {self.name}")
        self._run(f"ip addr add {host} dev {self.name}")
        self._run(f"ip link set {self.name} up")
        for line in ("link set lo up", f"addr add {own} dev eth0", "link set eth0 up"):
            self._run(f"ip -n {self.name} {line}")
        self._run(f"ip -n {self.name} route add default via {self._subnet[1]}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["nft", "delete", "table", "ip", self._table], capture_output=True, timeout=60, check=False)
        self._run(f"ip link del {self.name}")
        self._run(f"ip netns del {self.name}")

    def _run(self, line: str) -> None:
        subprocess.run(line.split(), check=True, capture_output=True, timeout=60)

    def fetch(self, address: str, port: int, seconds: float) -> str:
        argv = ["ip", "netns", "exec", self.name, "busybox", "wget", "-T", str(max(1, int(seconds))), "-qO-"]
        argv.append(f"http://{address}:{port}/")
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False).stdout.strip()

    def mark(self, mark: int) -> None:
        """Set the firewall mark of all packets of the neighbour, where they enter the host."""
        subprocess.run(["nft", "delete", "table", "ip", self._table], capture_output=True, timeout=60, check=False)
        chain = "type filter hook prerouting priority raw; policy accept;"
        rules = f"table ip {self._table} {{ chain early {{ {chain} iifname {self.name} meta mark set {mark}; }}; }}"
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def server(engine: Engine) -> Iterator[str]:
    """Run a server with one published and one other port; yield its address."""
    engine.load_busybox()
    box = engine.docker("run", "-d", "-p", "80", "busybox", *SERVE).stdout.strip()
    try:
        networks = engine.api.get(f"/containers/{box}/json").json()["NetworkSettings"]["Networks"]
        yield networks["bridge"]["IPAddress"]
    finally:
        engine.docker("rm", "-f", box)


def test_a_neighbour_reaches_containers_with_the_flags() -> None:
    flags = ("--allow-direct-routing", "--bridge-accept-fwmark", "0x10/0xf0")
    with engines.wharf("routed", *flags) as engine, server(engine) as address, Neighbour(engine) as neighbour:
        assert until(lambda: neighbour.fetch(address, 80, 5 * FACTOR) == "served")
        assert neighbour.fetch(address, 81, 1) == "", "only published ports are open"
        neighbour.mark(0x27)
        assert neighbour.fetch(address, 81, 1) == ""
        neighbour.mark(0x17)
        assert neighbour.fetch(address, 81, 5 * FACTOR) == "served"


def test_a_neighbour_reaches_no_container_without_them() -> None:
    with engines.wharf("closed") as engine, server(engine) as address, Neighbour(engine) as neighbour:
        inside = engine.docker("run", "--rm", "busybox", "wget", "-T", "30", "-qO-", f"http://{address}:80/").stdout
        assert inside.strip() == "served"
        neighbour.mark(0x17)
        assert [neighbour.fetch(address, port, 1) for port in (80, 81)] == ["", ""]
