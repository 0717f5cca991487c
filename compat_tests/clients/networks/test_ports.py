"""Published ports: every form of `-p`, reachability, refusals, and that many ports cost about as much as one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Engine
from compat_tests.support.host.ports import free_ports, udp_ask, udp_echo
from compat_tests.support.host.processes import resident_memory
from compat_tests.support.host.traces import nft
from compat_tests.support.polling import until

SERVER = "while true; do echo served | nc -l -p 80; done"


def run(
    engine: Engine, *args: str, name: str, command: tuple[str, ...] = ("sleep", "1000"), check: bool = True
) -> Completed:
    return engine.docker("run", "-d", "--name", name, *args, "busybox", *command, check=check)


@contextlib.contextmanager
def removed(engine: Engine, *names: str) -> Iterator[None]:
    """Remove the containers of these names at the end, whether or not they exist."""
    try:
        yield
    finally:
        for name in names:
            engine.api.delete(f"/containers/{name}", force=1)


def ports(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.api.get(f"/containers/{name}/json").json()["NetworkSettings"]["Ports"]
    return found


def response(host: str, port: int) -> str:
    """Return a server's response; retry while the container's server starts."""
    answer = ""

    def connected() -> bool:
        nonlocal answer
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.settimeout(20)
            try:
                sock.connect((host, port))
                answer = sock.recv(100).decode().strip()
            except OSError:
                return False
        return bool(answer)

    until(connected)
    return answer


def test_reachable_from_the_host_and_from_containers(engine: Engine) -> None:
    port = free_ports(2)
    gateway = engine.resources.bip.partition("/")[0]
    with removed(engine, "reach", "reach-peer"):
        published = ("-p", f"{port}:80", "-p", f"127.0.0.1:{port + 1}:80")
        run(engine, *published, name="reach", command=("sh", "-c", SERVER))
        run(engine, name="reach-peer")
        for host in ("127.0.0.1", "::1", gateway):
            assert response(host, port) == "served", host
        assert response("127.0.0.1", port + 1) == "served"
        with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect((gateway, port + 1))
        for client in ("reach-peer", "reach"):

            def served(client: str = client) -> bool:
                # the server starts a new process for each connection
                done = engine.docker("exec", client, "nc", gateway, str(port), input="", check=False)
                return done.stdout == "served\n"

            assert until(served), client
        output = engine.docker("port", "reach").stdout.splitlines()
        assert output == [f"80/tcp -> 0.0.0.0:{port}", f"80/tcp -> 127.0.0.1:{port + 1}", f"80/tcp -> [::]:{port}"]


def test_published_udp_port(engine: Engine) -> None:
    port = free_ports(kind=socket.SOCK_DGRAM)
    with removed(engine, "datagrams", "datagrams-peer"):
        run(engine, "-p", f"{port}:81/udp", name="datagrams")
        run(engine, name="datagrams-peer")
        inside, peer = (namespace(engine, name) for name in ("datagrams", "datagrams-peer"))
        # busybox has no UDP server: this one runs in the container's namespace
        with udp_echo(inside, 81):
            gateway = engine.resources.bip.partition("/")[0]
            for host in ("127.0.0.1", gateway, "::1"):
                assert udp_ask(host, port).startswith("echo"), host
            for path in (peer, inside):
                assert udp_ask(gateway, port, namespace=path).startswith("echo"), path


def namespace(engine: Engine, name: str) -> str:
    return f"/proc/{engine.api.get(f'/containers/{name}/json').json()['State']['Pid']}/ns/net"


def test_every_form_of_publish(engine: Engine) -> None:
    first = free_ports(6)
    with removed(engine, "forms"):
        run(
            engine,
            *("-p", "80", "-p", f"{first}:81", "-p", f"127.0.0.1:{first + 1}:82", "-p", "127.0.0.1::83/udp"),
            *("-p", f"[::1]:{first + 2}:84", "-p", f"{first + 3}-{first + 5}:85-87", "-p", "88/sctp"),
            *("--expose", "90-91", "--expose", "92/udp"),
            name="forms",
        )
        published = ports(engine, "forms")
        assert {key for key, value in published.items() if value is None} == {"90/tcp", "91/tcp", "92/udp"}
        fixed = {
            "81/tcp": [("0.0.0.0", first), ("::", first)],
            "82/tcp": [("127.0.0.1", first + 1)],
            "84/tcp": [("::1", first + 2)],
            **{f"{85 + n}/tcp": [("0.0.0.0", first + 3 + n), ("::", first + 3 + n)] for n in range(3)},
        }
        for key, expected in fixed.items():
            assert [(item["HostIp"], int(item["HostPort"])) for item in published[key]] == expected
        for key, hosts in {"80/tcp": ["0.0.0.0", "::"], "83/udp": ["127.0.0.1"], "88/sctp": ["0.0.0.0", "::"]}.items():
            assert [item["HostIp"] for item in published[key]] == hosts
            assert len({item["HostPort"] for item in published[key]}) == 1
        # without SCTP sockets, the kernel still supports SCTP in rules
        table = nft("list", "table", "inet", f"wharf-{engine.resources.bridge}")
        assert re.search(rf"sctp \. {published['88/sctp'][0]['HostPort']} : [\d.]+ \. 88", table)
        assert engine.docker("port", "forms", "81").stdout.splitlines() == [f"0.0.0.0:{first}", f"[::]:{first}"]


def test_all_exposed_ports(engine: Engine) -> None:
    with removed(engine, "all-exposed"):
        run(engine, "-P", "--expose", "80", "--expose", "5300/udp", name="all-exposed")
        published = ports(engine, "all-exposed")
        assert set(published) == {"80/tcp", "5300/udp"}
        assert all(32768 <= int(item["HostPort"]) <= 60999 for items in published.values() for item in items)


def test_all_ports_of_tcp_at_create(engine: Engine) -> None:
    with removed(engine, "all-tcp"):
        engine.docker("create", "--name", "all-tcp", "-p", "1-65535:1-65535/tcp", "busybox")
        bindings = engine.api.get("/containers/all-tcp/json").json()["HostConfig"]["PortBindings"]
        assert len(bindings) == 65535
        assert bindings["65535/tcp"] == [{"HostIp": "", "HostPort": "65535"}]


def test_port_in_use_fails_the_whole_start(engine: Engine) -> None:
    first = free_ports(3)
    sentence = "driver failed programming external connectivity on endpoint"
    with removed(engine, "holder", "late", "later"), socket.socket() as busy:
        run(engine, "-p", f"{first}:80", name="holder")
        done = run(engine, "-p", f"{first + 1}:81", "-p", f"{first}:80", name="late", check=False)
        assert done.status == 125
        assert re.search(
            rf"{sentence} late \(\w+\): Bind for 0.0.0.0:{first} failed: port is already allocated", done.stderr
        )
        state = engine.api.get("/containers/late/json").json()
        assert (state["State"]["Status"], state["NetworkSettings"]["Ports"]) == ("created", {})
        busy.bind(("127.0.0.1", first + 2))
        busy.listen()
        done = run(engine, "-p", f"{first + 1}-{first + 2}:80-81", name="later", check=False)
        words = f"Error starting userland proxy: listen tcp4 0.0.0.0:{first + 2}: bind: address already in use"
        assert words in done.stderr
        # the available ports are released again
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", first + 1))
        engine.docker("rm", "-f", "holder")
        engine.docker("start", "late")
        assert ports(engine, "late")["80/tcp"][0]["HostPort"] == str(first)


def test_random_ports_are_assigned_once(engine: Engine) -> None:
    names = [f"random-{number}" for number in range(12)]

    def start(name: str) -> str:
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "1000"],
            "HostConfig": {"PortBindings": {"80/tcp": [{}], "81/tcp": [{}]}},
        }
        created = engine.api.request("POST", "/containers/create", query={"name": name}, data=body)
        assert created.status == 201, created.body
        assert engine.api.post(f"/containers/{name}/start").status == 204
        return name

    with removed(engine, *names), concurrent.futures.ThreadPoolExecutor(6) as pool:
        assigned = [
            item["HostPort"]
            for name in pool.map(start, names)
            for items in ports(engine, name).values()
            for item in items
        ]
        assert len(assigned) == 48
        assert len(set(assigned)) == 24


def test_cost_of_two_thousand_ports(engine: Engine) -> None:
    first = free_ports(2000)

    def resident() -> int:
        """Return the proxy's memory in bytes."""
        found = [process for process in engine.find("python") if "engine.proxy.proxy" in " ".join(process.argv)]
        (process,) = found  # one process serves all ports
        return resident_memory(process.pid)

    with removed(engine, "one-port", "many-ports"):
        run(engine, "-p", "80", name="one-port")
        before = resident()
        span = f"{first}-{first + 1999}"
        run(
            engine,
            "-p",
            f"{span}:{span}",
            name="many-ports",
            command=("sh", "-c", f"while true; do echo last | nc -l -p {first + 1999}; done"),
        )
        assert len(ports(engine, "many-ports")) == 2000
        assert response("127.0.0.1", first + 1999) == "last"
        assert resident() - before < 6 << 20
        table = nft("list", "table", "inet", f"wharf-{engine.resources.bridge}")
        assert len([line for line in table.splitlines() if f"{first}-" in line]) <= 3
