"""Random disconnects of clients and failures of registries: pulls, pushes, loads, saves, imports, commits and builds
are killed at any moment, and the proxy in front of the registry cuts, delays or refuses requests.

``python -m compat_tests.endurance.disconnects --rounds 200 --seed 1`` starts an engine and a registry. The engine must
answer after every round; at intervals, once idle, it must have no more tasks, descriptors, leases or partial data than
before, and a pull must work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from compat_tests.support import disk, engines
from compat_tests.support.containerd import first_column
from compat_tests.support.engines import Wharf
from compat_tests.support.host.processes import open_descriptors
from compat_tests.support.images import busybox_layer, docker_archive, layer
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry, registry
from compat_tests.support.servers.registry_proxy import Cut, Delay, RecordedRequest, RegistryProxy, Reply
from compat_tests.support.transfers import OCI, manifest, put_blob, put_manifest

#: Seconds within which the engine must answer under this load.
ANSWER = 10.0
REFUSALS = (
    Reply(500, b"no"),
    Reply(429, b"", {"Retry-After": "0"}),
    Reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'}),
    Reply(200, b"<html>log in</html>", {"Content-Type": "text/html"}),
    Reply(307, b"", {"Location": "/v2/elsewhere"}),
)
TASK = re.compile(r"^Task (.*):$", re.MULTILINE)
#: The partial download of a layer stays, for the next pull to resume; it is named after the layer.
RESUMABLE = "layer-sha256:"
#: Directories of running builds; mirrors of contexts stay for the next build.
BUILDING = [["build", name] for name in ("mounts", "contexts", "scratch")]


class Disconnects:
    """One engine, one registry behind a proxy, and operations that are interrupted."""

    def __init__(self, engine: Wharf, registry: Registry, seed: int) -> None:
        self.engine = engine
        self.registry = registry
        self.random = random.Random(seed)
        self.slowest = 0.0
        self.only: list[str] = []
        self.counts: Counter[str] = Counter()
        self._delays: list[Delay] = []
        self._serial = 0
        self._wild = False
        self.proxy = RegistryProxy(registry.address, self._rule)
        self._base = self._new_image("base", [busybox_layer()])
        self._archive = docker_archive("disconnects/loaded:1", [busybox_layer(), *self._layers()])
        self._kept = docker_archive("disconnects/kept:1", [busybox_layer(), *self._layers()])
        engine.docker("load", "-q", input=self._kept)
        self.operations: tuple[Callable[[], None], ...] = (
            self._pull, self._pull, self._pull, self._raw_pull, self._push, self._load, self._raw_load,
            self._save, self._import, self._commit, self._classic, self._buildkit, self._queries,
        )  # fmt: skip

    # faults of the registry

    def _rule(self, request: RecordedRequest) -> Cut | Delay | Reply | None:
        if not self._wild:
            return None
        mood = self.random.random()
        size = int(10 ** self.random.uniform(0, 7))
        if mood < 0.12:
            return Cut(size)
        if mood < 0.3:
            delay = Delay(size)
            self._delays.append(delay)
            return delay
        if mood < 0.36:
            return self.random.choice(REFUSALS)
        return None

    def _resume_delays(self) -> None:
        self._wild = False
        delays, self._delays = self._delays, []
        for delay in delays:
            delay.resume.set()

    def _layers(self) -> list[bytes]:
        return [layer({f"file{n}": os.urandom(size)}) for n, size in enumerate((100_000, 1_500_000, 6_000_000))]

    def _new_image(self, repository: str, layers: list[bytes] | None = None) -> str:
        """Push a new image to the registry; return its name behind the proxy."""
        layers = layers or self._layers()
        data, blob = manifest(layers, layers, [f"{OCI}.layer.v1.tar"] * len(layers), Cmd=["true"])
        for part in (blob, *layers):
            put_blob(self.registry, repository, part)
        self._serial += 1
        put_manifest(self.registry, repository, data, f"{OCI}.manifest.v1+json", tag=str(self._serial))
        return f"{repository}:{self._serial}"

    # interrupted operations

    def _interrupt_cli(self, *args: str, input: bytes | None = None, env: dict[str, str] | None = None) -> None:
        """Run the CLI and kill it after a random time, or let it finish without registry faults."""
        environment = {**self.engine.environment(), **(env or {})}
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                ["docker", *args],
                stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )
            stay = 10 ** self.random.uniform(-1.5, 0.3)
            try:
                if input is not None and process.stdin is not None:
                    upto = len(input) if self.random.random() < 0.3 else self.random.randrange(len(input))
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.write(input[:upto])
                        process.stdin.flush()
                    if self.random.random() < 0.3:
                        with contextlib.suppress(BrokenPipeError):
                            process.stdin.close()
                process.wait(stay)
                self.counts["ended"] += 1
            except subprocess.TimeoutExpired:
                if self.random.random() < 0.2:
                    self._resume_delays()
                    if process.stdin is not None:
                        with contextlib.suppress(BrokenPipeError):
                            process.stdin.close()
                    process.wait(120)
                    self.counts["finished"] += 1
                else:
                    process.kill()
                    self.counts["killed"] += 1
            finally:
                process.kill()
                if process.stdin is not None:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()
                process.wait(60)

    def _interrupt_request(self, request: bytes, body: bytes = b"") -> None:
        """Send on a bare connection, then reset or half-close it."""
        with contextlib.closing(self.engine.api.raw()) as sock, contextlib.suppress(OSError):
            sock.sendall(request)
            if body:
                sock.sendall(body[: self.random.randrange(len(body))])
            if self.random.random() < 0.3:
                sock.shutdown(socket.SHUT_WR)
            sock.settimeout(10 ** self.random.uniform(-2, 0))
            with contextlib.suppress(TimeoutError):
                while sock.recv(self.random.choice((1, 100, 65536))):
                    pass
            if self.random.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _pull(self) -> None:
        self._interrupt_cli("pull", f"{self.proxy.address}/{self._new_image('pulled')}")

    def _raw_pull(self) -> None:
        repository, _, tag = self._new_image("pulled").partition(":")
        url = f"/images/create?fromImage={self.proxy.address}/{repository}&tag={tag}"
        self._interrupt_request(f"POST {url} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())

    def _push(self) -> None:
        self._serial += 1
        name = f"{self.proxy.address}/pushed{self._serial}:1"
        self.engine.docker("tag", "disconnects/kept:1", name)
        self._interrupt_cli("push", name)

    def _load(self) -> None:
        archive = docker_archive("disconnects/loaded:1", [busybox_layer(), *self._layers()])
        self._interrupt_cli("load", input=archive)

    def _raw_load(self) -> None:
        archive = docker_archive("disconnects/loaded:1", [busybox_layer(), *self._layers()])
        head = f"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: {len(archive)}\r\n\r\n"
        self._interrupt_request(head.encode(), archive)

    def _save(self) -> None:
        self._interrupt_request(b"GET /images/disconnects/kept:1/get HTTP/1.1\r\nHost: d\r\n\r\n")

    def _import(self) -> None:
        self._interrupt_cli("import", "-", "disconnects/imported:1", input=layer({"x": os.urandom(5_000_000)}))

    def _commit(self) -> None:
        id = self.engine.docker("create", "disconnects/kept:1", "true").stdout.strip()
        self.engine.docker("cp", "-", f"{id}:/", input=layer({"added": os.urandom(3_000_000)}))
        self._interrupt_cli("commit", id, "disconnects/committed:1")
        self.engine.docker("rm", "-f", id)

    def _classic(self) -> None:
        self._build("0")

    def _buildkit(self) -> None:
        self._build("1")

    def _build(self, kit: str) -> None:
        base = self._new_image("built", [busybox_layer(), *self._layers()])
        text = f"FROM {self.proxy.address}/{base}\nRUN echo > /x\n"
        with tempfile.TemporaryDirectory(prefix="wharf-disconnects-") as folder:
            Path(folder, "Dockerfile").write_text(text)
            self._interrupt_cli("build", "-t", "disconnects/built:1", folder, env={"DOCKER_BUILDKIT": kit})

    def _queries(self) -> None:
        name = f"{self.proxy.address}/{self._base}"
        self._interrupt_request(f"GET /distribution/{name}/json HTTP/1.1\r\nHost: d\r\n\r\n".encode())

    # checks

    def round(self) -> str:
        selected = [each for each in self.operations if not self.only or each.__name__.lstrip("_") in self.only]
        operation = self.random.choice(selected)
        self._wild = True
        operation()
        began = time.monotonic()
        answer = self.engine.api.request("GET", "/_ping", timeout=ANSWER)
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert answer.status == 200
        return operation.__name__.lstrip("_")

    def tasks(self) -> Counter[str]:
        names = TASK.findall(self.engine.daemon.stacks())
        return Counter("Task" if re.fullmatch(r"Task-\d+", name) else name for name in names)

    def descriptors(self) -> dict[str, int]:
        found = {}
        for process in (self.engine.daemon.pid, *(p.pid for p in self.engine.find("wharf-supervisor"))):
            found[Path(f"/proc/{process}/comm").read_text().strip()] = open_descriptors(process)
        return found

    def partial_objects(self) -> list[str]:
        """Return what interrupted operations have not removed yet."""
        leases, snapshots, ingests = (
            first_column(self.engine.ctr(*args).stdout)
            for args in (("leases", "ls"), ("snapshots", "ls"), ("content", "active"))
        )
        found = [f"lease {id}" for id in leases if not id.endswith("-build-cache")]
        found += [f"snapshot {key}" for key in snapshots if not key.startswith("sha256:")]
        found += [f"ingest {ref}" for ref in ingests if not ref.startswith(RESUMABLE)]
        leftovers = self.engine.resources.footprint.leftovers()
        groups = [Path(line.split()[1]) for line in leftovers if line.startswith("cgroup")]
        found += [f"cgroup {path}" for path in groups if re.fullmatch("[0-9a-z]{24,64}", path.name)]
        data = self.engine.resources.root / "data"
        for path, _ in disk.entries(data):
            parts = path.removeprefix(f"{data}/").split("/")
            if "trash" in parts[:-1] or (parts[:2] in BUILDING and len(parts) > 2):
                found.append(f"file {path}")
        return found


def exceeded(before: dict[str, int], now: dict[str, int], slack: int = 0) -> dict[str, int]:
    return {name: n - before.get(name, 0) for name, n in now.items() if n > before.get(name, 0) + slack}


def wait_until_idle(run: Disconnects, tasks: Counter[str]) -> dict[str, int]:
    """Wait until the engine is idle; fail with the tasks and resources that remain."""
    run._resume_delays()
    added: dict[str, int] = {}

    def ended() -> bool:
        nonlocal added
        added = exceeded(tasks, run.tasks())
        return not added

    assert until(ended, seconds=60), (added, run.engine.daemon.stacks())
    assert until(lambda: not run.partial_objects(), seconds=60), run.partial_objects()
    return run.descriptors()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.endurance.disconnects", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine", choices=("wharf", "containerd"), default="wharf")
    parser.add_argument("--only", default="", help="names of operations, joined by commas: classic,buildkit")
    arguments = parser.parse_args()
    print("seed", arguments.seed, flush=True)
    with engines.on_backend(arguments.engine, "clients") as engine, registry() as server:
        run = Disconnects(engine, server, arguments.seed)
        run.only = [name for name in arguments.only.split(",") if name]
        with run.proxy:
            run.engine.docker("pull", "-q", f"{run.proxy.address}/{run._new_image('warm')}")
            for each in run.operations:  # run each once, to create one-time files
                each()
            assert until(lambda: not run.partial_objects(), seconds=60), run.partial_objects()
            time.sleep(5)
            tasks, fds = run.tasks(), run.descriptors()
            print(dict(tasks), fds, flush=True)
            for number in range(1, arguments.rounds + 1):
                name = run.round()
                run.counts[name] += 1
                if number % 20 == 0:
                    now = wait_until_idle(run, tasks)
                    run.engine.docker("pull", "-q", f"{run.proxy.address}/{run._new_image('works')}")
                    print(number, f"slowest answer {run.slowest:.2f} s", exceeded(fds, now), flush=True)
            print(dict(run.counts))
            disk.check_blob_digests(engine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
