"""Produces the results of steps: runs a process, copies files or fetches a layer.

A result is a committed snapshot, named by its chain id, and the blob of its layer. The lease of the cache record holds
both. A step that fails deletes its lease, so the garbage collector removes whatever the step had written.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.api.rpc import current_lease
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError, internal
from engine.common.layers.chain import chain_id
from engine.common.threads import run_to_completion
from engine.common.timeline import current
from server.builder.cache.records import REGULAR, Record
from server.builder.cache.remote import Remote, download
from server.builder.operations.base_snapshots import BaseSnapshots
from server.builder.operations.copier import Copier
from server.builder.operations.difference import clean_up, difference, discard
from server.builder.operations.interfaces import Contexts, Job, Runner
from server.builder.operations.run_mounts import Mounts
from server.builder.plan.steps import Copy, Layer, Result, Run, Step, Workdir
from server.builder.solver.builder import Builder
from server.builder.solver.errors import StepFailed, StepRefused
from server.builder.solver.output import StepOutput
from server.builder.solver.session import CacheSession
from server.registry.unpack import lease_snapshot

# The label of the leases of cache records, with the owner of the builds ("1": the administrators). A lease's id is its
# record's.
CACHE_LEASE = "wharf.build.cache"

Work = Callable[[str], Awaitable[Layer | None]]
"""Makes the layer of a step under an id; ``None`` if the step changes nothing."""


@dataclass(slots=True)
class StepExecutor:
    """The executor of one build. ``execute`` runs one of the other methods as its ``work``."""

    builder: Builder
    contexts: Contexts
    runner: Runner
    base_snapshots: BaseSnapshots
    cache_session: CacheSession
    epoch_ns: int | None

    async def execute(self, step: Step, key: str, parent: Result, work: Work) -> Result:
        """Run ``work`` and return the result, recorded under the content-based key ``key``."""
        engine = self.builder.engine
        await self.base_snapshots.unpack(step.parent)
        name = f"{secrets.token_hex(12)}-build-cache"  # clients show the first twelve characters
        self.cache_session.hold(name)
        token = current_lease.set(name)
        try:
            # A cancelled create could still reach the engine after the delete below.
            await run_to_completion(engine.leases.create(name, labels={CACHE_LEASE: self.builder.caller.owner or "1"}))
            layer = await work(name)
        except BaseException:
            current_lease.reset(token)
            # A partial upload of the layer uses the same name.
            await asyncio.shield(clean_up(engine.content.abort(name)))
            await asyncio.shield(clean_up(engine.leases.delete(name)))
            raise
        current_lease.reset(token)
        chain, layers = parent.chain_id, parent.layers
        if layer is None:
            await engine.leases.delete(name)
        else:
            chain, layers = chain_id(chain, layer.diff_id), (*layers, layer)
        record = Record(name, key, chain, layer, "", REGULAR, time.time_ns(), time.time_ns(), 1, 0, step.description)
        self.cache_session.record(record, parent)
        return Result(key, chain, layers)

    async def fetch(self, remote: Remote, layer: Layer | None, id: str, parent: Result) -> Layer | None:
        """Fetch a layer from an imported cache."""
        if layer is not None:
            await download(self.builder.engine, id, remote, layer, owned=bool(self.builder.caller.owner))
            if not await lease_snapshot(self.builder.engine, chain_id(parent.chain_id, layer.diff_id)):
                await self._apply(layer.descriptor, layer.diff_id, id, parent)
        return layer

    async def workdir(self, id: str, operation: Workdir, parent: Result) -> Layer | None:
        """Create a working directory as a layer; ``None`` if the parent already has it."""
        copier = Copier(self.builder, self.contexts, Copy((), operation.path, chown=operation.user), self.epoch_ns)
        try:
            if await copier.has_directory(operation.path, parent):
                return None
            return await self.copy(copier, id, parent)
        finally:
            await copier.close()

    async def copy(self, copier: Copier, id: str, parent: Result) -> Layer:
        """Write the copier's files as a layer: a blob and a snapshot."""
        descriptor, diff_id = await copier.write(id, parent)
        await self._apply(descriptor, diff_id, id, parent)
        return Layer(descriptor, diff_id, self._now())

    async def _apply(self, descriptor: Descriptor, diff_id: str, id: str, parent: Result) -> None:
        """Apply a layer to a new snapshot of its parent, and commit it."""
        engine = self.builder.engine
        mounts = await engine.snapshots.prepare(id, parent.chain_id)
        try:
            applied = await engine.diff.apply(descriptor, mounts)
            if applied.digest != diff_id:
                raise internal(f"the layer {descriptor.digest} has the diff ID {applied.digest} instead of {diff_id}")
            await self._commit(id, parent, diff_id)
        except BaseException:
            await asyncio.shield(clean_up(engine.snapshots.remove(id)))
            raise

    async def _commit(self, id: str, parent: Result, diff_id: str) -> None:
        engine, chain = self.builder.engine, chain_id(parent.chain_id, diff_id)
        while True:
            try:
                await engine.snapshots.commit(chain, id)
            except WharfError as error:
                if error.kind is not Kind.ALREADY_EXISTS:
                    raise
                # Another step committed the same layer. Lease that snapshot, unless the collector removed it meanwhile.
                if not await lease_snapshot(engine, chain):
                    continue
                await engine.snapshots.remove(id)
            return

    def _now(self) -> int:
        return time.time_ns() if self.epoch_ns is None else self.epoch_ns

    async def run(
        self, id: str, step: Step, operation: Run, parent: Result, found: dict[int, Result], output: StepOutput
    ) -> Layer:
        """Run a step's process and return the layer of its changes."""
        engine, part = self.builder.engine, current()
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
                part.mark("run")
                try:
                    if ended.code:
                        raise StepFailed(step, command, ended.code)
                    descriptor, diff_id = await difference(engine, id, parent.chain_id, rootfs)
                finally:
                    part.mark("difference")
                    await asyncio.shield(ended.removal)
            part.mark("end of the task")
            await self._commit(id, parent, diff_id)
            part.mark("commit")
        except BaseException:
            await asyncio.shield(discard(engine, id, rootfs))
            raise
        return Layer(descriptor, diff_id, self._now())
