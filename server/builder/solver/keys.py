"""The two keys of a step.

By content: made of the operation, the key of what it builds on, and the checksums of the files that it uses. Equal
keys, equal results, by whatever way two stages have come to the same files; but where the files are another stage's,
that stage has to be there first.

By definition: what another stage gives is known by that stage's own definition. So it is known before anything has
run, and a cache that has nothing but the last layers can be asked for them. A step that uses no other stage's files
has the same key twice.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.builder.operations.copying import Copier
from server.builder.operations.work import Contexts, Fetched
from server.builder.plan.steps import Base, Copy, Origin, ResolvedMount, Result, Run, Step, Workdir, digest_of
from server.builder.solver.builder import Builder


@dataclass(frozen=True, slots=True)
class Definition:
    """A step's key by definition, and what is known of all that it is made of."""

    key: str
    made_ns: int = 0
    """When the newest of it was made that the cache has."""
    anew: bool = False
    """Some of it is to be made anew, whatever the cache has."""


SCRATCH = Definition("scratch")


def run_key(operation: Run, parent: str, mounts: Sequence[str]) -> str:
    """``mounts``: of each mount what stands for the files that it shows."""
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
    """``chain``: the layers that a linked copy is put on, in place of its parent's key. ``checksum``: of the files,
    or ``stage``: the definition of what they come from."""
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


def upwards(step: Step | None) -> Iterator[Step]:
    """A step and what it stands on, from below."""
    found = []
    while step is not None:
        found.append(step)
        step = step.parent
    return reversed(found)


class Definitions:
    """Those of one build's steps, and the files of its contexts that they are made of, which are looked at once."""

    def __init__(self, builder: Builder, contexts: Contexts, epoch_ns: int | None) -> None:
        self._builder, self._contexts, self._epoch_ns = builder, contexts, epoch_ns
        self._known: dict[int, Definition] = {}
        self._tasks: dict[tuple[int, int], asyncio.Task[object]] = {}
        self._copiers: dict[int, asyncio.Task[Copier]] = {}

    async def of(self, step: Step | None) -> Definition:
        """Raises what looking at the files of a context raises."""
        if step is not None and id(step) in self._known:
            return self._known[id(step)]
        below = SCRATCH
        for item in upwards(step):
            known = self._known.get(id(item))
            if known is None:
                known = self._known[id(item)] = await self._define(item, below)
            below = known
        return below

    async def inputs(self, step: Step) -> Sequence[Definition]:
        """Of the stages whose files it uses."""
        return [await self.of(item) for item in step.inputs[0 if step.parent is None else 1 :]]

    async def _define(self, step: Step, below: Definition) -> Definition:
        operation = step.operation
        if isinstance(operation, Base):
            return Definition(operation.digest)
        if isinstance(operation, Run):
            stand = [await self._shown(step, number) for number in range(len(operation.mounts))]
            key = run_key(operation, below.key, stand)
        elif isinstance(operation, Copy):
            origin = operation.origin
            if origin is not None and origin.step is not None and operation.sources:
                stage = (await self.of(origin.step)).key
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
        return Definition(key, newest, step.no_cache or any(item.anew for item in used))

    async def _shown(self, step: Step, number: int) -> str:
        """What stands for the files of a mount in a definition."""
        operation = step.operation
        assert isinstance(operation, Run)
        mount = operation.mounts[number]
        if mount.origin is None:
            return ""
        if mount.origin.step is not None:
            return (await self.of(mount.origin.step)).key
        return await self.content(step, number, mount, {}) if mount.options.type == "bind" else ""

    async def run_key(self, step: Step, operation: Run, parent: Result, found: dict[int, Result]) -> str:
        """By content. What a process sees by ``type=bind`` counts by its content: ownership and modes included, times
        not. Raises NOT_FOUND for a source that isn't there."""
        keys = []
        for number, mount in enumerate(operation.mounts):
            origin = mount.origin
            if origin is not None and mount.options.type == "bind":
                keys.append(await self.content(step, number, mount, found))
            else:
                keys.append(found[id(origin.step)].key if origin is not None and origin.step is not None else "")
        return run_key(operation, parent.key, keys)

    async def content(self, step: Step, number: int, mount: ResolvedMount, found: dict[int, Result]) -> str:
        """The key of what a mount shows."""
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
        """Begins to look at the files of contexts that these steps copy, all at once."""
        for step in steps:
            operation = step.operation
            if isinstance(operation, Copy) and (operation.origin is None or operation.origin.step is None):
                self._copier(step, operation, {})

    async def copier(self, step: Step, operation: Copy, found: dict[int, Result]) -> Copier:
        """The copier of the step, opened. ``put`` it back. ``found``: the stages that it uses."""
        return await asyncio.shield(self._copier(step, operation, found))

    def _copier(self, step: Step, operation: Copy, found: dict[int, Result]) -> "asyncio.Task[Copier]":
        task = self._copiers.get(id(step))
        if task is None:
            task = asyncio.create_task(self._opened(operation, found))
            self._copiers[id(step)] = task
        return task

    async def _opened(self, operation: Copy, found: dict[int, Result]) -> Copier:
        copier = Copier(self._builder, self._contexts, operation, self._epoch_ns)
        try:
            await copier.open(found)
        except BaseException:
            await copier.close()
            raise
        return copier

    async def put(self, step: Step) -> None:
        """Closes the step's copier, if there is one."""
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
        """Ends what still runs, closes everything."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for key in list(self._copiers):
            await self._close(key)
