"""Servers of containerd's API for tests: ours, and a stock containerd, each with its own folders."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from engine.api.client import Engine
from engine.common.system import mounts
from engine.shim.tests import harness

_CONFIG = """
version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
address = "{place}/api.sock"
[ttrpc]
address = "{place}/ttrpc.sock"
"""

_PROXY = """
[proxy_plugins.{name}]
type = "snapshot"
address = "{socket}"
"""

#: Marks of tests that need the servers.
ROOT = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
STOCK = [pytest.mark.stock, pytest.mark.skipif(shutil.which("containerd") is None, reason="needs a stock containerd")]

#: Seconds for a server to answer; reached only if it hangs.
_PATIENCE = 60


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(slots=True)
class Server:
    """A running server; ``restart`` keeps its folders."""

    kind: str
    place: Path
    process: "subprocess.Popen[bytes]"
    proxies: Mapping[str, str]

    @property
    def address(self) -> str:
        return str(self.place / "api.sock")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = _start(self.kind, self.place, self.proxies)


def _start(kind: str, place: Path, proxies: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    if kind == "wharf":
        root, state, address = place / "root", place / "state", place / "api.sock"
        argv = [sys.executable, "-m", "engine.supervisor", "--log-level", "debug"]
        argv += ["--root", str(root), "--state", str(state), "--address", str(address)]
        argv += [f"--proxy-snapshotter={name}={socket}" for name, socket in proxies.items()]
    else:
        plugins = "".join(_PROXY.format(name=name, socket=socket) for name, socket in proxies.items())
        (place / "config.toml").write_text(_CONFIG.format(place=place) + plugins)
        argv = ["containerd", "--config", str(place / "config.toml"), "--log-level", "info"]
    with open(place / "log", "ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def answers() -> None:
        engine = Engine(str(place / "api.sock"))
        try:
            await engine.connect(deadline=_PATIENCE)
        finally:
            await engine.close()

    try:
        asyncio.run(answers())
    except BaseException:
        process.kill()
        process.wait()
        print((place / "log").read_text(errors="replace")[-4000:], file=sys.stderr)  # noqa: T201
        raise
    return process


@contextlib.contextmanager
def server(kind: str, *, proxies: Mapping[str, str] = MappingProxyType({})) -> Iterator[Server]:
    """``wharf`` or ``containerd``, serving; stopped and removed at the end. ``proxies``: the sockets of proxied
    snapshotters, by name."""
    place = Path(tempfile.mkdtemp(prefix=f"wharf-test-{kind}-"))
    try:
        running = Server(kind, place, _start(kind, place, proxies), proxies)
        try:
            yield running
        finally:
            running.process.terminate()
            try:
                running.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                running.kill()
    finally:
        mounts.unmount_under(str(place))
        harness.remove_cgroups()
        shutil.rmtree(place, ignore_errors=True)
