"""One member of etcd on loopback, for tests."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


def installed() -> bool:
    return shutil.which("etcd") is not None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@contextlib.contextmanager
def member(directory: Path) -> Iterator[str]:
    """Yields the address of the member's API; its data is in ``directory``."""
    client, peer = free_port(), free_port()
    argv = ["etcd", "--name", "one", "--data-dir", str(directory), "--log-level", "error", "--unsafe-no-fsync"]
    argv += [
        "--listen-client-urls",
        f"http://127.0.0.1:{client}",
        "--advertise-client-urls",
        f"http://127.0.0.1:{client}",
    ]
    argv += [
        "--listen-peer-urls",
        f"http://127.0.0.1:{peer}",
        "--initial-advertise-peer-urls",
        f"http://127.0.0.1:{peer}",
    ]
    argv += ["--initial-cluster", f"one=http://127.0.0.1:{peer}"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(client, process)
            yield f"127.0.0.1:{client}"
        finally:
            process.terminate()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError("etcd does not answer")
