"""The embedded DNS after the entrypoint of a Kubernetes node has moved it from 127.0.0.11 to the gateway.

Node images of kind and k3d pass the rules of `iptables-save` through sed to `iptables-restore`, so that pods, whose own
127.0.0.11 is another, can ask at the gateway.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.clients.containers.test_names import address, addresses, network, run
from compat_tests.support.engines import Engine
from compat_tests.support.images import Node, docker_archive, layer

IPTABLES = Path("/usr/sbin/xtables-nft-multi")
EXTENSIONS = ("libxt_tcp", "libxt_udp", "libxt_DNAT", "libxt_SNAT", "libxt_NAT", "libipt_DNAT", "libipt_SNAT")
TAG = "wharf-test/node-dns:1"
REWRITE = r"""
set -e
gateway=$(ip route | sed -n 's/^default via \([0-9.]*\) .*/\1/p')
iptables-save | sed -e "s/-d 127.0.0.11/-d $gateway/g" \
  -e 's/-A OUTPUT \(.*\) -j DOCKER_OUTPUT/&\n-A PREROUTING \1 -j DOCKER_OUTPUT/' \
  -e "s/--to-source :53/--to-source $gateway:53/g" | iptables-restore
sed "s/127.0.0.11/$gateway/" /etc/resolv.conf >/tmp/resolv.conf
cat /tmp/resolv.conf >/etc/resolv.conf
echo "$gateway"
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.core,
    pytest.mark.skipif(not IPTABLES.exists() or shutil.which("ldd") is None, reason="needs iptables-nft and ldd"),
]


def tools() -> bytes:
    """Return a layer with busybox and the host's iptables-nft with its libraries and extensions."""
    busybox = Path(shutil.which("busybox") or "")
    plugins = [Path(found) for name in EXTENSIONS for found in sorted(Path("/usr/lib").glob(f"*/xtables/{name}.so"))]
    programs = [IPTABLES, busybox, *plugins]
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False, timeout=60)
    words = {word for line in done.stdout.splitlines() if not line.endswith(":") for word in line.split()}
    files = {*programs, *(Path(word) for word in words if word.startswith("/"))}
    nodes: dict[str, Node | bytes | str] = {}
    for name in ("bin", "sbin", "lib", "lib64"):
        nodes[f"usr/{name}"] = Node(mode=0o755, kind=tarfile.DIRTYPE)
        nodes[name] = Node(kind=tarfile.SYMTYPE, link=f"usr/{name}")
    for name in ("etc", "run", "tmp"):
        nodes[name] = Node(mode=0o755, kind=tarfile.DIRTYPE)
    for path in sorted(files):
        name = str(path) if path.is_relative_to("/usr") else f"/usr{path}"
        nodes[name.lstrip("/")] = Node(path.read_bytes(), mode=0o755)
    for name in ("iptables", "iptables-save", "iptables-restore"):
        nodes[f"usr/sbin/{name}"] = Node(kind=tarfile.SYMTYPE, link=str(IPTABLES))
    for name in ("sh", "sed", "cat", "ip", "sleep", "nslookup"):
        nodes[f"usr/bin/{name}"] = Node(kind=tarfile.SYMTYPE, link=str(busybox))
    return layer(nodes)


@pytest.fixture
def image(engine: Engine) -> Iterator[str]:
    engine.docker("load", input=docker_archive(TAG, [tools()]))
    yield TAG
    engine.docker("rmi", "-f", TAG, check=False)


def start(engine: Engine, image: str, name: str, net: str) -> str:
    """Start a node, rewrite its DNS, and return the gateway."""
    engine.docker("run", "-d", "--privileged", "--name", name, "--network", net, image, "sleep", "1000")
    return engine.docker("exec", name, "sh", "-c", REWRITE).stdout.strip()


def test_nodes_find_each_other_after_the_rewrite(engine: Engine, image: str) -> None:
    with network(engine, "nodes", "node-one", "node-two", "node-registry") as net:
        gateway = start(engine, image, "node-one", net)
        assert start(engine, image, "node-two", net) == gateway
        shown = engine.docker("exec", "node-one", "iptables-save", "-t", "nat").stdout
        assert f"-A PREROUTING -d {gateway}/32 -j DOCKER_OUTPUT" in shown
        assert (
            f"-A DOCKER_OUTPUT -d {gateway}/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:" in shown
        )
        assert engine.docker("exec", "node-one", "cat", "/etc/resolv.conf").stdout.count(f"nameserver {gateway}\n") == 1
        assert addresses(engine, "node-one", "node-two") == [address(engine, "node-two", net)]
        assert addresses(engine, "node-two", "node-one") == [address(engine, "node-one", net)]
        # A container that joins later is found, too.
        run(engine, "node-registry", "--network", net)
        assert addresses(engine, "node-one", "node-registry") == [address(engine, "node-registry", net)]
        # A restart makes a new namespace with the original rules and resolv.conf; the entrypoint rewrites them again.
        engine.docker("restart", "-t", "0", "node-two")
        engine.docker("exec", "node-two", "sh", "-c", REWRITE)
        assert addresses(engine, "node-two", "node-one") == [address(engine, "node-one", net)]
        assert addresses(engine, "node-one", "node-two") == [address(engine, "node-two", net)]


def test_the_rewrite_holds_while_the_daemon_restarts(own_engine: Engine) -> None:
    engine = own_engine
    engine.docker("load", input=docker_archive(TAG, [tools()]))
    try:
        with network(engine, "kept-nodes", "kept-node", "kept-other") as net:
            start(engine, TAG, "kept-node", net)
            before = engine.docker("exec", "kept-node", "iptables-save", "-t", "nat").stdout.splitlines()[1:-1]
            engine.restart()
            after = engine.docker("exec", "kept-node", "iptables-save", "-t", "nat").stdout.splitlines()[1:-1]
            assert [line for line in after if line[0] != ":"] == [line for line in before if line[0] != ":"]
            run(engine, "kept-other", "--network", net)
            assert addresses(engine, "kept-node", "kept-other") == [address(engine, "kept-other", net)]
    finally:
        engine.docker("rmi", "-f", TAG, check=False)
