"""Engines for the tests: Wharf, Wharf on a stock containerd, and the dockerd whose answers are the reference.

Each has a data root, a bridge, a subnet and a cgroup parent of its own, and :meth:`Engine.destroy` checks that nothing
of it is left. ``python -m compat_tests.support.engines sweep`` cleans up after killed test runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from compat_tests.support import as_user
from compat_tests.support.api import Api
from compat_tests.support.containerd import Containerd, ctr
from compat_tests.support.daemons import STOP, Completed, Daemon, forget, run_program
from compat_tests.support.host import resources
from compat_tests.support.host.processes import Process
from compat_tests.support.images import busybox_archive
from compat_tests.support.polling import until
from compat_tests.swagger.check import check_response

if TYPE_CHECKING:
    import docker

AnyEngine = TypeVar("AnyEngine", bound="Engine")


class Engine(ABC):
    """A running Docker Engine, with the clients to use it."""

    kind: str

    def __init__(self, resources: resources.EngineResources) -> None:
        self.resources = resources
        self.api = Api(resources.socket)
        self.env: dict[str, str] = {}
        self.cdi = resources.root / "cdi"  # where it looks for CDI specifications
        self.plugins = Path("/run/docker/plugins")  # where it looks for plugins
        self._client: docker.DockerClient | None = None
        self._config = resources.root / "cli"
        self._config.mkdir()

    @property
    def host(self) -> str:
        return f"unix://{self.resources.socket}"

    @property
    @abstractmethod
    def daemon(self) -> Daemon:
        """The API daemon."""

    @property
    def client(self) -> docker.DockerClient:
        """Return docker-py connected to this engine, with the highest common API version."""
        if self._client is None:
            import docker

            self._client = docker.DockerClient(base_url=self.host, version="auto", timeout=90)
            self._client.api.hooks["response"].append(check_response)
        return self._client

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a client program: this engine's address, directories of its own, nothing inherited.

        Temporary files count as traces of the engine, because the CLI and buildx leave some behind.
        """
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "BUILDX_", "COMPOSE_"))}
        own = {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self._config), "TMPDIR": str(self._config)}
        return {**inherited, **own, **self.env, **more}

    def run(
        self,
        *argv: str,
        input: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 90,
        cwd: Path | str | None = None,
    ) -> Completed:
        """Run a client program against this engine, with `input` or nothing on its standard input."""
        data = input.encode() if isinstance(input, str) else (input or b"")
        environment = self.environment(**(env or {}))
        return run_program(argv, env=environment, input=data, check=check, timeout=timeout, cwd=cwd)

    def docker(
        self,
        *args: str,
        input: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 90,
        cwd: Path | str | None = None,
    ) -> Completed:
        """Run the docker CLI."""
        return self.run("docker", *args, input=input, env=env, check=check, timeout=timeout, cwd=cwd)

    def run_in_netns(
        self, *argv: str, env: Mapping[str, str] | None = None, check: bool = True, timeout: float = 90
    ) -> Completed:
        """Run a client program in the network namespace in which ports are published."""
        return self.run(*argv, env=env, check=check, timeout=timeout)

    def popen(self, *args: str, **options: object) -> subprocess.Popen[bytes]:
        """Start the docker CLI; the caller must end it and wait for it (use it as a context manager)."""
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(["docker", *args], env=self.environment(), **streams)  # type: ignore[call-overload,no-any-return]

    def load_busybox(self) -> None:
        self.docker("load", "-q", input=busybox_archive())

    def log(self) -> str:
        return self.daemon.tail(20000)

    def start(self) -> None:
        self.daemon.start()
        self.daemon.wait_for(self.api)

    def restart(self) -> None:
        """Stop the API daemon gracefully and start it again, as an upgrade does."""
        self.daemon.stop()
        self.start()

    def find(self, name: str) -> list[Process]:
        """Return the engine's processes of this name (the kernel keeps 15 characters), except the API daemon."""
        return [
            process
            for process in self.resources.footprint.processes()
            if process.pid != self.daemon.pid and process.comm.startswith(name[:15])
        ]

    def kill(self, name: str, *, signal_number: int = signal.SIGKILL) -> None:
        """Kill the API daemon (`wharfd`, `dockerd`) or all processes of a name, and wait until they are gone."""
        if name in ("wharfd", "dockerd"):
            assert self.daemon.process is not None
            self.daemon.process.send_signal(signal_number)
            self.daemon.process.wait(STOP)
            return
        found = self.find(name)
        assert found, f"no process {name!r} among {[p.comm for p in self.resources.footprint.processes()]}"
        for process in found:
            process.signal(signal_number)
        assert until(lambda: not {p.pid for p in found} & {p.pid for p in self.find(name)}), f"{name} did not end"

    def remove_all(self) -> None:
        """Remove every container by force."""
        for item in self.api.get("/containers/json", all=1).json():
            self.api.delete(f"/containers/{item['Id']}", force=1, v=1)

    def destroy(self) -> list[str]:
        """Stop the engine and remove everything of it; return what a clean stop should not have left."""
        if self._client is not None:
            self._client.close()
        try:
            with contextlib.suppress(OSError, ValueError):
                if self.daemon.running:
                    self.remove_all()
            return self.shut_down()
        finally:
            self.end_all()
            self.resources.footprint.remove()
            forget(self.daemon)
            resources.clear(self.resources.root)

    def shut_down(self) -> list[str]:
        """Stop cleanly; return one line for each thing that was left behind by mistake."""
        self.daemon.stop()
        return []

    def end_all(self) -> None:
        """Kill every process of this engine."""
        process = self.daemon.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(STOP)


class Wharf(Engine):
    """Wharf. Without a containerd it starts its own supervisor."""

    kind = "wharf"

    def __init__(
        self,
        resources: resources.EngineResources,
        args: Sequence[str],
        *,
        containerd: Containerd | None,
        enter: Sequence[str] = (),
    ) -> None:
        """``enter``: the start of a command that runs it in other namespaces."""
        super().__init__(resources)
        self.containerd = containerd
        argv = [*enter, sys.executable, "-m", "server", "--data-root", str(resources.root / "data"), "--exec-root"]
        listened = self.host if as_user.CURRENT is None else f"{self.host}?mode=0666"
        argv += [str(resources.root / "run"), "-H", listened, "--bip", resources.bip]
        argv += ["--bridge-name", resources.bridge]
        argv += ["--default-address-pool", resources.pool, *resources.cgroup_flags]
        argv += ["--config-file", str(resources.root / "daemon.json"), "--pidfile", str(resources.root / "wharfd.pid")]
        argv += ["--cdi-spec-dir", str(self.cdi)]
        if as_user.CURRENT is not None:
            argv += ["--policy-file", str(as_user.CURRENT.policy(resources.root / "policy.toml"))]
            self.env.update(as_user.CURRENT.environment)
        elif "--policy-file" not in args:
            argv += ["--policy-file", ""]
        if containerd is not None:
            self.kind = "containerd"
            argv += ["--containerd", str(containerd.address)]
        if not any(arg == "--config-file" for arg in args):
            (resources.root / "daemon.json").write_text("{}")
        # A directory of its own: engines that run at the same time must not use each other's plugins.
        self.plugins = resources.root / "plugins"
        environ = {"WHARF_PLUGINS": str(self.plugins)}
        self._daemon = Daemon([*argv, *args], resources.root / "wharfd.log", mark=resources.footprint.mark, env=environ)

    @property
    def daemon(self) -> Daemon:
        return self._daemon

    @property
    def containerd_address(self) -> Path:
        """The socket of containerd's API: that of the stock containerd, or of the own supervisor."""
        return self.containerd.address if self.containerd else self.resources.root / "run/containerd/containerd.sock"

    def ctr(self, *args: str, namespace: str = "moby", check: bool = True) -> Completed:
        """Run `ctr` on the containerd or the supervisor of this engine."""
        return ctr(self.containerd_address, *args, namespace=namespace, check=check)

    # These stay by design when wharfd stops, so that containers continue: the processes below it, bridge and rules.
    EXPECTED = ("process", "rule")

    def shut_down(self) -> list[str]:
        self.daemon.stop()

        def unexpected() -> list[str]:
            shims = [f"shim {p.pid}" for p in self.find("wharf-shim")]
            ours = (f"link {self.resources.bridge}", f"/{self.resources.cgroup}", f"/{self.resources.cgroup}.slice")
            left = [line for line in self.resources.footprint.leftovers() if not line.endswith(ours)]
            return shims + [line for line in left if not line.startswith(self.EXPECTED)]

        until(lambda: not unexpected(), seconds=60)
        return unexpected()


class Dockerd(Engine):
    """Debian's dockerd in a network namespace of its own, so that it never changes the host's bridges and rules."""

    kind = "dockerd"

    def __init__(
        self,
        resources: resources.EngineResources,
        args: Sequence[str],
        *,
        containerd_store: bool = False,
        enter: Sequence[str] = (),
    ) -> None:
        """``enter``: as for ``Wharf``; without it, it has a network namespace of its own."""
        super().__init__(resources)
        # dockerd 29 makes time namespaces, which runc before 1.2 doesn't know.
        features = {"cdi": True, "containerd-snapshotter": containerd_store, "time-namespaces": False}
        (resources.root / "daemon.json").write_text(json.dumps({"features": features}))
        self.netns = resources.root / "netns"
        argv = [
            *(enter or ["nsenter", f"--net={self.netns}"]),
            "dockerd",
            "--config-file",
            str(resources.root / "daemon.json"),
        ]
        argv += ["--data-root", str(resources.root / "data"), "--exec-root", str(resources.root / "run")]
        argv += ["-H", self.host, "--cdi-spec-dir", str(self.cdi), "--pidfile", str(resources.root / "dockerd.pid")]
        argv += ["--bip", resources.bip, "--default-address-pool", resources.pool, *resources.cgroup_flags]
        self._daemon = Daemon([*argv, *args], resources.root / "dockerd.log", mark=resources.footprint.mark)

    @property
    def daemon(self) -> Daemon:
        return self._daemon

    def start(self) -> None:
        if not self.netns.exists():
            self.netns.touch()
            # util-linux's unshare binds the new namespace to the file; the process itself exits immediately
            argv = ["unshare", f"--net={self.netns}", "ip", "link", "set", "lo", "up"]
            subprocess.run(argv, check=True, capture_output=True, timeout=60)
        super().start()

    def inside(self, *argv: str, timeout: float = 60) -> Completed:
        """Run a program of the host in dockerd's network namespace."""
        return self.run_in_netns(*argv, timeout=timeout)

    def run_in_netns(
        self, *argv: str, env: Mapping[str, str] | None = None, check: bool = True, timeout: float = 90
    ) -> Completed:
        return self.run("nsenter", f"--net={self.netns}", *argv, env=env, check=check, timeout=timeout)


@contextlib.contextmanager
def wharf(name: str, *args: str, containerd: Containerd | None = None) -> Iterator[Wharf]:
    """Run Wharf with these additional flags; fail if its clean stop leaves something behind."""
    with wharf_on(resources.allocate(name), *args, containerd=containerd) as engine:
        yield engine


@contextlib.contextmanager
def wharf_on(allocated: resources.EngineResources, *args: str, containerd: Containerd | None = None) -> Iterator[Wharf]:
    """Run Wharf as ``wharf`` does, with resources that the caller has allocated."""
    with _running(Wharf(allocated, args, containerd=containerd)) as engine:
        yield engine


@contextlib.contextmanager
def stock_containerd(name: str, **options: Mapping[str, Path]) -> Iterator[Containerd]:
    """Run a stock containerd with these options for `wharf(..., containerd=...)`."""
    containerd = Containerd(resources.allocate(name), **options)
    try:
        containerd.start()
        yield containerd
    finally:
        containerd.destroy()


@contextlib.contextmanager
def dockerd(name: str, *args: str, containerd_store: bool = False) -> Iterator[Dockerd]:
    """Run the reference: the OS's dockerd, with its own image store or containerd's."""
    with _running(Dockerd(resources.allocate(name), args, containerd_store=containerd_store)) as engine:
        yield engine


@contextlib.contextmanager
def on_backend(kind: str, name: str, *args: str) -> Iterator[Wharf]:
    """Run Wharf with these flags and busybox:latest loaded, on its own supervisor ("wharf") or on a "containerd"."""
    with contextlib.ExitStack() as stack:
        stock = stack.enter_context(stock_containerd(f"{name}-ctd")) if kind == "containerd" else None
        engine = stack.enter_context(wharf(name, *args, containerd=stock))
        engine.load_busybox()
        yield engine


@contextlib.contextmanager
def running(kind: str, name: str, *args: str) -> Iterator[Engine]:
    """Run an engine of this kind with these flags and busybox:latest loaded: see ``on_backend``, or a "dockerd"."""
    if kind == "dockerd":
        with dockerd(name, *args) as oracle:
            oracle.load_busybox()
            yield oracle
    else:
        with on_backend(kind, name, *args) as engine:
            yield engine


@contextlib.contextmanager
def _running(engine: AnyEngine) -> Iterator[AnyEngine]:
    try:
        engine.start()
        yield engine
    except BaseException:
        engine.destroy()  # the error inside the block matters more than leftovers
        raise
    left = engine.destroy()
    assert not left, "a stopped engine left behind:\n" + "\n".join(left)


def main(argv: Sequence[str]) -> int:
    if list(argv) != ["sweep"]:
        print("usage: python -m compat_tests.support.engines sweep", file=sys.stderr)
        return 2
    for line in resources.sweep():
        print(f"   swept {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
