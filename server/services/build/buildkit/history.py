"""Builds that are over, for as long as somebody may ask: their last status, and BuildKit's build history.

Kept in memory, the newest ones only; a pinned build stays until it is deleted.
"""

import asyncio
from collections.abc import AsyncIterator

from engine.api.pb.rpc_status_pb2 import Status
from engine.api.types import to_timestamp
from engine.buildkit.pb import control_pb2 as pb
from engine.errors import not_found
from server.services.build.buildkit.job import Job

KEPT = 50
"""Builds in the history, beside the pinned ones."""
WATCHED = 8
"""The newest builds that still have all their status: a client may ask for it when the build has failed already."""

STARTED, COMPLETE, DELETED = (
    pb.BuildHistoryEventType.STARTED,
    pb.BuildHistoryEventType.COMPLETE,
    pb.BuildHistoryEventType.DELETED,
)


class History:
    """Told of every build's start and end."""

    def __init__(self) -> None:
        self._records: dict[str, pb.BuildHistoryRecord] = {}
        self._jobs: dict[str, Job] = {}
        self._listeners: set[asyncio.Queue[pb.BuildHistoryEvent]] = set()

    def started(self, job: Job) -> None:
        """A build begins."""
        request = job.request
        self._records[job.ref] = pb.BuildHistoryRecord(
            Ref=job.ref,
            Frontend=request.Frontend or "dockerfile.v0",
            FrontendAttrs=dict(request.FrontendAttrs),
            Exporters=[pb.Exporter(Type=item.Type, Attrs=dict(item.Attrs)) for item in request.Exporters],
            CreatedAt=to_timestamp(job.created_ns),
            Generation=1,
        )
        self._tell(STARTED, self._records[job.ref])

    def completed(self, job: Job) -> None:
        """A build is over; its status stays with the newest ones."""
        record = self._records.get(job.ref)
        if record is None:
            return
        record.CompletedAt.CopyFrom(to_timestamp(job.completed_ns))
        record.FrontendAttrs.update(job.options)
        record.ExporterResponse.update(job.response)
        record.numTotalSteps = record.numCompletedSteps = job.steps
        record.numCachedSteps = job.cached
        record.Generation += 1
        if job.error:
            record.error.CopyFrom(Status(code=2, message=job.error))
        self._jobs[job.ref] = job
        for ref in list(self._jobs)[:-WATCHED]:
            del self._jobs[ref]
        self._tell(COMPLETE, record)
        ended = [ref for ref, item in self._records.items() if item.HasField("CompletedAt") and not item.pinned]
        for ref in ended[:-KEPT]:
            self._delete(ref)

    def job(self, ref: str) -> Job | None:
        """A build that is over, with its status."""
        return self._jobs.get(ref)

    def jobs(self) -> list[Job]:
        """The newest builds that are over."""
        return list(self._jobs.values())

    def update(self, request: pb.UpdateBuildHistoryRequest) -> None:
        """Pins or deletes. Raises NOT_FOUND."""
        if request.Ref not in self._records:
            raise not_found(f"no such build {request.Ref}")
        if request.Delete:
            self._delete(request.Ref)
            return
        self._records[request.Ref].pinned = request.Pinned
        self._tell(COMPLETE, self._records[request.Ref])

    async def listen(self, request: pb.BuildHistoryRequest) -> AsyncIterator[pb.BuildHistoryEvent]:
        """What there is, then, unless the request is for an early exit, what happens."""
        queue: asyncio.Queue[pb.BuildHistoryEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            for record in list(self._records.values()):
                over = record.HasField("CompletedAt")
                if (request.Ref and record.Ref != request.Ref) or (request.ActiveOnly and over):
                    continue
                yield pb.BuildHistoryEvent(type=COMPLETE if over else STARTED, record=record)
            while not request.EarlyExit:
                event = await queue.get()
                if not request.Ref or event.record.Ref == request.Ref:
                    yield event
        finally:
            self._listeners.discard(queue)

    def _delete(self, ref: str) -> None:
        self._jobs.pop(ref, None)
        self._tell(DELETED, self._records.pop(ref))

    def _tell(self, kind: "pb.BuildHistoryEventType.ValueType", record: pb.BuildHistoryRecord) -> None:
        event = pb.BuildHistoryEvent(type=kind, record=record)
        for queue in self._listeners:
            queue.put_nowait(event)
