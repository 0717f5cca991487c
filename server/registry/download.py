"""Downloads blobs from a registry into the content store: each once for all concurrent pulls, resumed after a break."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial

from engine.api.client import Engine
from engine.api.rpc import current_lease
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError
from engine.common.system import heap
from engine.common.timeline import current
from server.registry import documents
from server.registry.responses import RegistryError, pause
from server.registry.source import Source

#: Called with the state of a blob: ("Downloading", bytes so far), ("Waiting" | "Verifying Checksum" | "Download
#: complete" | "Retrying", bytes).
OnBlobState = Callable[[str, int], None]
_AHEAD = 4


def download_ref(digest: str) -> str:
    """The ref of a blob's ingest during its download (containerd's own clients use the same name)."""
    return f"layer-{digest}"


class Fetched(Enum):
    """Where a blob is from: the store, a download by this pull's repository, or one that another pull had begun."""

    STORED = auto()
    HERE = auto()
    ELSEWHERE = auto()


@dataclass(slots=True)
class _Job:
    task: "asyncio.Task[None]"
    watchers: list[OnBlobState] = field(default_factory=list)
    waiting: int = 0


async def read_ahead(pieces: AsyncIterator[bytes], depth: int = _AHEAD) -> AsyncGenerator[bytes, None]:
    """Reads up to ``depth`` pieces ahead, so that both sides' transfers overlap.

    A caller that stops early must close it (``aclosing``): it continues to read until then.
    """
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(depth)

    async def fill() -> None:
        try:
            async for piece in pieces:
                await queue.put(piece)
        finally:
            await queue.put(None)

    task = asyncio.create_task(fill())
    try:
        while (piece := await queue.get()) is not None:
            yield piece
        await task
    finally:
        task.cancel()
        while not task.done():
            while not queue.empty():
                queue.get_nowait()
            await asyncio.wait((task,), timeout=0.05)
        if not task.cancelled():
            task.exception()


class Downloads:
    """All downloads of one daemon, at most ``limit`` at a time."""

    def __init__(self, engine: Engine, *, limit: int, attempts: int) -> None:
        self._engine = engine
        self._jobs: dict[str, _Job] = {}
        self.set_limits(limit=limit, attempts=attempts)

    def set_limits(self, *, limit: int, attempts: int) -> None:
        """Set the number of concurrent downloads, and of attempts for each. Applies to downloads that begin later."""
        self._attempts = max(1, attempts)
        self._slots = asyncio.Semaphore(max(1, limit))

    async def fetch(
        self, repository: Source, desc: Descriptor, *, watch: OnBlobState | None = None, urls: tuple[str, ...] = ()
    ) -> Fetched:
        """Downloads a blob into the store, protected by the caller's lease.

        :raises WharfError: the registry's error; INVALID_ARGUMENT if the blob doesn't match its descriptor.
        """
        for _ in range(self._attempts + 1):
            if await self._lease_existing(desc):
                return Fetched.STORED
            started = await self._join(repository, desc, watch, urls)
            if await self._lease_existing(desc):
                return Fetched.HERE if started else Fetched.ELSEWHERE
            # The pull that fetched the blob was cancelled, and the collector ran before this one's lease protected it.
        raise WharfError(Kind.UNAVAILABLE, f"{desc.digest}: collected while it was pulled")

    async def discard_stale(self, digests: Collection[str] | None = None) -> int:
        """Discards the ingests of cancelled downloads, of all blobs or of these; returns the number of bytes. Keeps
        ingests that another pull continues."""
        content, freed = self._engine.content, 0
        for ingest in await content.statuses():
            digest = ingest.ref.removeprefix(download_ref(""))
            if digest == ingest.ref or digest in self._jobs or (digests is not None and digest not in digests):
                continue
            try:
                async with content.writer(ingest.ref):  # a ref has only one writer
                    await content.discard_ingest(ingest.ref)
            except WharfError as error:
                if error.kind is Kind.UNAVAILABLE:
                    continue
                if error.kind is not Kind.RESOURCE_EXHAUSTED:
                    raise
                await content.discard_ingest(ingest.ref)  # the disk is too full to open a writer
            freed += ingest.offset
        return freed

    async def _lease_existing(self, desc: Descriptor) -> bool:
        lease = current_lease.get()
        if lease:
            with suppress(WharfError):
                await self._engine.leases.add_resource(lease, desc.digest, "content")
        return await documents.has_sized(self._engine, desc)

    async def _join(
        self, repository: Source, desc: Descriptor, watch: OnBlobState | None, urls: tuple[str, ...]
    ) -> bool:
        """Waits for the download of a blob. Returns whether it was made with ``repository``."""
        while True:
            job = self._jobs.get(desc.digest)
            started = job is None
            if job is None:
                job = _Job(asyncio.create_task(self._run(repository, desc, urls), name=f"download {desc.digest}"))
                self._jobs[desc.digest] = job
                job.task.add_done_callback(partial(self._ended, desc.digest))
            if watch is not None:
                job.watchers.append(watch)
            job.waiting += 1
            part = current()
            try:
                await asyncio.wait((job.task,))
                if not started:
                    part.waited("wait", "another pull's download")
            finally:
                job.waiting -= 1
                if watch is not None and watch in job.watchers:
                    job.watchers.remove(watch)
                if not job.waiting and not job.task.done():
                    job.task.cancel()
                    await asyncio.wait((job.task,))
            if not job.task.cancelled():
                job.task.result()
                return started
            # The pull that started it was cancelled by its client: continue with our own connection, at its offset.

    def _ended(self, digest: str, task: "asyncio.Task[None]") -> None:
        self._jobs.pop(digest, None)
        if not task.cancelled():
            task.exception()  # raised in the waiters; there may be none left

    def _notify(self, digest: str, state: str, size: int) -> None:
        job = self._jobs.get(digest)
        for watch in job.watchers if job else ():
            watch(state, size)

    async def _run(self, repository: Source, desc: Descriptor, urls: tuple[str, ...]) -> None:
        ref, part = download_ref(desc.digest), current()
        async with self._slots:
            part.waited("wait", "a slot of max-concurrent-downloads")
            for attempt in range(self._attempts):
                last = attempt + 1 == self._attempts
                try:
                    await self._once(repository, desc, ref, urls[attempt % len(urls)] if urls else "")
                    return
                except WharfError as error:
                    again = error.again if isinstance(error, RegistryError) else error.kind is Kind.UNAVAILABLE
                    if last or not again:
                        if not again:
                            await self._engine.content.discard_ingest(ref)
                        raise
                    self._notify(desc.digest, "Retrying", 0)
                    await pause(attempt, error)

    async def _once(self, repository: Source, desc: Descriptor, ref: str, url: str) -> None:
        content = self._engine.content
        async with content.writer(ref, expected=desc.digest, total=desc.size) as writer:
            if writer.exists:
                return
            if writer.offset > desc.size:
                await writer.truncate()
            resumed = writer.offset > 0
            if writer.offset < desc.size or not desc.size:
                async with (
                    repository.blob(desc.digest, writer.offset, url) as (start, blob),
                    aclosing(read_ahead(blob)) as pieces,
                ):
                    if start != writer.offset:
                        await writer.truncate()
                    with heap.Transfer():
                        async for piece in pieces:
                            if writer.offset + len(piece) > desc.size:
                                text = f"{desc.digest}: more than the {desc.size} bytes that the manifest says"
                                if again := repository.reject(desc.digest):
                                    await writer.truncate()  # another server sends the whole blob
                                raise RegistryError(Kind.INVALID_ARGUMENT, text, status=200, again=again)
                            await writer.write(piece)
                            self._notify(desc.digest, "Downloading", writer.offset)
            if writer.offset < desc.size:
                repository.reject(desc.digest)
                raise RegistryError(
                    Kind.INTERNAL, f"{desc.digest}: unexpected EOF after {writer.offset} bytes", again=True
                )
            self._notify(desc.digest, "Verifying Checksum", desc.size)
            try:
                await writer.commit(size=desc.size, digest=desc.digest)
            except WharfError as error:
                if error.kind is not Kind.FAILED_PRECONDITION:
                    raise
                await self._engine.content.discard_ingest(ref)
                # The data of an earlier attempt may be invalid, or a mirror's: retry once from the start.
                raise RegistryError(
                    Kind.INVALID_ARGUMENT,
                    f"filesystem layer verification failed for digest {desc.digest}",
                    again=repository.reject(desc.digest) or resumed,
                ) from None
        self._notify(desc.digest, "Download complete", desc.size)
