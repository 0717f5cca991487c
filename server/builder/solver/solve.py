"""Solves the steps of a plan, in parallel where they do not depend on one another, and each cache key once.

A step that a cache knows by its definition-based key is not run, and its source stages are not solved. All other steps
wait for their inputs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from engine.common.errors import Kind, WharfError
from engine.common.timeline import current
from server.builder.cache.remote import Remote
from server.builder.operations.base_snapshots import BaseSnapshots
from server.builder.operations.interfaces import Contexts, Progress, Runner
from server.builder.operations.lifetime import Lifetime
from server.builder.plan.steps import SCRATCH, Base, Copy, Operation, Result, Run, Step, Workdir
from server.builder.solver.builder import Builder
from server.builder.solver.errors import StepFailed
from server.builder.solver.executor import StepExecutor, Work
from server.builder.solver.keys import Definitions, ancestry, copy_key, workdir_key
from server.builder.solver.llbkeys import LlbKeys
from server.builder.solver.lookup import CacheLookup
from server.builder.solver.output import StepOutput
from server.builder.solver.session import CacheSession


@dataclass(slots=True)
class Solver:
    """Solves one build. Use it inside ``engine.leases.hold()``, so that the collector keeps what the build uses."""

    builder: Builder
    contexts: Contexts
    runner: Runner
    progress: Progress
    epoch_ns: int | None = None
    """``SOURCE_DATE_EPOCH``: the time of every layer, and the latest time of any file."""
    imports: Sequence[Remote] = ()
    """Imported caches, asked when the engine's own cache has no record."""
    base_snapshots: BaseSnapshots = field(default_factory=BaseSnapshots)
    skip_sources: bool = True
    """Take results by their definition-based keys without solving the stages that they copy from."""
    _tasks: dict[int, "asyncio.Task[Result]"] = field(default_factory=dict)
    _lifetime: Lifetime = field(init=False)
    """Of what running steps share with this build, apart from the files of the contexts."""
    _cache_session: CacheSession = field(init=False)
    _definitions: Definitions = field(init=False)
    _llb: LlbKeys = field(init=False)
    _executor: StepExecutor = field(init=False)
    _lookup: CacheLookup = field(init=False)

    def __post_init__(self) -> None:
        builder = self.builder
        self._lifetime = Lifetime()
        self._lifetime.at_end(self._release)
        self._cache_session = CacheSession(builder.engine, builder.cache)
        self._definitions = Definitions(builder, self.contexts, self.epoch_ns)
        self._executor = StepExecutor(
            builder, self.contexts, self.runner, self.base_snapshots, self._cache_session, self.epoch_ns
        )
        self._llb = LlbKeys(self.contexts, plain=self.runner.plain and self.epoch_ns is None)
        self._lookup = CacheLookup(
            builder, self._definitions, self._llb, self._executor, self._cache_session, self.imports, self._in_use
        )

    async def solve(self, step: Step | None) -> Result:
        """Return the result of a step; each step is solved once. Raises :class:`StepFailed` and what the step
        raises."""
        if step is None:
            return SCRATCH
        task = self._tasks.get(id(step))
        if task is None:
            task = asyncio.create_task(self._solve(step))
            self._tasks[id(step)] = task
        return await asyncio.shield(task)

    async def verify(self, step: Step | None) -> bool:
        """Whether the cached result of a build's target still exists in the engine. If not, solve it again.

        Each snapshot keeps its parents, so checking the last one is enough.
        """
        if step is not None and isinstance(step.operation, Base):
            await self.base_snapshots.unpack(step)
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
            # Another client removed it from the engine: check every record again before using it.
            self.builder.cache.verified.clear()
            self._lookup.forget()
            self._tasks.clear()
            return False
        return True

    async def known_results(self, step: Step | None, *, llb: bool = False) -> list[Result]:
        """Return the results of a step and its ancestors, base first, as far as they are solved or in the engine's own
        cache; with BuildKit's keys if ``llb``."""
        found: list[Result] = []
        for item in ancestry(step):
            task = self._tasks.get(id(item))
            if task is not None:
                found.append(await asyncio.shield(task))
                continue
            parent = found[-1] if found else SCRATCH
            try:
                result = await self._cached_result(item, parent)
            except WharfError:
                break
            if result is None:
                break
            found.append(result)
        if llb:
            pairs = zip(found, ancestry(step), strict=False)
            return [replace(result, llb=await self._llb.get(item)) for result, item in pairs]
        return found

    async def _cached_result(self, step: Step, parent: Result) -> Result | None:
        if isinstance(step.operation, Base):
            return _base_result(step.operation)
        if (await self._definitions.get(step)).no_cache:
            return None
        return await self._lookup.by_definition(step, parent, imports=False)

    def show_skipped(self, *steps: Step | None) -> None:
        """Report the stages that were not solved, because a cached step copies from them, as cached."""
        seen: set[int] = set()
        stack = [(step, False) for step in steps if step is not None]
        while stack:
            step, below = stack.pop()
            if below:
                if id(step) not in self._tasks:
                    self.progress.started(step)
                    if not isinstance(step.operation, Base):
                        self.progress.cached(step)
                    self.progress.done(step)
            elif id(step) not in seen:
                seen.add(id(step))
                stack.append((step, True))
                stack += [(item, False) for item in step.inputs]

    async def close(self) -> None:
        """Cancel running steps and release the cache records; records that joined builds still use are released when
        those steps end."""
        running = [task for task in self._tasks.values() if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in self._tasks.values():
            if not task.cancelled():
                task.exception()  # reported by the step that failed first
        await self._lifetime.release()

    async def _release(self) -> None:
        await self.base_snapshots.close()
        await self._definitions.close()
        await self._cache_session.close()

    async def _solve(self, step: Step) -> Result:
        operation = step.operation
        self._definitions.prepare(step)
        if isinstance(operation, Base):
            self.progress.started(step)
            self.progress.done(step)
            return _base_result(operation)
        result = await self._by_definition(step)
        if result is not None:
            self.progress.started(step)
        else:
            inputs = step.inputs
            results = await asyncio.gather(*(self.solve(item) for item in inputs))
            found = dict(zip(map(id, inputs), results, strict=True))
            parent = SCRATCH if step.parent is None else found[id(step.parent)]
            if not isinstance(operation, Run):
                self.progress.started(step)
            try:
                with current().phase(step.name):
                    result = await self._result(step, operation, parent, found)
            except asyncio.CancelledError:
                self.progress.done(step, "canceled")
                raise
            except WharfError as error:
                self.progress.done(step, error.message)
                raise
        # Only a successful step closes its copier here; close() closes the others.
        self._cache_session.defer(self._definitions.close_copier(step))
        if result.cached:
            self.progress.cached(step)
        self.progress.done(step)
        return result

    @asynccontextmanager
    async def _in_use(self) -> AsyncIterator[None]:
        """Keep this build's resources open during the block, for work that other builds may join."""
        async with self.contexts.lifetime.use(), self._lifetime.use():
            yield

    async def _by_definition(self, step: Step) -> Result | None:
        """Return the cached result of a step by its definition-based key, without solving its source stages."""
        if not self.skip_sources or not await self._lookup.is_known(step):
            return None
        return await self._lookup.by_definition(step, await self.solve(step.parent))

    async def _result(self, step: Step, operation: Operation, parent: Result, found: dict[int, Result]) -> Result:
        """Return a step's result by its content-based key."""
        files, executor = "", self._executor
        work: Callable[[StepOutput], Work]
        definition = await self._definitions.get(step)
        # Without files of another stage, the definition-based and the content-based key are equal.
        plain = parent.key == parent.definition and len(step.inputs) == (0 if step.parent is None else 1)
        if isinstance(operation, Run):
            await self.base_snapshots.unpack(*step.inputs[1 if step.parent is not None else 0 :])
            key = definition.key if plain else await self._definitions.run_key(step, operation, parent, found)
            work = lambda output: lambda id: executor.run(id, step, operation, parent, found, output)  # noqa: E731
        elif isinstance(operation, Copy):
            if operation.origin is not None:
                await self.base_snapshots.unpack(operation.origin.step)
            copier = await self._definitions.copier(step, operation, found)
            files, linked = copier.files, operation.link
            key = definition.key
            if linked or not plain:
                key = copy_key(
                    operation,
                    "" if linked else parent.key,
                    chain=parent.chain_id if linked else "",
                    checksum=copier.checksum,
                    fetched=copier.fetched,
                    epoch_ns=self.epoch_ns,
                )
            work = lambda _: lambda id: executor.copy(copier, id, parent)  # noqa: E731
        else:
            assert isinstance(operation, Workdir)
            key = definition.key if plain else workdir_key(operation, parent.key, self.epoch_ns)
            work = lambda _: lambda id: executor.workdir(id, operation, parent)  # noqa: E731
        result = await self._cached_or_executed(step, key, parent, work, files)
        self._cache_session.link(definition, result)
        return replace(result, files=files, definition=definition.key)

    async def _cached_or_executed(
        self, step: Step, key: str, parent: Result, work: Callable[[StepOutput], Work], files: str
    ) -> Result:
        """Return the cached result, join a build that is producing it, or produce it."""

        async def make(output: StepOutput) -> Result:
            async with self._in_use():
                hit = None if step.no_cache else await self._lookup.by_content(step, key, parent, files)
                return hit or await self._executor.execute(step, key, parent, work(output))

        # With no_cache the step runs for this build alone, even beside an equal one.
        name = f"{key} {id(step)}" if step.no_cache else f"{key} {parent.chain_id}"
        # Only a process writes output. The listener shows its start, as another build may already run it.
        listener = _Listener(self.progress, step) if isinstance(step.operation, Run) else None
        joined, part = self.builder.steps.is_running(name), current()
        try:
            result = await self.builder.steps.run(name, make, listener)
            if joined:
                part.waited("wait", "another build, which runs the step")
            return result
        except StepFailed as error:
            if error.step is step:
                raise
            # Another build ran the step from a different line of its Dockerfile.
            raise StepFailed(step, error.command, error.code) from error


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    """Shows the output of shared work as the output of one build's step."""

    progress: Progress
    step: Step

    @property
    def clips(self) -> bool:
        return self.progress.clips

    def started(self, since_ns: int) -> None:
        self.progress.started(self.step, since_ns)

    def output(self, stream: int, data: bytes, at_ns: int) -> None:
        self.progress.output(self.step, stream, data, at_ns)


def _base_result(operation: Base) -> Result:
    return Result(operation.digest, operation.chain_id, operation.layers, definition=operation.digest)
