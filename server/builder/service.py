"""Builds: the shared builder behind both front ends, and its running builds."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from api_models.filters import Filters
from engine.common.errors import Kind, WharfError, invalid
from engine.common.system import private
from server.access.caller import Caller
from server.builder.buildkit.service import BuildKit
from server.builder.cache.garbage_collection import GarbageCollector
from server.builder.cache.pruning import PruneOptions, Usage, matching, read_filters
from server.builder.cache.records import MOUNT, Cache, Record, choose
from server.builder.classic.build import ClassicBuild, read
from server.builder.contexts.contexts import Contexts
from server.builder.lease import BuildLease
from server.builder.neighbours import Images
from server.builder.operations.difference import clean_up
from server.builder.operations.lifetime import Lifetime
from server.builder.options import BuildKitOptions, ClassicOptions
from server.builder.plan.instruction_times import InstructionTimes
from server.builder.solver.builder import Builder
from server.builder.solver.executor import CACHE_LEASE
from server.config import BuilderGc
from server.containers.context import ContainerContext
from server.messages import Progress

log = logging.getLogger(__name__)


class Builds:
    """The builds of one owner. Call ``start`` before use and ``stop`` at the end, which cancels running builds;
    finished steps stay cached."""

    def __init__(
        self,
        container_context: ContainerContext,
        images: Images,
        *,
        worker_id: str = "wharf",
        version: str = "",
        host_gateway: Callable[[], str] = lambda: "",
        gc: BuilderGc | None = None,
        root: Path,
        caller: Caller,
    ) -> None:
        """``root``: the directory of cache and history. ``caller``: the owner of the builds; ``images`` are that
        owner's."""
        self._container_context, self._images = container_context, images
        self._root = root
        self.builder = Builder(
            container_context.engine,
            Cache(str(self._root / "cache.db")),
            scratch=str(self._root / "scratch"),
            cache_mounts=str(self._root / "mounts"),
            caller=caller,
        )
        self._contexts = Contexts(self._root / "contexts")
        self._instruction_times = InstructionTimes(str(self._root / "moments.db"))
        self.buildkit = BuildKit(
            container_context,
            images,
            self.builder,
            self._contexts,
            self.usage,
            self.prune,
            root=str(self._root),
            worker_id=worker_id,
            version=version,
            host_gateway=host_gateway,
        )
        self._running: dict[str, asyncio.Task[None]] = {}
        self._garbage_collector = GarbageCollector(gc or BuilderGc(), self._root, self.prune)
        self.builder.cache.grown = self._garbage_collector.schedule

    async def start(self) -> None:
        await asyncio.to_thread(self._prepare)
        await self.buildkit.mirrors.clear_unknown()
        # A step of a killed daemon has a lease but no record, so nothing else deletes its lease.
        kept = {record.id for record in await self.builder.cache.all()}
        leases = self._container_context.engine.leases
        owner = self.builder.caller.owner or "1"
        for lease in await leases.list([f'labels."{CACHE_LEASE}"=="{owner}"']):
            if lease.id not in kept:
                await clean_up(leases.delete(lease.id))

    def _prepare(self) -> None:
        self._contexts.clear()
        shutil.rmtree(self.builder.scratch, ignore_errors=True)
        for folder in (self.builder.scratch, self.builder.cache_mounts.root):
            private.make_directory(folder, 0o710)

    async def stop(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.buildkit.stop()
        await self._garbage_collector.stop()
        await self.builder.cache.close()
        await asyncio.to_thread(self._instruction_times.close)

    async def discard(self) -> None:
        """Stop, and remove all cached layers; the caller removes the directory."""
        for task in list(self._running.values()):
            task.cancel()
        await self.prune(PruneOptions(everything=True))
        await self.stop()

    async def classic(self, options: ClassicOptions, body: AsyncIterator[bytes], messages: Progress) -> None:
        """Run ``POST /build`` and put its response into ``messages``.

        :raises WharfError: an error before the first message.
        """
        self._check(options)
        await self._cancellable(options.build_id, self._classic(options, body, messages))

    async def post_build(self, options: BuildKitOptions, body: AsyncIterator[bytes], messages: Progress) -> None:
        """Run ``POST /build?version=2`` as :meth:`classic`, by BuildKit."""
        self._check(options.common)
        await self._cancellable(options.common.build_id, self.buildkit.post_build(options, body, messages))

    def _check(self, options: ClassicOptions) -> None:
        if options.squash and not self._container_context.config.experimental:
            raise invalid("squash is only supported with experimental mode")

    async def _cancellable(self, build_id: str, work: Coroutine[None, None, None]) -> None:
        """Run a build that :meth:`cancel` can cancel.

        :raises WharfError: CANCELLED when it was.
        """
        task = asyncio.create_task(work)
        key = build_id or f"{id(task):x}"
        self._running[key] = task
        try:
            await asyncio.wait([task])
        finally:
            if self._running.get(key) is task:
                del self._running[key]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            raise WharfError(Kind.CANCELLED, "context canceled")
        task.result()

    async def _classic(self, options: ClassicOptions, body: AsyncIterator[bytes], messages: Progress) -> None:
        lease = BuildLease(self._container_context)
        lease.begin()
        async with Lifetime() as lifetime:
            lifetime.at_end(lease.close)
            context = await lifetime.enter(self._contexts.open(body, options.remote, options.dockerfile))
            file = await read(context, options.target)
            await lease.enter()
            build = ClassicBuild(
                self._container_context,
                self._images,
                self.builder,
                self._instruction_times,
                options,
                context,
                messages,
                lifetime,
            )
            await build.run(file)

    async def usage(self, filters: Sequence[str] = (), what: str = "diskusage") -> list[Usage]:
        """Return the matching cache records.

        :raises WharfError: INVALID_ARGUMENT for invalid filters.
        """
        chains = await self._images.chains()
        cache = self.builder.cache
        found = [Usage(item, cache.in_use(item.id), item.chain_id in chains) for item in await cache.all()]
        return matching(found, filters, what) if filters else found

    async def prune_by_filters(self, filters: Filters, **options: Any) -> list[Record]:
        """Run ``POST /build/prune``. ``options``: other fields of :class:`PruneOptions`.

        :raises WharfError: INVALID_ARGUMENT, in dockerd's words.
        """
        try:
            texts, before_ns = read_filters(filters)
            return await self.prune(PruneOptions(filters=texts, before_ns=before_ns, **options))
        except WharfError as error:
            raise WharfError(error.kind, f"failed to prune build cache: {error.message}") from error

    async def prune(self, options: PruneOptions) -> list[Record]:
        """Remove cache records, least recently used first; return the removed ones.

        :raises WharfError: INVALID_ARGUMENT for invalid filters.
        """
        usage = await self.usage()
        fit = {item.record.id for item in matching(usage, options.filters, "prune")}
        total = sum(item.record.size for item in usage if not item.shared)
        bound = min((value for value in (options.keep_bytes, options.most_bytes) if value), default=0)
        if options.free_bytes:
            free = (await asyncio.to_thread(shutil.disk_usage, self._root)).free
            if free >= options.free_bytes and not bound:
                return []
            bound = max(1, total - max(0, options.free_bytes - free), bound)
        fit -= {item.record.id for item in usage if item.in_use or (item.shared and not options.everything)}
        before = options.before_ns
        removed = choose(
            [item.record for item in usage],
            free=lambda record: record.id in fit and not (before and record.used_ns > before),
            total=total,
            keep_bytes=bound,
        )
        removed = await self.forget(removed)
        if options.everything and not (options.filters or bound or before):
            await self._instruction_times.clear()
        return removed

    async def forget(self, records: Sequence[Record]) -> list[Record]:
        """Remove records and the data that only they hold; return those that no build has started to use meanwhile."""
        gone = [record for record in records if record.path and await self._remove_folder(record)]
        layers = [item for item in records if not item.path and not self.builder.cache.in_use(item.id)]
        gone += layers
        if layers:
            await self.builder.cache.remove([record.id for record in layers])
        for record in layers:
            try:
                await self._container_context.engine.leases.delete(record.id, sync=record is layers[-1])
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
        return gone

    async def _remove_folder(self, record: Record) -> bool:
        """Remove a record's directory, unless a build has acquired it meanwhile."""
        if record.kind == MOUNT:
            return await self.builder.cache_mounts.remove(record)
        return await self.buildkit.mirrors.remove(record)

    def cancel(self, build_id: str) -> None:
        """Cancel the build with the client's id; an unknown or ended build is ignored."""
        task = self._running.get(build_id)
        if task is not None:
            task.cancel()
