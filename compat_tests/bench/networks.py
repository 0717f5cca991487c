"""Networks: made and removed, a range of published ports, names answered, bytes between containers and by a port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from compat_tests.bench.measure import Row, clock, in_turn
from compat_tests.engines import Dockerd, Engine

NETWORK = "bench-net"
# Run by our Python inside a container's or an engine's network namespace: asks for a name, 32 questions on the way.
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
# Reads from an address until the other side closes: MB/s.
FETCH = """
import socket, sys, time
begin = time.perf_counter()
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as sock:
    got, buffer = 0, bytearray(1 << 20)
    while size := sock.recv_into(buffer):
        got += size
assert got >= int(sys.argv[3]), got
print(got / 1e6 / (time.perf_counter() - begin))
"""


def within(pid: int | None, engine: Engine, script: str, *args: object) -> float:
    """What the script prints, run in the network namespace of a process, or where the engine's ports are."""
    place = f"--net=/proc/{pid}/ns/net" if pid else f"--net={engine.netns}" if isinstance(engine, Dockerd) else ""
    argv = [*(["nsenter", place] if place else []), sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def pid_of(engine: Engine, name: str) -> int:
    return int(engine.api.get(f"/containers/{name}/json").json()["State"]["Pid"])


def created(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    """A network made and removed; and a container with 200 published ports started and removed."""
    pair, ports = Row("network create + rm", "ms", 0.3), Row("run with 200 published ports, and rm", "ms", 0.3)

    def once(engine: Engine) -> None:
        with clock(pair, engine):
            engine.docker("network", "create", NETWORK)
            engine.docker("network", "rm", NETWORK)

    def published(engine: Engine) -> None:
        with clock(ports, engine):
            engine.docker("run", "-d", "--name", "bench-ports", "-p", "41000-41199:1000-1199", "busybox", "sleep", "99")
            engine.docker("rm", "-f", "bench-ports", timeout=300)

    in_turn(engines, 3 if quick else 15, once)
    in_turn(engines, 1 if quick else 3, published)
    return [pair, ports]


def traffic(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    """DNS answers, and TCP streams: between two containers, and through a published port on loopback."""
    names = Row("names answered by the embedded DNS", "1/s", 1.0, more_is_better=True)
    between = Row("TCP between two containers", "MB/s", 1.0, more_is_better=True)
    through = Row("TCP through a published port on loopback", "MB/s", 1.0, more_is_better=True)
    size = 100 if quick else 1000
    serve = f"while :; do dd if=/dev/zero bs=1M count={size} 2>/dev/null | nc -l -p 5000; done"
    with ExitStack() as stack:
        for engine in engines:
            engine.docker("network", "create", NETWORK)
            stack.callback(engine.docker, "network", "rm", NETWORK, check=False)
            stack.callback(engine.docker, "rm", "-f", "bench-a", "bench-b", check=False)
            for name, *extra in (("bench-a", "-p", "41500:5000"), ("bench-b",)):
                engine.docker("run", "-d", "--name", name, "--network", NETWORK, *extra, "busybox", "sh", "-c", serve)

        def once(engine: Engine) -> None:
            settings = engine.api.get("/containers/bench-a/json").json()["NetworkSettings"]
            address = settings["Networks"][NETWORK]["IPAddress"]
            client = pid_of(engine, "bench-b")
            names.add(engine.kind, within(client, engine, ASK, 2000 if quick else 20000, "bench-a"))
            between.add(engine.kind, within(client, engine, FETCH, address, 5000, size << 20))
            through.add(engine.kind, within(None, engine, FETCH, "127.0.0.1", 41500, size << 20))

        in_turn(engines, 1 if quick else 3, once)
    return [names, between, through]
