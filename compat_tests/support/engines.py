"""Engines for the tests: ours, ours on a stock containerd, and the dockerd that answers are compared with.

Each runs on a data root, a bridge, a subnet and a cgroup parent of its own, and :meth:`Engine.destroy` proves that
nothing of it is left. ``python -m compat_tests.support.engines sweep`` clears up after test runs that were killed.
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

from compat_tests.support import places
from compat_tests.support.api import Api
from compat_tests.support.daemons import START, STOP, Daemon, forget
from compat_tests.support.daemons import Completed as Completed
from compat_tests.support.images import busybox_archive
from compat_tests.support.traces import Process, until

if TYPE_CHECKING:
    import docker

AnyEngine = TypeVar("AnyEngine", bound="Engine")


class Engine(ABC):
    """A running Docker Engine and the clients to talk to it with."""

    kind: str

    def __init__(self, place: places.Place) -> None:
        self.place = place
        self.api = Api(place.socket)
        self.env: dict[str, str] = {}
        self.cdi = place.root / "cdi"  # where it looks for specifications of devices
        self.plugins = Path("/run/docker/plugins")  # where it looks for plugins
        self._client: docker.DockerClient | None = None
        self._config = place.root / "cli"
        self._config.mkdir()

    @property
    def host(self) -> str:
        return f"unix://{self.place.socket}"

    @property
    @abstractmethod
    def daemon(self) -> Daemon:
        """The API daemon."""

    @property
    def client(self) -> docker.DockerClient:
        """docker-py on this engine, with the API version that both know."""
        if self._client is None:
            import docker

            self._client = docker.DockerClient(base_url=self.host, version="auto", timeout=90)
        return self._client

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a client program: this engine, folders of its own, nothing inherited.

        Its temporary files count as traces of the engine: the CLI and buildx leave some behind.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "BUILDX_", "COMPOSE_"))}
        own = {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self._config), "TMPDIR": str(self._config)}
        return {**kept, **own, **self.env, **more}

    def run(
        self,
        *argv: str,
        input: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 90,
        cwd: Path | str | None = None,
    ) -> Completed:
        """Runs a client program against this engine, with nothing or `input` on its standard input."""
        done = subprocess.run(
            argv,
            input=input.encode() if isinstance(input, str) else (b"" if input is None else input),
            env=self.environment(**(env or {})),
            capture_output=True,
            timeout=timeout,
            check=False,
            cwd=cwd,
        )
        result = Completed(
            tuple(argv), done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        return result.checked() if check else result

    def docker(
        self,
        *args: str,
        input: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 90,
        cwd: Path | str | None = None,
    ) -> Completed:
        """Runs the docker CLI."""
        return self.run("docker", *args, input=input, env=env, check=check, timeout=timeout, cwd=cwd)

    def popen(self, *args: str, **options: object) -> subprocess.Popen[bytes]:
        """Starts the docker CLI and returns at once; the caller ends and waits for it (use it as a context manager)."""
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
        """A graceful stop of the API daemon and a new start, as an upgrade does."""
        self.daemon.stop()
        self.start()

    def find(self, name: str) -> list[Process]:
        """The engine's processes of this name (the kernel keeps 15 characters of it), without the API daemon."""
        return [
            process
            for process in self.place.footprint.processes()
            if process.pid != self.daemon.pid and process.comm.startswith(name[:15])
        ]

    def kill(self, name: str, *, signal_number: int = signal.SIGKILL) -> None:
        """Ends the API daemon (`wharfd`, `dockerd`) or all other processes of a name, and waits until they are gone."""
        if name in ("wharfd", "dockerd"):
            assert self.daemon.process is not None
            self.daemon.process.send_signal(signal_number)
            self.daemon.process.wait(STOP)
            return
        found = self.find(name)
        assert found, f"no process {name!r} among {[p.comm for p in self.place.footprint.processes()]}"
        for process in found:
            process.signal(signal_number)
        assert until(lambda: not {p.pid for p in found} & {p.pid for p in self.find(name)}), f"{name} did not end"

    def remove_all(self) -> None:
        """Removes every container, by force."""
        for item in self.api.get("/containers/json", all=1).json():
            self.api.delete(f"/containers/{item['Id']}", force=1, v=1)

    def destroy(self) -> list[str]:
        """Stops the engine and takes away all of it; returns what a clean stop should not have left behind."""
        if self._client is not None:
            self._client.close()
        try:
            with contextlib.suppress(OSError, ValueError):
                if self.daemon.running:
                    self.remove_all()
            return self.shut_down()
        finally:
            self.end_all()
            self.place.footprint.remove()
            forget(self.daemon)
            places.clear(self.place.root)

    def shut_down(self) -> list[str]:
        """A clean stop; returns one line for each thing that it left and should not have."""
        self.daemon.stop()
        return []

    def end_all(self) -> None:
        """Ends every process of this engine by force."""
        process = self.daemon.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(STOP)


class Wharf(Engine):
    """Ours. Without a containerd it brings its own supervisor."""

    kind = "wharf"

    def __init__(self, place: places.Place, args: Sequence[str], *, containerd: Containerd | None) -> None:
        super().__init__(place)
        self.containerd = containerd
        argv = [sys.executable, "-m", "server", "--data-root", str(place.root / "data"), "--exec-root"]
        argv += [str(place.root / "run"), "-H", self.host, "--bip", place.bip, "--bridge-name", place.bridge]
        argv += ["--default-address-pool", place.pool, "--cgroup-parent", place.cgroup_parent]
        argv += ["--config-file", str(place.root / "daemon.json"), "--pidfile", str(place.root / "wharfd.pid")]
        argv += ["--cdi-spec-dir", str(self.cdi)]
        if containerd is not None:
            self.kind = "containerd"
            argv += ["--containerd", str(containerd.address)]
        if not any(arg == "--config-file" for arg in args):
            (place.root / "daemon.json").write_text("{}")
        # Of its own: what one engine is given to ask, no other that runs beside it shall ask as well.
        self.plugins = place.root / "plugins"
        environ = {"WHARF_PLUGINS": str(self.plugins)}
        self._daemon = Daemon([*argv, *args], place.root / "wharfd.log", mark=place.footprint.mark, env=environ)

    @property
    def daemon(self) -> Daemon:
        return self._daemon

    # What stays by design when wharfd ends, as containers would go on: the processes below it, bridge and rules.
    STAYS = ("process", "rule")

    def shut_down(self) -> list[str]:
        self.daemon.stop()

        def odd() -> list[str]:
            shims = [f"shim {p.pid}" for p in self.find("wharf-shim")]
            ours = (f"link {self.place.bridge}", f"/{self.place.cgroup}", f"/{self.place.cgroup}.slice")
            left = [line for line in self.place.footprint.left() if not line.endswith(ours)]
            return shims + [line for line in left if not line.startswith(self.STAYS)]

        until(lambda: not odd(), seconds=60)
        return odd()


class Containerd:
    """Debian's containerd, on roots of its own."""

    def __init__(self, place: places.Place) -> None:
        self.place = place
        self.address = place.root / "containerd.sock"
        config = place.root / "containerd.toml"
        config.write_text(
            "version = 2\n"
            f'root = "{place.root}/containerd-root"\nstate = "{place.root}/containerd-state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.address}"\n[debug]\nlevel = "warn"\n'
        )
        self.daemon = Daemon(
            ["containerd", "--config", str(config)], place.root / "containerd.log", mark=place.footprint.mark
        )

    def start(self) -> None:
        self.daemon.start()

        def answers() -> bool:
            argv = ["ctr", "--address", str(self.address), "version"]
            return not self.daemon.running or not subprocess.run(argv, capture_output=True, timeout=60).returncode

        up = until(answers, seconds=START)
        assert up, f"containerd did not answer\n{self.daemon.tail()}"
        assert self.daemon.running, f"containerd ended\n{self.daemon.tail()}"

    def ctr(self, *args: str, namespace: str = "moby", check: bool = True, timeout: float = 60) -> Completed:
        argv = ("ctr", "--address", str(self.address), "--namespace", namespace, *args)
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
        result = Completed(argv, done.returncode, done.stdout.decode(), done.stderr.decode())
        return result.checked() if check else result

    def destroy(self) -> None:
        try:
            self.daemon.stop()
        finally:
            self.place.footprint.remove()
            forget(self.daemon)
            places.clear(self.place.root)


class Dockerd(Engine):
    """Debian's dockerd in a network namespace of its own: its bridge and firewall rules never touch the host's."""

    kind = "dockerd"

    def __init__(self, place: places.Place, args: Sequence[str], *, containerd_store: bool = False) -> None:
        super().__init__(place)
        features = {"cdi": True, "containerd-snapshotter": containerd_store}
        (place.root / "daemon.json").write_text(json.dumps({"features": features}))
        self.netns = place.root / "netns"
        argv = ["nsenter", f"--net={self.netns}", "dockerd", "--config-file", str(place.root / "daemon.json")]
        argv += ["--data-root", str(place.root / "data"), "--exec-root", str(place.root / "run"), "-H", self.host]
        argv += ["--cdi-spec-dir", str(self.cdi)]
        argv += ["--pidfile", str(place.root / "dockerd.pid"), "--bip", place.bip, "--default-address-pool", place.pool]
        argv += ["--cgroup-parent", place.cgroup_parent]
        self._daemon = Daemon([*argv, *args], place.root / "dockerd.log", mark=place.footprint.mark)

    @property
    def daemon(self) -> Daemon:
        return self._daemon

    def start(self) -> None:
        if not self.netns.exists():
            self.netns.touch()
            # util-linux's unshare binds the new namespace to the file; the process itself ends at once
            argv = ["unshare", f"--net={self.netns}", "ip", "link", "set", "lo", "up"]
            subprocess.run(argv, check=True, capture_output=True, timeout=60)
        super().start()

    def inside(self, *argv: str, timeout: float = 60) -> Completed:
        """Runs a program of the host in dockerd's network namespace."""
        return self.run("nsenter", f"--net={self.netns}", *argv, timeout=timeout)


@contextlib.contextmanager
def wharf(name: str, *args: str, containerd: Containerd | None = None) -> Iterator[Wharf]:
    """Our engine with these further flags; fails when its clean stop leaves something behind."""
    with _running(Wharf(places.take(name), args, containerd=containerd)) as engine:
        yield engine


@contextlib.contextmanager
def stock_containerd(name: str) -> Iterator[Containerd]:
    """A stock containerd for `wharf(..., containerd=...)`."""
    containerd = Containerd(places.take(name))
    try:
        containerd.start()
        yield containerd
    finally:
        containerd.destroy()


@contextlib.contextmanager
def dockerd(name: str, *args: str, containerd_store: bool = False) -> Iterator[Dockerd]:
    """The oracle: the dockerd of the OS, with its own image store or with containerd's."""
    with _running(Dockerd(places.take(name), args, containerd_store=containerd_store)) as engine:
        yield engine


@contextlib.contextmanager
def on_backend(kind: str, name: str) -> Iterator[Wharf]:
    """Ours with busybox:latest loaded, on its own supervisor ("wharf") or on a "containerd"."""
    with contextlib.ExitStack() as stack:
        stock = stack.enter_context(stock_containerd(f"{name}-ctd")) if kind == "containerd" else None
        engine = stack.enter_context(wharf(name, containerd=stock))
        engine.load_busybox()
        yield engine


@contextlib.contextmanager
def running(kind: str, name: str) -> Iterator[Engine]:
    """An engine of this kind with busybox:latest loaded: see ``on_backend``, or a "dockerd"."""
    if kind == "dockerd":
        with dockerd(name) as oracle:
            oracle.load_busybox()
            yield oracle
    else:
        with on_backend(kind, name) as engine:
            yield engine


@contextlib.contextmanager
def _running(engine: AnyEngine) -> Iterator[AnyEngine]:
    try:
        engine.start()
        yield engine
    except BaseException:
        engine.destroy()  # what failed inside matters more than what it left
        raise
    left = engine.destroy()
    assert not left, "a stopped engine left behind:\n" + "\n".join(left)


def main(argv: Sequence[str]) -> int:
    if list(argv) != ["sweep"]:
        print("usage: python -m compat_tests.support.engines sweep", file=sys.stderr)
        return 2
    for line in places.sweep():
        print(f"   swept {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
