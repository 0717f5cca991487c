"""Containers for tests of the task service: specs with a busybox root file system, and output in files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from engine.api.client import Engine
from engine.api.types import AnyValue, ContainerRecord, Mount
from engine.common.errors import Kind, WharfError
from engine.shim.tests import harness


@dataclass(slots=True)
class Box:
    """A container record; its task's output is written to ``output``."""

    engine: Engine
    id: str
    output: Path
    rootfs: Path

    async def create(self, *, stdin: str = "", terminal: bool = False, stdout: str | None = None) -> int:
        """Creates the task; the server mounts the root file system. A stock shim requires a stderr if there is a
        stdout."""
        stdout = f"file://{self.output}" if stdout is None else stdout
        return await self.engine.tasks.create(
            self.id,
            rootfs=[Mount("bind", str(self.rootfs), options=("rbind", "ro"))],
            stdin=stdin,
            stdout=stdout,
            stderr="" if terminal else stdout,
            terminal=terminal,
        )

    async def run(self) -> int:
        pid = await self.create()
        await self.engine.tasks.start(self.id)
        return pid

    def process(self, *args: str) -> dict[str, object]:
        """An OCI process for an exec."""
        return {
            "args": list(args),
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        }

    async def end(self) -> None:
        """Removes everything, whatever the task's state."""
        try:
            await self.engine.tasks.kill(self.id, 9, everything=True)
            await self.engine.tasks.wait(self.id)
        except WharfError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.FAILED_PRECONDITION):
                raise
        for work in (self.engine.tasks.delete(self.id), self.engine.containers.delete(self.id)):
            try:
                await work
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise


async def box(
    engine: Engine,
    directory: Path,
    args: Sequence[str],
    *,
    terminal: bool = False,
    memory: int = 0,
    options: AnyValue | None = None,
) -> Box:
    """Creates the record. ``directory`` contains ``rootfs`` (``harness.make_rootfs``)."""
    id = f"t{uuid4().hex[:16]}"
    spec = harness.spec(Path("rootfs"), args, terminal=terminal, cgroup=f"/wharf-test/{id}", memory=memory)
    spec["root"] = {"path": "rootfs", "readonly": True}
    await engine.containers.create(ContainerRecord(id, spec=spec, runtime_options=options))
    return Box(engine, id, directory / f"{id}.out", directory / "rootfs")
