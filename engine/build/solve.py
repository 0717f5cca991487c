"""Runs a plan's steps: what they need first, in parallel where they don't depend on one another, each key once.

A step's result is a committed snapshot under its chain id plus the blob of its layer, both held by the lease of its
cache record. A step that fails leaves neither: its lease goes, and the collector takes what it held.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from engine.api.client import Engine
from engine.api.rpc import current_lease
from engine.api.types import Descriptor
from engine.build.cache import REGULAR, Cache, Record
from engine.build.copying import Copier
from engine.build.difference import difference, discard, quietly
from engine.build.failed import StepFailed, StepRefused
from engine.build.ground import Ground
from engine.build.remote import Remote, download, held
from engine.build.running import Mounts, run_key
from engine.build.shared import Shared
from engine.build.steps import (
    SCRATCH,
    Base,
    Copy,
    Layer,
    Operation,
    Result,
    Run,
    Step,
    Workdir,
    chain_id,
    digest_of,
)
from engine.build.work import Contexts, Job, Progress, Runner
from engine.errors import Kind, WharfError, internal
from engine.system.threads import to_its_end
from engine.system.timeline import Timeline

log = logging.getLogger("wharf.build")

CACHE_LEASE = "wharf.build.cache"  # the label of leases that hold what cache records speak of, by the records' ids

__all__ = ["Builder", "Solver", "StepFailed", "StepRefused"]


class Builder:
    """What all builds share: the engine, the cache, and the work that is going on now."""

    def __init__(self, engine: Engine, cache: Cache, *, scratch: str, cache_mounts: str) -> None:
        self.engine, self.cache = engine, cache
        self.scratch = scratch
        """A directory for layers on their way into the content store."""
        self.cache_mounts = cache_mounts
        """Where the directories of ``--mount=type=cache`` are."""
        self.flights: Shared[Result] = Shared()
        self.locks: dict[str, asyncio.Lock] = {}
        """Of cache mounts that are ``locked``."""


@dataclass(slots=True)
class Solver:
    """One build. Use inside ``engine.leases.hold()``, so that nothing it uses is collected meanwhile."""

    builder: Builder
    contexts: Contexts
    runner: Runner
    progress: Progress
    epoch_ns: int | None = None
    """``SOURCE_DATE_EPOCH``: the time of every layer, and no file's time is later."""
    imports: Sequence[Remote] = ()
    """Caches from elsewhere, asked when the engine's own has nothing."""
    ground: Ground = field(default_factory=Ground)
    _tasks: dict[int, "asyncio.Task[Result]"] = field(default_factory=dict)
    _held: list[str] = field(default_factory=list)
    _used: set[str] = field(default_factory=set)
    _records: list["asyncio.Task[None]"] = field(default_factory=list)
    _forgotten: list[str] = field(default_factory=list)

    async def solve(self, step: Step | None) -> Result:
        """The result of a step; every step is solved once. Raises :class:`StepFailed` and what a step raises."""
        if step is None:
            return SCRATCH
        task = self._tasks.get(id(step))
        if task is None:
            task = asyncio.create_task(self._solve(step))
            self._tasks[id(step)] = task
        return await asyncio.shield(task)

    async def confirmed(self, step: Step | None) -> bool:
        """Whether what the cache said of a build's target is so. If not, it is to be solved once more.

        Snapshots stand on one another, so the last one speaks for all below.
        """
        if step is not None and isinstance(step.operation, Base):
            await self.ground.under(step)
        result = await self.solve(step)
        if not (result.cached and result.layers):
            return True
        try:
            await asyncio.gather(
                self.builder.engine.snapshots.stat(result.chain_id),
                self.builder.engine.content.info(result.layers[-1].descriptor.digest),
            )
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            # Somebody else removed it from the engine: nothing is believed without a look any more.
            self.builder.cache.trusted.clear()
            self._tasks.clear()
            return False
        return True

    async def close(self) -> None:
        """Cancels what still runs and lets go of the cache's records."""
        running = [task for task in self._tasks.values() if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        await self.ground.close()
        for task in self._tasks.values():
            if not task.cancelled():
                task.exception()  # told by the step that failed first
        await asyncio.gather(*self._records)
        for record in self._forgotten:
            await quietly(self.builder.engine.leases.delete(record))
        for record in self._held:
            self.builder.cache.release(record)
        await self.builder.cache.used(self._used, now_ns=time.time_ns())

    async def _solve(self, step: Step) -> Result:
        operation = step.operation
        if isinstance(operation, Base):
            self.progress.started(step)
            self.progress.done(step)
            return Result(operation.digest, operation.chain_id, operation.layers)
        inputs = step.inputs
        results = await asyncio.gather(*(self.solve(item) for item in inputs))
        found = dict(zip(map(id, inputs), results, strict=True))
        parent = SCRATCH if step.parent is None else found[id(step.parent)]
        self.progress.started(step)
        try:
            result = await self._result(step, operation, parent, found)
        except asyncio.CancelledError:
            self.progress.done(step, "canceled")
            raise
        except WharfError as error:
            self.progress.done(step, error.message)
            raise
        if result.cached:
            self.progress.cached(step)
        self.progress.done(step)
        return result

    async def _result(self, step: Step, operation: Operation, parent: Result, found: dict[int, Result]) -> Result:
        if isinstance(operation, Run):
            await self.ground.under(*step.inputs[1 if step.parent is not None else 0 :])
            key = await run_key(self.builder, self.contexts, operation, parent, found)
            work: Callable[[str], Awaitable[Layer | None]] = lambda id: self._run(id, step, operation, parent, found)  # noqa: E731
        elif isinstance(operation, Copy):
            if operation.origin is not None:
                await self.ground.under(operation.origin.step)
            copier = Copier(self.builder, self.contexts, operation, parent, found, self.epoch_ns)
            try:
                await copier.open()
                key = copier.key()
                result = await self._cached_or(
                    step, key, parent, lambda id: self._copied(copier, id, parent), copier.files
                )
                return replace(result, files=copier.files)
            finally:
                self._records.append(asyncio.create_task(copier.close()))
        else:
            assert isinstance(operation, Workdir)
            key = digest_of(
                "workdir",
                {"path": operation.path, "parent": parent.key, "user": operation.user, "epoch": self.epoch_ns},
            )
            work = lambda id: self._workdir(id, operation, parent)  # noqa: E731
        return await self._cached_or(step, key, parent, work)

    async def _workdir(self, id: str, operation: Workdir, parent: Result) -> Layer | None:
        """The directory as a layer, or none if the parent has it."""
        copier = Copier(
            self.builder, self.contexts, Copy((), operation.path, chown=operation.user), parent, {}, self.epoch_ns
        )
        try:
            if await copier.has_directory(operation.path):
                return None
            return await self._copied(copier, id, parent)
        finally:
            await copier.close()

    async def _cached_or(
        self,
        step: Step,
        key: str,
        parent: Result,
        work: Callable[[str], Awaitable[Layer | None]],
        files: str = "",
    ) -> Result:
        """A result from the cache, from another build that is just making it, or made now."""

        async def make() -> Result:
            if not step.no_cache:
                hit = await self._hit(key, parent) or await self._imported(step, key, parent, files)
                if hit is not None:
                    return hit
            return await self._make(step, key, parent, work)

        # Without cache the step is run for itself, even beside an equal one.
        name = f"{key} {id(step)}" if step.no_cache else f"{key} {parent.chain_id}"
        result, _ = await self.builder.flights.run(name, make)
        return result

    async def _hit(self, key: str, parent: Result) -> Result | None:
        for record in await self.builder.cache.find(key):
            layer = record.layer
            if layer is None:
                if record.chain_id == parent.chain_id:
                    self._hold(record.id)
                    self._used.add(record.id)
                    return replace(parent, key=key, cached=True)
                continue
            if record.chain_id != chain_id(parent.chain_id, layer.diff_id):
                continue
            self._hold(record.id)
            if record.id not in self.builder.cache.trusted and not await self._is_there(record):
                continue
            self._used.add(record.id)
            return Result(key, record.chain_id, (*parent.layers, layer), cached=True)
        return None

    async def _imported(self, step: Step, key: str, parent: Result, files: str) -> Result | None:
        """A result from a cache that came from elsewhere; one that can't be had after all is made instead."""
        for remote in self.imports:
            known = remote.find(key, step, parent, files)
            if known is None:
                continue
            try:
                result = await self._make(step, key, parent, lambda id: self._fetched(remote, known.layer, id, parent))  # noqa: B023
            except (WharfError, OSError) as error:
                log.warning("step %s from an imported cache: %s", step.name, error)
                continue
            return replace(result, cached=True)
        return None

    async def _fetched(self, remote: Remote, layer: Layer | None, id: str, parent: Result) -> Layer | None:
        if layer is not None:
            await download(self.builder.engine, id, remote, layer)
            if not await held(self.builder.engine, chain_id(parent.chain_id, layer.diff_id)):
                await self._applied(layer.descriptor, layer.diff_id, id, parent)
        return layer

    async def _is_there(self, record: Record) -> bool:
        """Whether the engine has what a record speaks of; a record that speaks of nothing is dropped."""
        layer = record.layer
        assert layer is not None
        try:
            await self.builder.engine.snapshots.stat(record.chain_id)
            await self.builder.engine.content.info(layer.descriptor.digest)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            await self.builder.cache.remove([record.id])
            return False
        self.builder.cache.trusted.add(record.id)
        return True

    def _hold(self, record: str) -> None:
        self.builder.cache.hold(record)
        self._held.append(record)

    async def _make(
        self, step: Step, key: str, parent: Result, work: Callable[[str], Awaitable[Layer | None]]
    ) -> Result:
        engine = self.builder.engine
        await self.ground.under(*step.inputs)
        name = f"{secrets.token_hex(12)}-build-cache"  # clients show the first twelve characters
        self._hold(name)
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
        # The next step does not wait for the record; the build does.
        before = self._records[-1] if self._records else None
        self._records.append(asyncio.create_task(self._record(record, parent, before)))
        return Result(key, chain, layers)

    async def _record(self, record: Record, parent: Result, before: "asyncio.Task[None] | None") -> None:
        """Adds a record with its size and what it is built on: ``before`` may be about that."""
        if before is not None:
            await asyncio.wait([before])
        size = 0
        if record.layer is not None:
            size = record.layer.descriptor.size + (await self.builder.engine.snapshots.usage(record.chain_id)).size
        below = await self.builder.cache.find(parent.key) if parent.key else []
        parents = tuple(item.id for item in below[:1])
        try:
            await self.builder.cache.add(replace(record, size=size, parents=parents))
        except WharfError as error:
            # The step is done all the same, and made anew the next time. Until its build is over its lease stays.
            log.warning("step %s is not cached: %s", record.description, error.message)
            self._forgotten.append(record.id)
            return
        self.builder.cache.trusted.add(record.id)

    async def _copied(self, copier: Copier, id: str, parent: Result) -> Layer:
        """The layer that a copier writes, as blob and snapshot."""
        descriptor, diff_id = await copier.write(id)
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
        chain = chain_id(parent.chain_id, diff_id)
        try:
            await self.builder.engine.snapshots.commit(chain, id)
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
            # Somebody came to the same layer: theirs is as good, and our lease holds it too.
            await self.builder.engine.snapshots.remove(id)
            lease = current_lease.get()
            if lease:
                snapshotter = self.builder.engine.snapshots.snapshotter
                await self.builder.engine.leases.add_resource(lease, chain, f"snapshots/{snapshotter}")

    def _now(self) -> int:
        return time.time_ns() if self.epoch_ns is None else self.epoch_ns

    async def _run(self, id: str, step: Step, operation: Run, parent: Result, found: dict[int, Result]) -> Layer:
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
                    ended = await self.runner.run(job, lambda stream, data: self.progress.output(step, stream, data))
                except WharfError as error:
                    raise StepRefused(command, error) from error
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
