"""A supervisor with one container whose runtime blocks in the step that a test names, so that the moment of a kill is
deterministic."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from uuid import uuid4

from engine.api.client import Engine
from engine.api.pb import runc_options_pb2
from engine.api.types import AnyValue
from engine.common.system import mounts
from engine.runtime.probe import probe
from engine.shim.tests import harness
from engine.supervisor.tests import processes
from engine.supervisor.tests.containers import Box, box

_GATE = """#!/bin/sh
for word in "$@"; do
  case $word in create|start|exec|delete) verb=$word; break;; esac
done
if [ "$verb" = "$(cat {place}/verb)" ]; then
  : >{place}/reached
  read -r _ <{place}/gate
fi
exec {runtime} "$@"
"""

Body = Callable[[Engine, Box], Coroutine[None, None, None]]


class Gate:
    """A runtime that blocks in one of its steps, until the gate is opened."""

    def __init__(self, place: Path) -> None:
        self._place = place
        runtime = probe().require()
        self.program = place / f"{runtime.dialect}-gate"
        self.program.write_text(_GATE.format(place=place, runtime=runtime.path))
        self.program.chmod(0o755)
        (place / "verb").write_text("")
        os.mkfifo(place / "gate")
        self._fd = os.open(place / "gate", os.O_RDWR | os.O_NONBLOCK)

    def shut(self, verb: str) -> None:
        (self._place / "reached").unlink(missing_ok=True)
        (self._place / "verb").write_text(verb)

    async def reached(self) -> None:
        while not (self._place / "reached").exists():  # noqa: ASYNC110 - another program changes it
            await asyncio.sleep(0.01)

    def open(self) -> None:
        (self._place / "verb").write_text("")
        os.write(self._fd, b"\n")

    def close(self) -> None:
        os.close(self._fd)


class Stage:
    """A supervisor with one container, whose runtime blocks at the gate. Both can be killed."""

    def __init__(self, server: processes.Server, directory: Path) -> None:
        self.server = server
        self.gate = Gate(directory)
        self.directory = directory
        self.namespace = f"t{uuid4().hex[:12]}"

    @property
    def bundles(self) -> Path:
        return self.server.place / "state/tasks" / self.namespace

    def run(self, body: Body, *args: str) -> None:
        async def main() -> None:
            engine = Engine(self.server.address, namespace=self.namespace)
            try:
                async with asyncio.timeout(harness.PATIENCE):
                    options = runc_options_pb2.Options(binary_name=str(self.gate.program))
                    one = await box(engine, self.directory, args, options=AnyValue.pack(options))
                    try:
                        await body(engine, one)
                    finally:
                        self.gate.open()
                        await one.end()
                    self.check_nothing_is_left(one)
            finally:
                await engine.close()

        asyncio.run(main())

    def shim(self) -> int:
        """The pid of the only shim."""
        (bundle,) = self.bundles.iterdir()
        (pid,) = [pid for pid in working_in(bundle) if comm(pid) == "wharf-shim"]
        return pid

    def zygote(self) -> int:
        pid = self.server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (zygote,) = [int(child) for child in children if comm(int(child)) == "wharf-zygote"]
        return zygote

    def kill_shim(self) -> None:
        os.kill(self.shim(), signal.SIGKILL)

    def kill_supervisor(self) -> None:
        self.server.kill()

    async def restart(self, engine: Engine) -> None:
        await asyncio.to_thread(self.server.restart)
        await engine.connect(deadline=harness.PATIENCE)

    def check_nothing_is_left(self, one: Box) -> None:
        state = self.server.place / "state"
        assert list(self.bundles.glob("*")) == []
        assert list((state / "runtime").glob(f"*/{self.namespace}/[!.]*")) == []
        assert mounts.mounts_under(str(state)) == []
        assert list(Path("/sys/fs/cgroup").glob(f"*/wharf-test/{one.id}")) == []
        # A shim exits after its last answer.
        harness.until(lambda: not working_in(self.bundles / one.id), "the shim has left")


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def working_in(directory: Path) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                place = os.readlink(f"/proc/{name}/cwd")
            except OSError:
                continue
            if place.removesuffix(" (deleted)") == str(directory) and not harness.gone(int(name)):
                found.append(int(name))
    return found
