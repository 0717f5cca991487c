"""Looks steps up in caches: the engine's own and imported ones."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace

from engine.common.errors import Kind, WharfError
from engine.common.layers.chain import chain_id
from server.builder.cache.records import Record
from server.builder.cache.remote import CacheHit, Remote
from server.builder.plan.steps import Base, Result, Step
from server.builder.solver.builder import Builder
from server.builder.solver.executor import StepExecutor
from server.builder.solver.keys import Definitions, ancestry
from server.builder.solver.llbkeys import LlbKeys
from server.builder.solver.output import StepOutput
from server.builder.solver.session import CacheSession

log = logging.getLogger("wharf.build")


@dataclass(slots=True)
class CacheLookup:
    """The lookups of one build. ``imports``: imported caches, asked when the engine's own cache has no record."""

    builder: Builder
    definitions: Definitions
    llb: LlbKeys
    executor: StepExecutor
    cache_session: CacheSession
    imports: Sequence[Remote]
    in_use: Callable[[], AbstractAsyncContextManager[None]]
    """Keeps this build's resources open for work that other builds may join (``Solver``)."""
    _known: dict[int, bool] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget which steps are cached: a record turned out to be stale."""
        self._known.clear()

    async def is_known(self, step: Step) -> bool:
        """Whether the caches know a step and all its ancestors by their definition-based keys. Reads no stage's
        files."""
        if id(step) in self._known:
            return self._known[id(step)]
        chain = list(ancestry(step))
        self.definitions.prepare(*(item for item in chain if id(item) not in self._known))
        known = True
        for item in chain:
            if id(item) not in self._known:
                self._known[id(item)] = known and await self._check_known(item)
            known = self._known[id(item)]
        return known

    async def _check_known(self, step: Step) -> bool:
        if isinstance(step.operation, Base):
            return True
        if step.no_cache:
            return False
        try:
            definition = await self.definitions.get(step)
        except (WharfError, OSError):
            return False  # the step itself will report the error
        if definition.no_cache:
            return False
        if await self._find_by_definition(step, definition.key):
            return True
        return bool(await self._find_imported(step, definition.key))

    async def _find_imported(self, step: Step, key: str) -> list[tuple[Remote, CacheHit]]:
        """What imported caches know of a step, by our key or by BuildKit's."""
        found = [(remote, known) for remote in self.imports if (known := remote.find_by_definition(key)) is not None]
        others = [remote for remote in self.imports if remote.has_llb] if not found else []
        key_of_others = await self.llb.get(step) if others else None
        if key_of_others is not None:
            found = [(remote, known) for remote in others for known in remote.llb(key_of_others)]
        return found

    async def _find_by_definition(self, step: Step, key: str) -> list[Record]:
        """The engine's own records, without those that are older than the step's inputs."""
        used = await self.definitions.inputs(step)
        return await self.builder.cache.find_by_definition(
            key, since_ns=max((item.made_ns for item in used), default=0)
        )

    async def by_definition(self, step: Step, parent: Result, *, imports: bool = True) -> Result | None:
        """Return the result of a step that ``is_known`` reported; ``None`` if its layers can't be obtained after
        all."""
        definition = await self.definitions.get(step)
        key = definition.key
        hit = await self._hit(await self._find_by_definition(step, key), parent)
        if hit is not None or not imports:
            return hit and replace(hit, definition=key)
        known = await self._find_imported(step, key)
        known = [(remote, found) for remote, found in known if found.lower_diff_ids in (None, parent.diff_ids)]
        if not known:
            return None
        name = f"defined {key} {parent.chain_id}"

        async def make(_: StepOutput) -> Result | None:
            async with self.in_use():
                return await self._fetch_imported(step, key, parent, known)

        result = await self.builder.imports.run(name, make)
        if result is not None:
            self.cache_session.link(definition, result)
        return result and replace(result, definition=key)

    async def by_content(self, step: Step, key: str, parent: Result, files: str) -> Result | None:
        """Return a result by its content-based key, from the engine's cache or an imported one."""
        hit = await self._hit(await self.builder.cache.find(key), parent)
        if hit is not None:
            return hit
        found = ((remote, remote.find(key, step, parent, files)) for remote in self.imports)
        return await self._fetch_imported(step, key, parent, ((remote, known) for remote, known in found if known))

    async def _hit(self, records: Iterable[Record], parent: Result) -> Result | None:
        """Return the first record whose layer stacks on these layers."""
        for record in records:
            layer = record.layer
            if layer is None:
                if record.chain_id == parent.chain_id:
                    self.cache_session.hold(record.id)
                    self.cache_session.use(record.id)
                    return replace(parent, key=record.key, cached=True)
                continue
            if record.chain_id != chain_id(parent.chain_id, layer.diff_id):
                continue
            self.cache_session.hold(record.id)
            if record.id not in self.builder.cache.verified and not await self._exists(record):
                continue
            self.cache_session.use(record.id)
            return Result(record.key, record.chain_id, (*parent.layers, layer), cached=True)
        return None

    async def _fetch_imported(
        self, step: Step, key: str, parent: Result, found: Iterable[tuple[Remote, CacheHit]]
    ) -> Result | None:
        """Fetch a result from an imported cache; ``None`` if no cache can deliver it, so that the step runs instead."""
        for remote, known in found:
            content = known.content or key
            try:
                result = await self.executor.execute(
                    step,
                    content,
                    parent,
                    lambda id: self.executor.fetch(remote, known.layer, id, parent),  # noqa: B023
                )
            except (WharfError, OSError) as error:
                log.warning("step %s from an imported cache: %s", step.name, error)
                continue
            return replace(result, cached=True)
        return None

    async def _exists(self, record: Record) -> bool:
        """Whether the engine still has a record's snapshot and blob. Removes the record if not."""
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
        self.builder.cache.verified.add(record.id)
        return True
