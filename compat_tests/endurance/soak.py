"""python -m compat_tests.endurance.soak --minutes 5: an everyday load, to find what grows.

Four clients create, start, stream, exec into and remove containers until the time is up. At intervals they pause, and
the state of the engine is printed: memory, descriptors, threads and zombies of each daemon; mounts, network interfaces
and cgroups of all. Without leaks, the lines stay the same.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from compat_tests.support import engines
from compat_tests.support.api import dial
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import marked_processes, open_descriptors, resident_memory, status_value
from compat_tests.support.host.traces import cgroups_named, links, mounts_under
from compat_tests.support.polling import until

CLIENTS = 4
SHOWN = f"{'lives':>7} {'process':<16} {'n':>3} {'RSS MiB':>8} {'fds':>5} {'threads':>7} {'zombies':>7}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.endurance.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long (5)")
    parser.add_argument("--every", type=float, default=30, metavar="SECONDS", help="how long between two looks (30)")
    parser.add_argument("--engine", choices=("wharf", "dockerd"), default="wharf")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the engine too
    with (engines.wharf if options.engine == "wharf" else engines.dockerd)("soak") as engine:
        engine.load_busybox()
        end = time.monotonic() + options.minutes * 60
        lives = 0
        print(SHOWN, flush=True)
        while time.monotonic() < end:
            lives += work(engine, seconds=options.every)
            settle(engine)
            print("\n".join(describe_resources(engine, lives)), flush=True)
    return 0


def work(engine: Engine, *, seconds: float) -> int:
    """Run all clients for so long; return the number of containers they ran."""
    import docker

    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()

    def client() -> int:
        lives = 0
        connection = docker.DockerClient(base_url=engine.host, version="auto", timeout=120)
        try:
            while not stop.is_set():
                for life in (short, long, broken, build, disconnect):
                    life(connection, engine)
                    lives += 1
        finally:
            connection.close()
        return lives

    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return sum(done.result() for done in [pool.submit(client) for _ in range(CLIENTS)])
    finally:
        timer.cancel()


def short(client: Any, engine: Engine) -> None:
    """A container that prints and exits."""
    assert client.containers.run("busybox", "echo said", remove=True) == b"said\n"


def long(client: Any, engine: Engine) -> None:
    """A container with a network, a volume, a health check and a port: exec, logs, stats, stop and remove."""
    name = f"soak{uuid.uuid4().hex[:12]}"
    network = client.networks.create(name)
    try:
        container = client.containers.create(
            "busybox",
            ["sh", "-c", "for n in 1 2 3; do echo line $n; done; exec sleep 600"],
            name=name,
            network=name,
            volumes={name: {"bind": "/data", "mode": "rw"}},
            ports={"80/tcp": None},
            healthcheck={"test": ["CMD", "true"], "interval": 500_000_000},
            stop_signal="SIGKILL",
        )
        try:
            container.start()
            assert container.exec_run(["cat"], stdin=False).exit_code == 0
            assert container.exec_run(["sh", "-c", "echo kept > /data/f; cat /data/f"]).output == b"kept\n"
            lines: Iterator[bytes] = container.logs(stream=True, follow=True)
            assert next(lines) == b"line 1\n"
            container.stats(stream=False)
            container.put_archive("/", b"\0" * 1024)
            container.restart(timeout=0)
            container.stop(timeout=0)
            list(lines)
            assert container.logs(tail=1).startswith(b"line ")
        finally:
            container.remove(force=True, v=True)
            client.volumes.get(name).remove()
    finally:
        network.remove()


def broken(client: Any, engine: Engine) -> None:
    """A container that fails to start."""
    import docker

    container = client.containers.create("busybox", "no-such-program")
    try:
        container.start()
    except docker.errors.APIError:
        return
    finally:
        container.remove(force=True)
    raise AssertionError("a program that isn't there was started")


def build(client: Any, engine: Engine) -> None:
    """Build an image of two new layers, and remove it."""
    word = uuid.uuid4().hex
    dockerfile = io.BytesIO(f"FROM busybox\nRUN echo {word} > /word\nLABEL word={word}\n".encode())
    image, _ = client.images.build(fileobj=dockerfile, rm=True)
    client.images.remove(image.id, force=True)


def disconnect(client: Any, engine: Engine) -> None:
    """Start every kind of stream, and close the connections without notice."""
    container = client.containers.create("busybox", ["sh", "-c", "while :; do echo line; sleep 0.01; done"])
    try:
        container.start()
        exec_id = client.api.exec_create(container.id, ["cat"], stdin=True)["Id"]
        paths = {
            f"/containers/{container.id}/logs?follow=1&stdout=1": "GET",
            f"/containers/{container.id}/attach?stream=1&stdin=1&stdout=1": "POST",
            f"/containers/{container.id}/stats": "GET",
            f"/containers/{container.id}/wait": "POST",
            f"/containers/{container.id}/export": "GET",
            f"/exec/{exec_id}/start": "POST",
            "/events": "GET",
        }
        for path, method in paths.items():
            body = b'{"Detach": false}' if path.startswith("/exec") else b""
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            with dial(engine.resources.socket) as sock:
                sock.sendall(f"{head}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode() + body)
                sock.recv(10)
    finally:
        container.remove(force=True)


def settle(engine: Engine) -> None:
    """Remove the build cache, and wait until no shim of a container is left."""
    engine.api.post("/build/prune", all=1)
    until(
        lambda: not any("shim" in process.comm for process in marked_processes(engine.resources.footprint.mark)),
        seconds=60,
    )


def describe_resources(engine: Engine, lives: int) -> list[str]:
    """Return one line for the processes of each name, and one for their resources on the host."""
    kinds: dict[str, list[int]] = {}
    for process in marked_processes(engine.resources.footprint.mark):
        kinds.setdefault(process.comm, []).append(process.pid)
    lines = []
    for comm, pids in sorted(kinds.items()):
        memory = sum(resident_memory(pid) for pid in pids) / (1 << 20)
        threads = sum(status_value(pid, "Threads:") for pid in pids)
        descriptors = sum(open_descriptors(pid) for pid in pids)
        zombies = sum(_zombies(pid) for pid in pids)
        numbers = f"{len(pids):>3} {memory:>8.1f} {descriptors:>5} {threads:>7} {zombies:>7}"
        lines.append(f"{lives:>7} {comm:<16} {numbers}")
    resources = engine.resources
    host = f"{len(mounts_under(resources.root))} mounts, {len(links())} links of the host, "
    files = sum(len(names) for _, _, names in os.walk(resources.root / "data"))
    return [*lines, f"{lives:>7} {host}{len(cgroups_named(resources.cgroup))} cgroups, {files} files in the data root"]


def _zombies(parent: int) -> int:
    """Return the number of zombies among a process's children."""
    found = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit() and status_value(int(entry), "PPid:") == parent:
            with suppress(OSError):
                found += Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return found


if __name__ == "__main__":
    sys.exit(main())
