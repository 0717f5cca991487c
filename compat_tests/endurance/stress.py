"""Concurrent pulls, loads, builds, commits, removals, containers and prunes on shared layers.

``python -m compat_tests.endurance.stress --seconds 300`` starts an engine and a registry. Images in use stay, every
blob matches its digest at the end, and the data root returns to its original files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from compat_tests.support import disk, engines
from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, docker_archive, layer
from compat_tests.support.servers.registry import Registry, registry
from compat_tests.support.transfers import unique_layers

RUN = ("run", "--rm", "--network", "none")


class Stress:
    """The workers, each of which repeats one step; ``rounds`` counts the repetitions of each."""

    def __init__(self, engine: Engine, registry: Registry) -> None:
        self._engine = engine
        self._registry = registry
        self.rounds: dict[str, int] = {}
        self.failures: list[str] = []
        shared = unique_layers(1, 300_000)
        self._archives = [
            docker_archive(f"shared:{n}", [busybox_layer(), *shared, *unique_layers(1, 100_000)]) for n in range(3)
        ]
        for number, archive in enumerate(self._archives):
            registry.copy_archive(archive, f"shared:{number}")
        for name in ("held", "used"):
            archive = docker_archive(f"{name}:1", [busybox_layer(), *shared, layer({name: name})])
            engine.docker("load", "-q", input=archive)
        self.used = engine.docker("run", "-d", "--network", "none", "used:1", "sleep", "36000").stdout.strip()
        engine.docker("rmi", "-f", "used:1")  # the container keeps it

    def run(self, *, seconds: float = 0, rounds: int = 0) -> None:
        """Run every worker for this long, or this often."""
        end = time.monotonic() + seconds if seconds else float("inf")
        steps = (self._pull, self._push, self._load, self._container, self._commit, self._build, self._prune)
        threads = [threading.Thread(target=self._repeat, args=(step, end, rounds)) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _repeat(self, step: Callable[[int], None], end: float, rounds: int) -> None:
        name = step.__name__.lstrip("_")
        try:
            for number in range(rounds) if rounds else itertools.count():
                if self.failures or time.monotonic() > end:
                    break
                step(number)
                self.rounds[name] = number + 1
        except Exception as error:
            self.failures.append(f"{name}: {error}")

    def finish(self) -> None:
        """Check what must have stayed, and remove it."""
        engine = self._engine
        assert not self.failures, self.failures
        disk.check_blob_digests(engine)
        assert engine.docker(*RUN, "held:1", "cat", "/held").stdout == "held"
        assert engine.docker("exec", self.used, "cat", "/used").stdout == "used"
        dangling = engine.api.get("/images/json", filters=json.dumps({"dangling": ["true"]})).json()
        assert [image["Containers"] for image in dangling] == [1]
        assert len(engine.api.get("/images/held:1/get").body) > len(busybox_layer())
        engine.docker("rm", "-f", self.used)
        engine.docker("rmi", "held:1")
        engine.docker("image", "prune", "-f")
        engine.docker("builder", "prune", "-af")

    # the repeated steps

    def _pull(self, number: int) -> None:
        name = self._registry.name(f"shared:{number % 2}")
        self._engine.docker("pull", "-q", name)
        self._engine.docker("rmi", name)

    def _push(self, number: int) -> None:
        name = self._registry.name(f"pushed-{number % 3}:1")
        self._engine.docker("tag", "held:1", name)
        self._engine.docker("push", "-q", name)
        self._engine.docker("rmi", name)

    def _load(self, number: int) -> None:
        self._engine.docker("load", "-q", input=self._archives[number % 3])
        self._engine.docker("rmi", "-f", f"shared:{number % 3}")

    def _container(self, number: int) -> None:
        del number
        assert self._engine.docker(*RUN, "held:1", "cat", "/held").stdout == "held"
        assert self._engine.docker("exec", self.used, "cat", "/used").stdout == "used"

    def _commit(self, number: int) -> None:
        self._engine.docker("commit", "-p=false", self.used, f"committed:{number}")
        self._engine.docker(*RUN, f"committed:{number}", "cat", "/used")
        self._engine.docker("rmi", f"committed:{number}")

    def _build(self, number: int) -> None:
        with tempfile.TemporaryDirectory(prefix="wharf-stress-") as folder:
            Path(folder, "Dockerfile").write_text(f"FROM held:1\nRUN echo {number} > /number\nCOPY Dockerfile /\n")
            kind = {"DOCKER_BUILDKIT": str(number % 2), "BUILDKIT_PROGRESS": "plain"}
            self._engine.docker("build", "-q", "-t", f"built:{number}", folder, env=kind)
        assert self._engine.docker(*RUN, f"built:{number}", "cat", "/number").stdout == f"{number}\n"
        self._engine.docker("rmi", f"built:{number}")

    def _prune(self, number: int) -> None:
        path = "/build/prune" if number % 4 == 3 else "/images/prune"
        answer = self._engine.api.post(path)
        assert answer.status in (200, 409), answer.body


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.endurance.stress", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--engine", choices=("wharf", "containerd"), default="wharf")
    arguments = parser.parse_args()
    with engines.on_backend(arguments.engine, "stress") as engine, registry() as server:
        before = disk.baseline_files(engine)
        stress = Stress(engine, server)
        stress.run(seconds=arguments.seconds)
        print("rounds:", ", ".join(f"{name} {count}" for name, count in sorted(stress.rounds.items())))
        stress.finish()
        disk.wait_for_files(engine, before)
    print("nothing was lost, nothing is left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
