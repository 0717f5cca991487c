"""The two cache keys of a step.

The content-based key is the digest of the operation, of the key of the parent, and of the checksums of the files that
the step uses. Equal keys mean equal results, however two stages produced the files; but a stage that provides files
must be solved first.

The definition-based key uses the source stage's own definition in place of the files. It is known before any step
runs, so a cache that holds only the last layers can be asked. A step that uses no files of other stages has equal keys.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.builder.operations.copier import Copier
from server.builder.operations.interfaces import Contexts, Fetched
from server.builder.plan.steps import Base, Copy, Origin, ResolvedMount, Result, Run, Step, Workdir, digest_of
from server.builder.solver.builder import Builder


@dataclass(frozen=True, slots=True)
class Definition:
    """A step's definition-based key, and the state of the steps that it depends on."""

    key: str
    made_ns: int = 0
    """When the newest cached result of these steps was made."""
    no_cache: bool = False
    """Whether any of these steps must run whatever the cache has."""


SCRATCH = Definition("scratch")


def run_key(operation: Run, parent: str, mounts: Sequence[str]) -> str:
    """``mounts``: for each mount, the key of the files that it shows."""
    shown = [
        [mount.options, key, mount.origin.context if mount.origin is not None else None]
        for mount, key in zip(operation.mounts, mounts, strict=True)
    ]
    return digest_of(
        "run",
        {
            "parent": parent,
            "args": operation.args,
            "env": operation.env,
            "cwd": operation.cwd,
            "user": operation.user,
            "mounts": shown,
            "network": operation.network,
            "security": operation.security,
            "files": operation.files,
            **({"volumes": operation.volumes} if operation.volumes else {}),
        },
    )


def copy_key(
    operation: Copy,
    parent: str,
    *,
    chain: str = "",
    checksum: str = "",
    fetched: Sequence[Fetched] = (),
    epoch_ns: int | None,
    stage: str = "",
) -> str:
    """``chain``: the layers below a linked copy, in place of its parent's key. ``checksum``: of the files, or
    ``stage``: the definition of the stage that they come from."""
    named = {"stage": stage, "sources": operation.sources, "lax": operation.may_match_nothing} if stage else {}
    return digest_of(
        "copy",
        {
            "parent": parent,
            "chain": chain,
            "target": operation.target,
            "files": operation.files,
            "checksum": checksum,
            "fetched": [[item.name, item.digest] for item in fetched],
            "chown": operation.chown,
            "chmod": operation.chmod,
            "parents": operation.parents,
            "unpack": operation.unpack,
            "exclude": operation.exclude,
            "epoch": epoch_ns,
            **named,
        },
    )


def workdir_key(operation: Workdir, parent: str, epoch_ns: int | None) -> str:
    return digest_of("workdir", {"path": operation.path, "parent": parent, "user": operation.user, "epoch": epoch_ns})


def ancestry(step: Step | None) -> Iterator[Step]:
    """A step and its ancestors, base first."""
    found = []
    while step is not None:
        found.append(step)
        step = step.parent
    return reversed(found)


class Definitions:
    """The definition-based keys of one build's steps, and the copiers of context files; each is computed once."""

    def __init__(self, builder: Builder, contexts: Contexts, epoch_ns: int | None) -> None:
        self._builder, self._contexts, self._epoch_ns = builder, contexts, epoch_ns
        self._known: dict[int, Definition] = {}
        self._tasks: dict[tuple[int, int], asyncio.Task[object]] = {}
        self._copiers: dict[int, asyncio.Task[Copier]] = {}

    async def get(self, step: Step | None) -> Definition:
        """Return the definition of a step. Raises what reading the files of a context raises."""
        if step is not None and id(step) in self._known:
            return self._known[id(step)]
        below = SCRATCH
        for item in ancestry(step):
            known = self._known.get(id(item))
            if known is None:
                known = self._known[id(item)] = await self._define(item, below)
            below = known
        return below

    async def inputs(self, step: Step) -> Sequence[Definition]:
        """Return the definitions of the stages whose files the step uses."""
        return [await self.get(item) for item in step.inputs[0 if step.parent is None else 1 :]]

    async def _define(self, step: Step, below: Definition) -> Definition:
        operation = step.operation
        if isinstance(operation, Base):
            return Definition(operation.digest)
        if isinstance(operation, Run):
            mounts = [await self._mount_definition(step, number) for number in range(len(operation.mounts))]
            key = run_key(operation, below.key, mounts)
        elif isinstance(operation, Copy):
            origin = operation.origin
            if origin is not None and origin.step is not None and operation.sources:
                stage = (await self.get(origin.step)).key
                key = copy_key(operation, below.key, epoch_ns=self._epoch_ns, stage=stage)
            else:
                copier = await self.copier(step, operation, {})
                key = copy_key(
                    operation,
                    below.key,
                    checksum=copier.checksum,
                    fetched=copier.fetched,
                    epoch_ns=self._epoch_ns,
                )
        else:
            key = workdir_key(operation, below.key, self._epoch_ns)
        used = [below, *await self.inputs(step)]
        newest = max(await self._builder.cache.newest_ns(key), *(item.made_ns for item in used))
        return Definition(key, newest, step.no_cache or any(item.no_cache for item in used))

    async def _mount_definition(self, step: Step, number: int) -> str:
        """Return what a definition includes for a mount: the stage's key, or the checksum of context files."""
        operation = step.operation
        assert isinstance(operation, Run)
        mount = operation.mounts[number]
        if mount.origin is None:
            return ""
        if mount.origin.step is not None:
            return (await self.get(mount.origin.step)).key
        return await self.content(step, number, mount, {}) if mount.options.type == "bind" else ""

    async def run_key(self, step: Step, operation: Run, parent: Result, found: dict[int, Result]) -> str:
        """Return the content-based key. Files of a ``type=bind`` mount count by content, ownership and modes, not by
        times. Raises NOT_FOUND for a missing source."""
        keys = []
        for number, mount in enumerate(operation.mounts):
            origin = mount.origin
            if origin is not None and mount.options.type == "bind":
                keys.append(await self.content(step, number, mount, found))
            else:
                keys.append(found[id(origin.step)].key if origin is not None and origin.step is not None else "")
        return run_key(operation, parent.key, keys)

    async def content(self, step: Step, number: int, mount: ResolvedMount, found: dict[int, Result]) -> str:
        """Return the key of the files that a mount shows."""
        assert mount.origin is not None
        place = (id(step), number)
        task = self._tasks.get(place)
        if task is None:
            task = asyncio.create_task(self._content(mount, mount.origin, found))
            self._tasks[place] = task
        return str(await asyncio.shield(task))

    async def _content(self, mount: ResolvedMount, origin: Origin, found: dict[int, Result]) -> str:
        operation = Copy((mount.options.source or "/",), "/", origin)
        copier = Copier(self._builder, self._contexts, operation, None)
        try:
            await copier.open(found)
            return copy_key(operation, SCRATCH.key, checksum=copier.checksum, fetched=copier.fetched, epoch_ns=None)
        finally:
            await copier.close()

    def prepare(self, *steps: Step) -> None:
        """Start reading the context files that these steps copy, all at once."""
        for step in steps:
            operation = step.operation
            if isinstance(operation, Copy) and (operation.origin is None or operation.origin.step is None):
                self._copier(step, operation, {})

    async def copier(self, step: Step, operation: Copy, found: dict[int, Result]) -> Copier:
        """Return the step's opened copier; close it by ``close_copier``. ``found``: results of the stages that the step
        uses."""
        return await asyncio.shield(self._copier(step, operation, found))

    def _copier(self, step: Step, operation: Copy, found: dict[int, Result]) -> "asyncio.Task[Copier]":
        task = self._copiers.get(id(step))
        if task is None:
            task = asyncio.create_task(self._open_copier(operation, found))
            self._copiers[id(step)] = task
        return task

    async def _open_copier(self, operation: Copy, found: dict[int, Result]) -> Copier:
        copier = Copier(self._builder, self._contexts, operation, self._epoch_ns)
        try:
            await copier.open(found)
        except BaseException:
            await copier.close()
            raise
        return copier

    async def close_copier(self, step: Step) -> None:
        """Close the step's copier, if any."""
        await self._close(id(step))

    async def _close(self, key: int) -> None:
        task = self._copiers.pop(key, None)
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await task.result().close()

    async def close(self) -> None:
        """Cancel what still runs and close every copier."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for key in list(self._copiers):
            await self._close(key)
