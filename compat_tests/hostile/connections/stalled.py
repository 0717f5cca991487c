"""Clients that stop in the middle of a request's body, and clients that never read their answer.

As in dockerd (Go's http.Server with a ReadHeaderTimeout and no limit for bodies), only TCP keepalive ends them.
``python -m compat_tests.hostile.connections.stalled`` starts an engine of its own, with 200 of each kind, one kind
after another.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from compat_tests.hostile.side_effects import monitored
from compat_tests.support import engines
from compat_tests.support.containers import running
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import marked_processes
from compat_tests.support.images import layer
from compat_tests.support.polling import until

EACH = 8  # MiB that one such client may cost
TAR = {"Content-Type": "application/x-tar"}
LOUD = "while :; do head -c 65536 /dev/zero | tr '\\0' x; sleep 0.05; done"
_FILES = layer({"Dockerfile": "FROM busybox\n", "f": os.urandom(2 << 20)})
_HOST = " HTTP/1.1\r\nHost: x\r\n"


def _half(line: str, sent: bytes) -> bytes:
    """Return a request that announces more than it sends."""
    return f"{line}{_HOST}Content-Type: application/x-tar\r\nContent-Length: {1 << 30}\r\n\r\n".encode() + sent


BODIES = {
    "create": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 1000\r\n\r\n{"Image":',
    "build": _half("POST /build", _FILES[:300_000]),
    "load": _half("POST /images/load", _FILES[:1_500_000]),
    "import": _half("POST /images/create?fromSrc=-", _FILES[:1_500_000]),
    "put": _half("PUT /containers/{box}/archive?path=/tmp", _FILES[:600_000]),
}
ANSWERS = {
    "image": f"GET /images/busybox/get{_HOST}\r\n".encode(),
    "archive": f"GET /containers/{{box}}/archive?path=/{_HOST}\r\n".encode(),
    "export": f"GET /containers/{{box}}/export{_HOST}\r\n".encode(),
    "logs": f"GET /containers/{{loud}}/logs?stdout=1&follow=1{_HOST}\r\n".encode(),
    "attach": f"POST /containers/{{loud}}/attach?stream=1&stdout=1&logs=1{_HOST}Upgrade: tcp\r\n\r\n".encode(),
    "events": f"GET /events{_HOST}\r\n".encode(),
    "stats": f"GET /containers/{{box}}/stats{_HOST}\r\n".encode(),
}
KINDS = {**BODIES, **ANSWERS}


def _threads_and_descriptors(engine: Engine) -> tuple[int, int]:
    """Return the threads and open descriptors of the engine's processes, without the shims'."""
    threads = descriptors = 0
    for process in marked_processes(engine.resources.footprint.mark):
        if process.comm != "wharf-shim":
            with contextlib.suppress(OSError):
                threads += len(os.listdir(f"/proc/{process.pid}/task"))
                descriptors += len(os.listdir(f"/proc/{process.pid}/fd"))
    return threads, descriptors


@contextlib.contextmanager
def stalled(engine: Engine, requests: Sequence[bytes], count: int) -> Iterator[None]:
    """Hold so many clients of each request open during the block."""
    with contextlib.ExitStack() as stack:
        for request in requests:
            for _ in range(count):
                sock = stack.enter_context(engine.api.raw())
                sock.settimeout(2)
                # Without a reader, the kernel's buffers fill up and sending blocks.
                with contextlib.suppress(TimeoutError):
                    sock.sendall(request)
        yield


def _use_engine(engine: Engine, box: str) -> None:
    """Ordinary work meanwhile, also on the container that the stalled clients use."""
    engine.docker("run", "--rm", "--network", "none", "busybox", "true")
    engine.docker("exec", box, "true")
    for method, url, query, body, status in (
        ("PUT", f"/containers/{box}/archive", {"path": "/tmp"}, layer({"f": b"1"}), 200),
        ("GET", f"/containers/{box}/archive", {"path": "/etc/passwd"}, None, 200),
        ("POST", "/images/create", {"fromSrc": "-", "repo": "stalled"}, layer({"f": b"1"}), 200),
        ("POST", "/build", {"t": "stalled:built"}, layer({"Dockerfile": f"FROM busybox\nENV x={time.time()}\n"}), 200),
        ("DELETE", "/images/stalled:latest", {"force": "1"}, None, 200),
        ("DELETE", "/images/stalled:built", {"force": "1"}, None, 200),
        ("POST", f"/containers/{box}/rename", {"name": f"renamed-{time.monotonic_ns()}"}, None, 204),
        ("POST", f"/containers/{box}/restart", {"t": "0"}, None, 204),
    ):
        answer = engine.api.request(method, url, query=query, body=body, headers=TAR if body else {}, timeout=90)
        assert answer.status == status, (method, url, answer.body)


def stall(engine: Engine, kinds: Sequence[str], count: int) -> None:
    """Work beside ``count`` stalled clients of each kind; their cost is bounded, and freed afterwards."""
    with running(engine, {"HostConfig": {"NetworkMode": "none"}}) as box:
        loud = engine.docker("run", "-d", "--network", "none", "busybox", "sh", "-c", LOUD).stdout.strip()
        try:
            _use_engine(engine, box)
            threads, descriptors = _threads_and_descriptors(engine)
            requests = [KINDS[kind].replace(b"{box}", box.encode()).replace(b"{loud}", loud.encode()) for kind in kinds]
            with monitored(engine, added=100 + EACH * count * len(kinds)), stalled(engine, requests, count):
                _use_engine(engine, box)
                threading.Event().wait(1)  # for delayed growth
                _use_engine(engine, box)

            def freed() -> bool:
                now = _threads_and_descriptors(engine)
                return now[0] <= threads + 40 and now[1] <= descriptors + 20  # thread pools keep their threads

            assert until(freed, seconds=60), ((threads, descriptors), _threads_and_descriptors(engine))
        finally:
            engine.docker("rm", "-f", loud)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    with engines.wharf("stalled") as engine:
        engine.load_busybox()
        for kind in arguments.kinds:
            begin = time.monotonic()
            stall(engine, [kind], arguments.count)
            print(f"{kind}: {time.monotonic() - begin:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
