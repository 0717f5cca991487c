"""BuildKit's build history: running builds, and completed builds for a limited time.

A completed build is stored with its status (:mod:`records`). As in BuildKit, the newest 50 of the last 48 hours are
kept, and pinned builds until a client deletes them. Solve requests by which clients only query the engine's features
are not recorded.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

from engine.api.pb.rpc_status_pb2 import Status
from engine.api.types import to_timestamp
from engine.common.errors import not_found
from server.builder.exporters.attachments import LOG, attach, descriptor
from server.builder.history.filters import HistoryFilter
from server.builder.history.records import Records, encode_log
from server.builder.jobs.job import Job
from server.builder.session.pb import control_pb2 as pb

log = logging.getLogger(__name__)

KEPT = 50
"""The most unpinned builds in the history."""
KEPT_NS = 48 * 3600 * 10**9
"""How long builds are kept."""
WATCHED = 8
"""The number of newest builds whose results later requests may use."""

CANCELED = "context canceled"
"""The error of a build whose client has disconnected."""

STARTED, COMPLETE, DELETED = (
    pb.BuildHistoryEventType.STARTED,
    pb.BuildHistoryEventType.COMPLETE,
    pb.BuildHistoryEventType.DELETED,
)


class History:
    """Receives every build's start and end. Call ``close`` at the end."""

    def __init__(self, records: Records) -> None:
        self._store = records
        self._records: dict[str, pb.BuildHistoryRecord] = {}
        self._jobs: dict[str, Job] = {}
        self._unwritten: dict[str, bytes] = {}  # blobs that records name, not yet in the database
        self._listeners: set[asyncio.Queue[pb.BuildHistoryEvent]] = set()
        self._loading: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for pending writes."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._store.close)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run work in the background; only ``close`` waits for it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def load(self) -> None:
        """Read the records of earlier processes, once, before the first query."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        found = {record.Ref: record for record in await self._store.all()}
        self._records = {**found, **self._records}
        self._forget_old()

    def started(self, job: Job) -> None:
        """Record the start of a build."""
        request = job.request
        record = pb.BuildHistoryRecord(
            Ref=job.ref,
            Frontend=request.Frontend or "dockerfile.v0",
            FrontendAttrs=dict(request.FrontendAttrs),
            Exporters=[pb.Exporter(Type=item.Type, Attrs=dict(item.Attrs)) for item in request.Exporters],
            CreatedAt=to_timestamp(job.created_ns),
            Generation=1,
        )
        if request.Internal:
            return
        self._records[job.ref] = record
        self._notify(STARTED, record)

    def completed(self, job: Job) -> None:
        """Record the end of a build; the database is written in the background."""
        self._jobs[job.ref] = job
        for ref in list(self._jobs)[:-WATCHED]:
            del self._jobs[ref]
        record = self._records.get(job.ref)
        if record is None:
            return
        record.CompletedAt.CopyFrom(to_timestamp(job.completed_ns))
        record.FrontendAttrs.update(job.options)
        record.ExporterResponse.update(job.response)
        vertexes = {vertex.digest: vertex for message in job.messages for vertex in message.vertexes}
        record.numTotalSteps = len(vertexes)
        record.numCompletedSteps = sum(vertex.HasField("completed") for vertex in vertexes.values())
        record.numCachedSteps = sum(vertex.cached for vertex in vertexes.values())
        record.numWarnings = sum(len(message.warnings) for message in job.messages)
        record.Generation += 1
        if job.error:
            record.error.CopyFrom(Status(code=1 if job.error == CANCELED else 2, message=job.error))
        else:
            record.Result.SetInParent()  # clients read this field without checking that it is set
        try:
            blobs = attach(record, job)
        except Exception:
            log.exception("build=%s: the result is not in the history", job.ref)
            blobs = {}
        self._unwritten |= blobs
        self._notify(COMPLETE, record)
        self._spawn(self._keep(job, record, blobs), "record of a build")
        self._forget_old()

    async def _keep(self, job: Job, record: pb.BuildHistoryRecord, blobs: Mapping[str, bytes]) -> None:
        try:
            text = await asyncio.to_thread(encode_log, job.messages)
            async with self._writing:
                if job.ref in self._records:
                    whole = pb.BuildHistoryRecord()
                    whole.CopyFrom(record)
                    whole.logs.CopyFrom(descriptor(LOG, text))
                    await self._store.put(whole, text, blobs)
                    # Name the log only once it can be read.
                    record.logs.CopyFrom(whole.logs)
                    record.Generation += 1
                    self._notify(COMPLETE, record)
            # From now on the status is read from the database; current watchers keep their list.
            job.messages = []
        except Exception:
            log.warning("build=%s is not in the history", job.ref, exc_info=True)
        finally:
            for digest in blobs:
                self._unwritten.pop(digest, None)

    def _forget_old(self) -> None:
        """Drop builds beyond the limits of number and age."""
        now = time.time_ns()
        ended = [item for item in self._records.values() if item.HasField("CompletedAt") and not item.pinned]
        ended.sort(key=lambda item: item.CompletedAt.ToNanoseconds())
        old = {item.Ref for item in ended[:-KEPT]}
        old |= {item.Ref for item in ended if item.CompletedAt.ToNanoseconds() < now - KEPT_NS}
        if old:
            self._delete(old)

    def job(self, ref: str) -> Job | None:
        """Return one of the newest completed builds."""
        return self._jobs.get(ref)

    def jobs(self) -> list[Job]:
        """Return the newest completed builds."""
        return list(self._jobs.values())

    def contains(self, ref: str) -> bool:
        """Whether a build of that name is completed and its status is available."""
        record = self._records.get(ref)
        return ref in self._jobs or (record is not None and record.HasField("CompletedAt"))

    async def status(self, ref: str) -> AsyncIterator[pb.StatusResponse]:
        """Yield the status messages of a completed build."""
        job = self._jobs.get(ref)
        messages = job.messages if job is not None else []
        for message in messages or await self._store.status(ref):
            yield message

    async def records(self) -> list[pb.BuildHistoryRecord]:
        """Return all records, the newest build first."""
        await self.load()
        return sorted(self._records.values(), key=lambda record: -record.CreatedAt.ToNanoseconds())

    async def blob(self, digest: str) -> bytes | None:
        """Return a blob that a record names by digest: a log, a provenance statement, an error."""
        if digest in self._unwritten:
            return self._unwritten[digest]
        ref = next((record.Ref for record in self._records.values() if record.logs.digest == digest), "")
        return await (self._store.log(ref) if ref else self._store.blob(digest))

    async def update(self, request: pb.UpdateBuildHistoryRequest) -> None:
        """Pin or delete a record. Raises NOT_FOUND."""
        record = self._records.get(request.Ref)
        if record is None:
            raise not_found(f"no such build {request.Ref}")
        if request.Delete:
            self._delete({request.Ref})
            return
        if request.Finalize:
            await asyncio.gather(*self._tasks, return_exceptions=True)  # wait for pending writes of the record
            return
        record.pinned = request.Pinned
        record.Generation += 1
        self._notify(COMPLETE if record.HasField("CompletedAt") else STARTED, record)
        self._spawn(self._change(record), "pin of a build")
        self._forget_old()

    async def _change(self, record: pb.BuildHistoryRecord) -> None:
        async with self._writing:
            await self._store.change(record)

    async def listen(self, request: pb.BuildHistoryRequest) -> AsyncIterator[pb.BuildHistoryEvent]:
        """Yield the present records, then, unless the request has EarlyExit, changes. Raises for an invalid filter.

        Changes count from the first step of the iterator on, so none is lost while the records are read.
        """
        history_filter = HistoryFilter(request)

        def wanted(event: pb.BuildHistoryEvent) -> bool:
            if request.Ref not in ("", event.record.Ref):
                return False
            return event.type == DELETED or history_filter.matches(event.record)

        queue: asyncio.Queue[pb.BuildHistoryEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            await self.load()
            found = [record for record in self._records.values() if history_filter.matches(record)]
            if request.Limit:
                found = sorted(found, key=lambda record: record.CreatedAt.ToNanoseconds())[-request.Limit :]
            refs = {record.Ref for record in found}
            early = [queue.get_nowait() for _ in range(queue.qsize())]
            for record in found:
                over = record.HasField("CompletedAt")
                yield pb.BuildHistoryEvent(type=COMPLETE if over else STARTED, record=record)
            if request.EarlyExit:
                return
            for event in early:
                if event.record.Ref not in refs and wanted(event):
                    yield event
            while True:
                event = await queue.get()
                if wanted(event):
                    yield event
        finally:
            self._listeners.discard(queue)

    def _delete(self, refs: set[str]) -> None:
        for ref in refs:
            self._jobs.pop(ref, None)
            self._notify(DELETED, self._records.pop(ref))
        self._spawn(self._remove(refs), "end of records of builds")

    async def _remove(self, refs: set[str]) -> None:
        async with self._writing:
            await self._store.delete(sorted(refs))

    def _notify(self, kind: "pb.BuildHistoryEventType.ValueType", record: pb.BuildHistoryRecord) -> None:
        event = pb.BuildHistoryEvent(type=kind, record=record)
        for queue in self._listeners:
            queue.put_nowait(event)
