"""Networks: create and remove, published port ranges, DNS, throughput between containers and by a published port."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from compat_tests.bench.measure import OURS, Row, at_least, at_most, clock, in_turn
from compat_tests.support.engines import Dockerd, Engine

NETWORK = "bench-net"
ONE_PORT = "one port"
# Runs with the host's Python in a network namespace: resolves a name, with 32 queries in flight.
ASK = """
import socket, struct, sys, time
count = int(sys.argv[1])
name = b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[2].split(".")) + b"\\0"
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.11", 53))
sock.settimeout(2)
ask = lambda number: sock.send(struct.pack(">6H", number % 65536, 256, 1, 0, 0, 0) + name + b"\\0\\1\\0\\1")
begin = time.perf_counter()
for number in range(32):
    ask(number)
sent, answered, lost = 32, 0, 0
while answered + lost < count:
    try:
        reply = sock.recv(1500)
    except TimeoutError:
        lost += 32
        for number in range(32):
            ask(sent + number)
        sent += 32
        continue
    assert struct.unpack(">H", reply[6:8])[0] == 1, reply
    answered += 1
    if sent < count:
        ask(sent)
        sent += 1
print(answered / (time.perf_counter() - begin))
"""
# Sends this many bytes from memory to each client, so that no program of an image limits the throughput.
SERVE = """
import socket, sys
data = memoryview(bytes(1 << 20))
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    print("ready", flush=True)
    while True:
        sock, _ = server.accept()
        with sock:
            for _ in range(int(sys.argv[2])):
                sock.sendall(data)
"""
# Reads from an address until the other side closes; prints MB/s.
FETCH = """
import socket, sys, time
begin = time.perf_counter()
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as sock:
    got, buffer = 0, bytearray(1 << 20)
    while size := sock.recv_into(buffer):
        got += size
assert got == int(sys.argv[3]), got
print(got / 1e6 / (time.perf_counter() - begin))
"""


def python(namespace: Path | None, script: str, *args: object) -> list[str]:
    """Return the command that runs a script in a network namespace."""
    return [*(["nsenter", f"--net={namespace}"] if namespace else []), sys.executable, "-c", script, *map(str, args)]


def measured(namespace: Path | None, script: str, *args: object) -> float:
    """Return the number that the script prints."""
    argv = python(namespace, script, *args)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@contextmanager
def serving(namespace: Path, *args: object) -> Iterator[None]:
    """Run the sending server in a container's network namespace."""
    argv = python(namespace, SERVE, *args)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


def namespace_of(engine: Engine, name: str) -> Path:
    return Path(f"/proc/{engine.api.get(f'/containers/{name}/json').json()['State']['Pid']}/ns/net")


def created(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Wall time of the CLI's two commands."""
    row = Row("network create + rm", "ms", at_most(0.3))

    def once(engine: Engine) -> None:
        with clock(row, engine):
            engine.docker("network", "create", NETWORK)
            engine.docker("network", "rm", NETWORK)

    in_turn(engines, 3 if quick else 15, once)
    yield row


def ports(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Start and remove a container with a range of published ports: wall time of the CLI's two commands.

    2,000 ports are compared with one port, on Wharf only: dockerd would run 4,000 processes for them.
    """
    some, all_ports = 20 if quick else 200, 200 if quick else 2000
    both = Row(f"run with {some} published ports, and rm", "ms", at_most(0.3))
    range_ = Row(f"run with {all_ports:,} published ports, and rm, against one port", "ms", at_most(1.5), ONE_PORT)

    def published(engine: Engine, count: int) -> None:
        ports = f"40000-{39999 + count}:1000-{999 + count}"
        engine.docker("run", "-d", "--name", "bench-ports", "-p", ports, "busybox", "sleep", "99", timeout=300)
        engine.docker("rm", "-f", "bench-ports", timeout=300)

    def once(engine: Engine) -> None:
        with clock(both, engine):
            published(engine, some)

    in_turn(engines, 1 if quick else 3, once)
    yield both
    ours = [engine for engine in engines if engine.kind == OURS]
    for _ in range(3 if quick else 11):
        for engine in ours:
            for who, count in ((OURS, all_ports), (ONE_PORT, 1)):
                begin = time.perf_counter()
                published(engine, count)
                range_.add(who, (time.perf_counter() - begin) * 1000)
    if ours:
        yield range_


def traffic(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """DNS answers with 32 queries in flight; one TCP stream between two containers, and one by a published port.

    Python in the containers' network namespaces sends the queries and bytes; the published port is connected on the
    engine's loopback.
    """
    names = Row("names answered by the embedded DNS", "1/s", at_least(1))
    between = Row("TCP between two containers", "MB/s", at_least(1))
    through = Row("TCP through a published port on loopback", "MB/s", at_least(1))
    size = 100 if quick else 2000
    with ExitStack() as stack:
        for engine in engines:
            engine.docker("network", "create", NETWORK)
            stack.callback(engine.docker, "network", "rm", NETWORK, check=False)
            stack.callback(engine.docker, "rm", "-f", "bench-a", "bench-b", check=False)
            for name, *extra in (("bench-a", "-p", "41500:5000"), ("bench-b",)):
                engine.docker("run", "-d", "--name", name, "--network", NETWORK, *extra, "busybox", "sleep", "3600")
            stack.enter_context(serving(namespace_of(engine, "bench-a"), 5000, size))

        def once(engine: Engine) -> None:
            settings = engine.api.get("/containers/bench-a/json").json()["NetworkSettings"]
            address = settings["Networks"][NETWORK]["IPAddress"]
            client = namespace_of(engine, "bench-b")
            outside = engine.netns if isinstance(engine, Dockerd) else None
            names.add(engine.kind, measured(client, ASK, 2000 if quick else 20000, "bench-a"))
            between.add(engine.kind, measured(client, FETCH, address, 5000, size << 20))
            through.add(engine.kind, measured(outside, FETCH, "127.0.0.1", 41500, size << 20))

        in_turn(engines, 1 if quick else 3, once)
    yield from (names, between, through)
