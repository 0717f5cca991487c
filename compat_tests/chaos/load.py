"""Short-lived objects during the experiment: each step is one operation, which removes what it creates."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable

from compat_tests.chaos.journal import Journal, Operation, Unexpected
from compat_tests.support.api import dial
from compat_tests.support.engines import Wharf
from compat_tests.support.images import busybox_layer, docker_archive, layer
from compat_tests.support.servers.registry import Registry

LABEL = "chaos-load"
TIMEOUT = 120.0  # seconds for one command; a later answer is a failure


def expect(found: object, expected: object, what: str) -> None:
    """:raises Unexpected: a wrong answer, as opposed to a late or missing one."""
    if found != expected:
        raise Unexpected(f"{what}: {found!r} instead of {expected!r}")


def reachable(engine: Wharf) -> bool:
    """Whether the daemon accepts connections."""
    try:
        dial(engine.resources.socket, timeout=10).close()
    except OSError:
        return False
    return True


class Load:
    """``work`` is the loop of one client; any number may run concurrently."""

    def __init__(self, engine: Wharf, journal: Journal, registry: Registry) -> None:
        self._engine, self._journal, self._registry = engine, journal, registry
        registry.copy_archive(docker_archive("chaos:1", [busybox_layer(), layer({"pulled": "pulled"})]), "chaos:1")
        self._steps: list[Callable[[Operation, str], None]] = [
            self._run,
            self._run,
            self._lifecycle,
            self._lifecycle,
            self._exec,
            self._volume,
            self._group,
            self._build,
            self._load,
            self._commit,
            self._pull,
        ]

    def work(self, stop: threading.Event, seed: int) -> None:
        chance = random.Random(seed)
        remaining: list[str] = []
        while not stop.is_set():
            if not reachable(self._engine):
                # A refused connection is expected; a connection that breaks is recorded.
                stop.wait(0.1)
                continue
            remaining = [name for name in remaining if not self._removed(name)]
            step = chance.choice(self._steps)
            name = f"chaos-{uuid.uuid4().hex[:10]}"
            with self._journal.operation(step.__name__.lstrip("_")) as operation:
                step(operation, name)
            if operation.error:
                remaining.append(name)
            stop.wait(chance.uniform(0, 0.3))

    def _removed(self, name: str) -> bool:
        """Try to remove what an interrupted operation created, so that addresses do not run out; return whether it is
        gone."""
        removals = (
            ("rm", "-f", "-v", name, f"{name}-s", f"{name}-c"),
            ("network", "rm", "-f", name),
            ("volume", "rm", "-f", name),
        )
        return all(self._engine.docker(*args, check=False, timeout=TIMEOUT).status == 0 for args in removals)

    def _docker(self, *args: str, input: bytes | str | None = None) -> str:
        return self._engine.docker(*args, input=input, timeout=TIMEOUT).stdout

    def _create(self, operation: Operation, name: str, *args: str) -> str:
        identity = self._docker("create", "--name", name, "--label", LABEL, *args).strip()
        operation.containers.append(identity)
        return identity

    def _run(self, operation: Operation, name: str) -> None:
        """The output is complete and the exit code correct."""
        self._create(operation, name, "busybox", "sh", "-c", "seq 1000; exit 3")
        done = self._engine.docker("start", "-a", name, check=False, timeout=TIMEOUT)
        if done.status not in (3,):
            raise AssertionError(f"start -a ended with {done.status}: {done.output[-500:]}")
        expect(done.stdout.split(), [str(number) for number in range(1, 1001)], "output of run")
        self._docker("rm", name)

    def _lifecycle(self, operation: Operation, name: str) -> None:
        self._create(operation, name, "-p", "127.0.0.1::80", "busybox", "sleep", "600")
        self._docker("start", name)
        self._docker("pause", name)
        self._docker("unpause", name)
        self._docker("restart", "-t", "0", name)
        self._docker("kill", name)
        self._docker("wait", name)
        self._docker("start", name)
        self._docker("stop", "-t", "0", name)
        expect(self._docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name), "exited 137\n", "stop")
        self._docker("rm", name)

    def _exec(self, operation: Operation, name: str) -> None:
        identity = self._create(operation, name, "busybox", "sleep", "600")
        self._docker("start", identity)
        for number in range(3):
            done = self._engine.docker("exec", name, "sh", "-c", f"echo {number}; exit 4", check=False, timeout=TIMEOUT)
            if done.status != 4:
                raise AssertionError(f"exec ended with {done.status}: {done.output[-500:]}")
            expect(done.stdout, f"{number}\n", "output of exec")
        self._docker("rm", "-f", name)

    def _volume(self, operation: Operation, name: str) -> None:
        self._docker("volume", "create", "--label", LABEL, name)
        for script in ("echo kept > /v/f", "grep -q kept /v/f"):
            self._create(operation, name, "-v", f"{name}:/v", "busybox", "sh", "-c", script)
            self._docker("start", "-a", name)
            self._docker("rm", name)
        self._docker("volume", "rm", name)

    def _group(self, operation: Operation, name: str) -> None:
        """As compose does: a network, a server with an alias, and a client that resolves it."""
        self._docker("network", "create", "--label", LABEL, name)
        serve = "echo group > /index.html; exec httpd -f -p 80 -h /"
        network = ("--network", name)
        self._create(operation, f"{name}-s", *network, "--network-alias", "server", "busybox", "sh", "-c", serve)
        fetch = "for n in $(seq 100); do wget -qO- http://server/ && exit; sleep 0.1; done; exit 1"
        self._create(operation, f"{name}-c", *network, "busybox", "sh", "-c", fetch)
        self._docker("start", f"{name}-s")
        expect(self._docker("start", "-a", f"{name}-c"), "group\n", "answer by alias")
        self._docker("rm", "-f", f"{name}-s", f"{name}-c")
        self._docker("network", "rm", name)

    def _build(self, operation: Operation, name: str) -> None:
        dockerfile = f"FROM busybox\nLABEL {LABEL}=1\nRUN echo {name} > /name\n"
        kind = {"DOCKER_BUILDKIT": str(int(name[-1], 16) % 2), "BUILDKIT_PROGRESS": "plain"}
        self._engine.docker("build", "-q", "-t", name, "-", input=dockerfile, env=kind, timeout=TIMEOUT)
        self._create(operation, name, name, "cat", "/name")
        expect(self._docker("start", "-a", name), f"{name}\n", "file of a build")
        self._docker("rm", name)
        self._docker("rmi", name)

    def _load(self, operation: Operation, name: str) -> None:
        archive = docker_archive(f"{name}:1", [busybox_layer(), layer({"loaded": name})])
        self._docker("load", "-q", input=archive)
        self._create(operation, name, f"{name}:1", "cat", "/loaded")
        expect(self._docker("start", "-a", name), name, "file of a loaded image")
        self._docker("rm", name)
        self._docker("rmi", f"{name}:1")

    def _commit(self, operation: Operation, name: str) -> None:
        self._create(operation, name, "busybox", "sh", "-c", f"echo {name} > /name")
        self._docker("start", "-a", name)
        self._docker("commit", name, f"{name}:c")
        self._docker("rm", name)
        self._create(operation, name, f"{name}:c", "cat", "/name")
        expect(self._docker("start", "-a", name), f"{name}\n", "file of a commit")
        self._docker("rm", name)
        self._docker("rmi", f"{name}:c")

    def _pull(self, operation: Operation, name: str) -> None:
        image = self._registry.name("chaos:1")
        self._docker("pull", "-q", image)
        self._create(operation, name, image, "cat", "/pulled")
        expect(self._docker("start", "-a", name), "pulled", "file of a pulled image")
        self._docker("rm", name)

    def clear(self) -> None:
        """Remove what interrupted operations left. :raises AssertionError: an object can't be removed."""
        engine = self._engine
        label = f"label={LABEL}"
        for listing, remove in (
            (("ps", "-aq", "--filter", label), ("rm", "-f", "-v")),
            (("network", "ls", "-q", "--filter", label), ("network", "rm")),
            (("volume", "ls", "-q", "--filter", label), ("volume", "rm")),
        ):
            if names := engine.docker(*listing).stdout.split():
                engine.docker(*remove, *names)
        original = ("busybox:latest",)
        images = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        if others := [image for image in images if image not in original and "<none>" not in image]:
            engine.docker("rmi", "-f", *others)
        engine.docker("image", "prune", "-f")
        engine.docker("builder", "prune", "-af")
