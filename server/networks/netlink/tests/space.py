"""A network namespace for a test: its devices and rules are deleted with it, and the host's don't interfere.

Threads and processes started by the thread inherit the namespace, so whole services run inside.
"""

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from engine.common.system import linux
from server.networks.netlink.rtnetlink import Netlink, link_set

WAIT = 60.0  # seconds; only reached by a failure
AGAIN = 5.0  # seconds until a datagram is sent again


@contextlib.contextmanager
def own_namespace() -> Iterator[None]:
    """Moves this thread into a new network namespace for the block."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.unshare(linux.CLONE_NEWNET)
        try:
            with Netlink() as netlink:
                netlink.run(link_set("lo", up=True))
            yield
        finally:
            linux.setns(home, linux.CLONE_NEWNET)
    finally:
        os.close(home)


def until(condition: Callable[[], bool], seconds: float = WAIT) -> bool:
    """Whether the condition became true in time. Polls: for states that the kernel reaches by itself."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def inside(path: str, *argv: str, input: str | None = None) -> str:
    """The output of a busybox applet in the namespace at ``path``, including its error output."""
    done = subprocess.run(
        ["nsenter", f"--net={path}", "busybox", *argv],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    return done.stdout + done.stderr


class Echo:
    """A server in a namespace that answers every connection (or datagram) with its name and the peer's address."""

    def __init__(self, path: str, name: str, port: int, *, kind: int = socket.SOCK_STREAM, v6: bool = False) -> None:
        self._name = name.encode()
        with linux.in_namespace(path, linux.CLONE_NEWNET):
            self._sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind)
        if v6:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("::" if v6 else "0.0.0.0", port))
        self._kind = kind
        if kind == socket.SOCK_STREAM:
            self._sock.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self._kind == socket.SOCK_STREAM:
                    client, address = self._sock.accept()
                    with client:
                        client.sendall(self._name + b" " + str(address[0]).encode())
                else:
                    _, address = self._sock.recvfrom(2048)
                    if not address:
                        return  # shut down
                    self._sock.sendto(self._name + b" " + str(address[0]).encode(), address)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(WAIT)


def ask(address: str, port: int, *, path: str = "", kind: int = socket.SOCK_STREAM, seconds: float = WAIT) -> str:
    """A server's answer; empty if it can't be reached. ``path``: the client's namespace (default: this thread's)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = linux.in_namespace(path, linux.CLONE_NEWNET) if path else contextlib.nullcontext()
    with where:
        sock = socket.socket(family, kind)
        target = socket.getaddrinfo(address, port, family, kind)[0][4]  # with the link of "fe80::1%eth0"
    with sock:
        sock.settimeout(seconds)
        try:
            sock.connect(target)
            return (answered(sock, b"?", seconds) if kind == socket.SOCK_DGRAM else sock.recv(2048)).decode()
        except OSError:
            return ""


def answered(sock: socket.socket, question: bytes, seconds: float = WAIT) -> bytes:
    """The answer to a datagram, which is repeated until an answer arrives: any may get lost.

    :raises TimeoutError: no answer in time.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(min(AGAIN, left))
        sock.send(question)
        with contextlib.suppress(TimeoutError):
            return sock.recv(1 << 16)
    raise TimeoutError


def refused(address: str, port: int, *, path: str = "") -> bool:
    """Whether nothing answers: refused at once, or silent for a while (a firewall drops)."""
    return ask(address, port, path=path, seconds=0.3) == ""


def link_names() -> set[str]:
    with Netlink() as netlink:
        return {link.name for link in netlink.links()}


def run(argv: Sequence[str]) -> str:
    return subprocess.run(list(argv), capture_output=True, text=True, timeout=WAIT, check=True).stdout
