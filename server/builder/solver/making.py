"""Makes the results of steps: a process is run, files are copied, a layer is fetched.

A step's result is a committed snapshot under its chain id plus the blob of its layer, both held by the lease of its
cache record. A step that fails leaves neither: its lease goes, and the collector takes what it held.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.api.rpc import current_lease
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError, internal
from engine.common.threads import to_its_end
from engine.common.timeline import Timeline
from server.builder.cache.records import REGULAR, Record
from server.builder.cache.remote import Remote, download
from server.builder.operations.base_snapshots import Ground
from server.builder.operations.copying import Copier
from server.builder.operations.difference import difference, discard, quietly
from server.builder.operations.running import Mounts
from server.builder.operations.work import Contexts, Job, Runner
from server.builder.plan.steps import Copy, Layer, Result, Run, Step, Workdir, chain_id
from server.builder.solver.builder import Builder
from server.builder.solver.failed import StepFailed, StepRefused
from server.builder.solver.output import StepOutput
from server.builder.solver.session import Holding
from server.registry.unpack import held

CACHE_LEASE = "wharf.build.cache"  # the label of leases that hold what cache records speak of, by the records' ids

Work = Callable[[str], Awaitable[Layer | None]]
"""Makes the layer of a step under a name, ``None`` if it changes nothing."""


@dataclass(slots=True)
class Maker:
    """One build's. What ``make`` runs is one of the other methods."""

    builder: Builder
    contexts: Contexts
    runner: Runner
    ground: Ground
    holding: Holding
    epoch_ns: int | None

    async def make(self, step: Step, key: str, parent: Result, work: Work) -> Result:
        """The step's result, under its key by content."""
        engine = self.builder.engine
        await self.ground.under(step.parent)
        name = f"{secrets.token_hex(12)}-build-cache"  # clients show the first twelve characters
        self.holding.hold(name)
        token = current_lease.set(name)
        try:
            # One that is given up halfway might be made afterwards.
            await to_its_end(engine.leases.create(name, labels={CACHE_LEASE: "1"}))
            layer = await work(name)
        except BaseException:
            current_lease.reset(token)
            # What was written of a layer is under the same name.
            await asyncio.shield(quietly(engine.content.abort(name)))
            await asyncio.shield(quietly(engine.leases.delete(name)))
            raise
        current_lease.reset(token)
        chain, layers = parent.chain_id, parent.layers
        if layer is None:
            await engine.leases.delete(name)
        else:
            chain, layers = chain_id(chain, layer.diff_id), (*layers, layer)
        record = Record(name, key, chain, layer, "", REGULAR, time.time_ns(), time.time_ns(), 1, 0, step.description)
        self.holding.record(record, parent)
        return Result(key, chain, layers)

    async def fetched(self, remote: Remote, layer: Layer | None, id: str, parent: Result) -> Layer | None:
        """The layer from another cache."""
        if layer is not None:
            await download(self.builder.engine, id, remote, layer)
            if not await held(self.builder.engine, chain_id(parent.chain_id, layer.diff_id)):
                await self._applied(layer.descriptor, layer.diff_id, id, parent)
        return layer

    async def workdir(self, id: str, operation: Workdir, parent: Result) -> Layer | None:
        """The directory as a layer, or none if the parent has it."""
        copier = Copier(self.builder, self.contexts, Copy((), operation.path, chown=operation.user), self.epoch_ns)
        try:
            if await copier.has_directory(operation.path, parent):
                return None
            return await self.copied(copier, id, parent)
        finally:
            await copier.close()

    async def copied(self, copier: Copier, id: str, parent: Result) -> Layer:
        """The layer that a copier writes, as blob and snapshot."""
        descriptor, diff_id = await copier.write(id, parent)
        await self._applied(descriptor, diff_id, id, parent)
        return Layer(descriptor, diff_id, self._now())

    async def _applied(self, descriptor: Descriptor, diff_id: str, id: str, parent: Result) -> None:
        """The snapshot of a layer on its parent."""
        engine = self.builder.engine
        mounts = await engine.snapshots.prepare(id, parent.chain_id)
        try:
            applied = await engine.diff.apply(descriptor, mounts)
            if applied.digest != diff_id:
                raise internal(f"the layer {descriptor.digest} is {applied.digest}, not {diff_id}")
            await self._commit(id, parent, diff_id)
        except BaseException:
            await asyncio.shield(quietly(engine.snapshots.remove(id)))
            raise

    async def _commit(self, id: str, parent: Result, diff_id: str) -> None:
        engine, chain = self.builder.engine, chain_id(parent.chain_id, diff_id)
        while True:
            try:
                await engine.snapshots.commit(chain, id)
            except WharfError as error:
                if error.kind is not Kind.ALREADY_EXISTS:
                    raise
                # Somebody came to the same layer: theirs is as good, if the collector has not taken it meanwhile.
                if not await held(engine, chain):
                    continue
                await engine.snapshots.remove(id)
            return

    def _now(self) -> int:
        return time.time_ns() if self.epoch_ns is None else self.epoch_ns

    async def run(
        self, id: str, step: Step, operation: Run, parent: Result, found: dict[int, Result], output: StepOutput
    ) -> Layer:
        """What a process changes."""
        engine, timeline = self.builder.engine, Timeline(f"step {step.name}")
        rootfs = await engine.snapshots.prepare(id, parent.chain_id)
        try:
            async with Mounts(self.builder, self.contexts, operation, parent, found, id) as mounts:
                job = Job(
                    id=id,
                    rootfs=rootfs,
                    args=operation.args,
                    env=(*operation.env, *operation.hidden_env, *mounts.env),
                    cwd=operation.cwd,
                    user=operation.user,
                    network=operation.network,
                    privileged=operation.security == "insecure",
                    binds=tuple(mounts.binds),
                    files=tuple(mounts.files),
                    tmpfs=tuple(mounts.tmpfs),
                )
                command = " ".join(operation.args)
                try:
                    ended = await self.runner.run(job, output.write)
                except WharfError as error:
                    raise StepRefused(command, error) from error
                finally:
                    output.end()
                timeline.mark("run")
                try:
                    if ended.code:
                        raise StepFailed(step, command, ended.code)
                    descriptor, diff_id = await difference(engine, id, parent.chain_id, rootfs)
                finally:
                    timeline.mark("difference")
                    await asyncio.shield(ended.gone)
            timeline.mark("end of the task")
            await self._commit(id, parent, diff_id)
            timeline.mark("commit")
            timeline.done()
        except BaseException:
            await asyncio.shield(discard(engine, id, rootfs))
            raise
        return Layer(descriptor, diff_id, self._now())
