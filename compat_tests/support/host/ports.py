"""Free host ports for published ports, and datagrams to and from a network namespace."""

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

#: The start of the ports for tests: below the ephemeral range, so that no connection takes one before it is bound.
FIRST_PORT, SHARES, PORTS = 10000, 4, 5500
_share: list[socket.socket] = []
_next_port = 0


def free_ports(count: int = 1, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return the first of ``count`` consecutive free ports. Concurrent processes use separate ranges, and no port is
    returned twice before all others of the range were."""
    global _next_port
    if not _share:
        _take_share()
    wrapped = 0
    while wrapped < 2:
        first = _next_port
        if (first % PORTS) + count > PORTS:
            wrapped += 1
            _next_port -= first % PORTS
            continue
        busy = [port for port in range(first, first + count) if not _free(port + FIRST_PORT, kind)]
        _next_port = busy[-1] + 1 if busy else first + count
        if _next_port % PORTS == 0:
            _next_port -= PORTS
            wrapped += 1
        if not busy:
            return FIRST_PORT + first
    raise AssertionError("no free ports")


def _take_share() -> None:
    """Claim a range that no other process has, by an abstract socket name that only one process can bind."""
    global _next_port
    for number in range(SHARES):
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        _share.append(name)
        _next_port = number * PORTS
        with contextlib.suppress(OSError):
            name.bind(f"\0wharf-test-ports-{number}")
            return
        name.close()
    _next_port = os.getpid() * 2503 % (SHARES * PORTS)


def _free(port: int, kind: socket.SocketKind) -> bool:
    try:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with socket.socket(family, kind) as sock:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((host, port))
    except OSError as error:
        return error.errno != errno.EADDRINUSE  # a host may lack one family
    return True


_ECHO = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", int(sys.argv[1])))
print(flush=True)
while True:
    data, peer = sock.recvfrom(2048)
    sock.sendto(b"echo " + peer[0].encode(), peer)
"""
# Datagrams may get lost: repeat until there is an answer.
_ASK = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect((host, port))
    sock.settimeout(5)
    for _ in range(12):
        try:
            sock.send(b"?")
            print(sock.recv(2048).decode())
            break
        except TimeoutError:
            continue
"""


@contextlib.contextmanager
def udp_echo(namespace: str, port: int) -> Iterator[None]:
    """Run a server on a UDP port of the network namespace at a path; it answers "echo" and the peer's address."""
    argv = ["nsenter", f"--net={namespace}", sys.executable, "-c", _ECHO, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


def udp_ask(host: str, port: int, *, namespace: str = "") -> str:
    """Return the answer to a datagram sent from the host or from the network namespace at a path; "" without one."""
    enter = ["nsenter", f"--net={namespace}"] if namespace else []
    argv = [*enter, sys.executable, "-c", _ASK, host, str(port)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False).stdout.strip()
