"""moby.buildkit.v1.Control: solves with exporters, their status, workers, the cache, the history."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext

from engine.api.errors import Detailed
from engine.api.types import Platform, to_timestamp
from engine.common.errors import WharfError, invalid, not_implemented
from engine.common.timeline import Timeline
from server.builder.buildkit.gateway import returned_results
from server.builder.cache.pruning import PruneOptions, Usage
from server.builder.cache.records import Record
from server.builder.classic.image import describe
from server.builder.exporters.export import Exporters
from server.builder.history.history import CANCELED, History
from server.builder.jobs.failure import disk_full_error, with_details
from server.builder.jobs.inputs import operations
from server.builder.jobs.job import Job, Jobs, SolvedTarget
from server.builder.jobs.options import check_count
from server.builder.lease import BuildLease
from server.builder.plan.imageconfig import ImageConfig
from server.builder.plan.steps import SCRATCH
from server.builder.session.pb import control_pb2 as pb
from server.builder.session.pb import gateway_pb2, ops_pb2, worker_pb2
from server.builder.session.session import Session, Sessions
from server.builder.session.tunnel import carry
from server.builder.sources.caches import Caches, refuse_exports
from server.containers.context import ContainerContext
from server.registry import oci

log = logging.getLogger(__name__)

Metadata = Mapping[str, str]
"""The metadata of a call."""
FrontendSolve = Callable[[Job, dict[str, str]], Awaitable[list[SolvedTarget]]]
Prune = Callable[[PruneOptions], Awaitable[list[Record]]]
Using = Callable[[Sequence[str]], Awaitable[list[Usage]]]


def worker(id: str, *, version: str, host_gateway: str, platforms: Sequence[Platform]) -> worker_pb2.WorkerRecord:
    """Describe the only worker: this engine."""
    labels = {
        "org.mobyproject.buildkit.worker.executor": "containerd",
        "org.mobyproject.buildkit.worker.snapshotter": "overlayfs",
        "org.mobyproject.buildkit.worker.moby.host-gateway-ip": host_gateway,
        "org.mobyproject.buildkit.worker.network": "host",
    }
    return worker_pb2.WorkerRecord(
        ID=id,
        Labels={key: value for key, value in labels.items() if value},
        platforms=[
            ops_pb2.Platform(OS=platform.os, Architecture=platform.architecture, Variant=platform.variant)
            for platform in platforms
        ],
        BuildkitVersion=worker_pb2.BuildkitVersion(package="wharf", version=f"v{version}", revision=""),
    )


class Control:
    """The servicer. ``solve`` is the built-in front end."""

    def __init__(
        self,
        container_context: ContainerContext,
        jobs: Jobs,
        sessions: Sessions,
        solve: FrontendSolve,
        exporters: Exporters,
        workers: Callable[[], list[worker_pb2.WorkerRecord]],
        usage: Using,
        prune: Prune,
        history: History,
        caches: Caches,
        owner: str,
    ) -> None:
        self._container_context, self._jobs, self._sessions = container_context, jobs, sessions
        self._front, self._exporters, self._workers = solve, exporters, workers
        self._usage, self._prune, self._history = usage, prune, history
        self._caches, self._owner = caches, owner

    async def list_workers(self, request: pb.ListWorkersRequest, call: Metadata) -> pb.ListWorkersResponse:
        return pb.ListWorkersResponse(record=self._workers())

    async def info(self, request: pb.InfoRequest, call: Metadata) -> pb.InfoResponse:
        return pb.InfoResponse(buildkitVersion=self._workers()[0].BuildkitVersion)

    async def status(self, request: pb.StatusRequest, call: Metadata) -> AsyncIterator[pb.StatusResponse]:
        await self._history.load()
        job = await self._jobs.get(request.Ref)
        async for message in self._history.status(request.Ref) if job is None else job.watch():
            yield message

    async def solve(self, request: pb.SolveRequest, call: Metadata) -> pb.SolveResponse:
        try:
            _check_count(request)
        except WharfError as error:
            raise with_details(error) from error
        timeline = Timeline("build", request.Ref, self._owner)
        job = Job(request.Ref, request.Session, request, BuildLease(self._container_context), timeline)
        job.lifetime.at_end(job.lease.close)
        await self._jobs.add(job)
        self._history.started(job)
        try:
            _refuse(request)
            # Internal: no build, buildx finds out with it what the builder can do. The history omits it, too.
            with nullcontext() if request.Internal else timeline:
                response = await self._solve(job, request)
            job.response = response
            return pb.SolveResponse(ExporterResponse=response)
        except WharfError as error:
            raise _record_failure(job, error) from error
        except OSError as error:
            job.error = str(error)
            if full := disk_full_error(error):
                raise _record_failure(job, full) from error
            raise
        except Exception as error:
            job.error = str(error) or type(error).__name__
            raise
        except asyncio.CancelledError:
            job.error = CANCELED
            raise
        finally:
            try:
                await asyncio.shield(job.close())
            finally:
                job.end()
                self._history.completed(job)
                self._jobs.remove(job)

    async def _solve(self, job: Job, request: pb.SolveRequest) -> dict[str, str]:
        session: Session | None = None
        outputs = [(item.Type, dict(item.Attrs)) for item in request.Exporters]
        if not outputs and request.ExporterDeprecated:
            outputs = [(request.ExporterDeprecated, dict(request.ExporterAttrsDeprecated))]
        if request.Session and (outputs or request.Frontend):
            session = await self._sessions.get(request.Session)
        if request.Frontend:
            made = await self._front(job, dict(request.FrontendAttrs))
            for item in made:
                job.add_result(item)
        elif request.HasField("Definition"):
            # As BuildKit: a definition without operations gives an empty result. Without any definition, the part of
            # the build that runs in the client returns the result.
            made = [_empty_result(job)] if outputs else []
        else:
            made = returned_results(job, await self._client_result(job, session))
        job.results = made
        response: dict[str, str] = {}
        if made:
            await job.lease.enter()
        for number, (kind, attrs) in enumerate(outputs):
            response |= await self._exporters.export(job, session, made, kind, attrs, number)
        return response | await self._caches.export_caches(job, session, made)

    async def _client_result(self, job: Job, session: Session | None) -> gateway_pb2.Result:
        """Return the client's result. Fails if its session ends before."""
        if session is None:
            return await job.outcome
        gone = asyncio.ensure_future(session.closed.wait())
        try:
            await asyncio.wait({job.outcome, gone}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        finally:
            gone.cancel()
        if not job.outcome.done():
            raise invalid("the client of the build has disconnected")
        return job.outcome.result()

    async def disk_usage(self, request: pb.DiskUsageRequest, call: Metadata) -> pb.DiskUsageResponse:
        try:
            found = await self._usage(list(request.filter))
        except WharfError as error:
            raise with_details(error) from error
        return pb.DiskUsageResponse(record=[_usage(item) for item in found])

    async def prune(self, request: pb.PruneRequest, call: Metadata) -> AsyncIterator[pb.UsageRecord]:
        options = PruneOptions(
            everything=request.all,
            filters=list(request.filter),
            before_ns=time.time_ns() - request.keepDuration if request.keepDuration else 0,
            keep_bytes=request.keepBytes,
        )
        try:
            removed = await self._prune(options)
        except WharfError as error:
            raise with_details(error) from error
        for record in removed:
            yield _usage(Usage(record, in_use=False, shared=False))

    async def listen_build_history(
        self, request: pb.BuildHistoryRequest, call: Metadata
    ) -> AsyncIterator[pb.BuildHistoryEvent]:
        async for event in self._history.listen(request):
            yield event

    async def update_build_history(
        self, request: pb.UpdateBuildHistoryRequest, call: Metadata
    ) -> pb.UpdateBuildHistoryResponse:
        await self._history.load()
        await self._history.update(request)
        return pb.UpdateBuildHistoryResponse()

    async def session(self, requests: AsyncIterator[pb.BytesMessage], call: Metadata) -> AsyncIterator[pb.BytesMessage]:
        """Serve a session within a call; what ``POST /session`` has in headers is metadata here."""
        id = call.get("x-docker-expose-session-uuid", "")
        if not id:
            raise invalid("x-docker-expose-session-uuid is required")

        async def serve(sock: socket.socket) -> None:
            await self._sessions.serve(
                sock,
                early=b"",
                id=id,
                name=call.get("x-docker-expose-session-name", ""),
                shared_key=call.get("x-docker-expose-session-sharedkey", ""),
                methods=call.get("x-docker-expose-session-grpc-method", "").split(","),
            )

        async for data in carry((message.data async for message in requests), serve):
            yield pb.BytesMessage(data=data)


def _record_failure(job: Job, error: WharfError) -> WharfError:
    """Return the error for the client and the history."""
    job.error = error.message
    sent = with_details(error)
    job.failure = sent.status if isinstance(sent, Detailed) else b""
    return sent


def _empty_result(job: Job) -> SolvedTarget:
    """Return an image without files, as BuildKit exports a result without a reference."""
    host = oci.host_platform()
    config = ImageConfig.scratch(os=host.os, architecture=host.architecture, variant=host.variant)
    return SolvedTarget(
        job.ref, describe(config, None, {}, now_ns=job.created_ns), oci.format_platform(host), (SCRATCH,)
    )


def _check_count(request: pb.SolveRequest) -> None:
    cache = request.Cache
    attributes = (request.FrontendAttrs, request.ExporterAttrsDeprecated, cache.ExportAttrsDeprecated)
    check_count(*attributes, request.Exporters, request.Entitlements, cache.Exports, cache.Imports)
    check_count((), *(item.Attrs for item in request.Exporters))
    check_count((), *(item.Attrs for item in (*cache.Exports, *cache.Imports)))


def _refuse(request: pb.SolveRequest) -> None:
    """Refuse unsupported requests by name. Raises NOT_IMPLEMENTED, or INVALID_ARGUMENT in BuildKit's words."""
    if operations(request.Definition):
        if request.Frontend:
            raise invalid("cannot solve with both Definition and Frontend specified")
        raise not_implemented("solving a low-level build definition (LLB) is not supported")
    if request.Frontend and request.Frontend != "dockerfile.v0":
        raise not_implemented(f"front end {request.Frontend} is not supported")
    if request.FrontendInputs:
        raise not_implemented("front-end inputs are not supported")
    for item in request.Entitlements:
        if item.split("=")[0] not in ("network.host", "security.insecure"):
            raise not_implemented(f"entitlement {item} is not supported")
    if request.SourcePolicy.rules:
        raise not_implemented("source policies are not supported")
    refuse_exports(request.Cache.Exports)


def _usage(item: Usage) -> pb.UsageRecord:
    record = item.record
    return pb.UsageRecord(
        ID=record.id,
        Mutable=item.mutable,
        InUse=item.in_use,
        Size=record.size,
        CreatedAt=to_timestamp(record.created_ns),
        LastUsedAt=to_timestamp(record.used_ns or time.time_ns()),
        UsageCount=record.uses,
        Description=record.description,
        RecordType=record.kind,
        Shared=item.shared,
        Parents=record.parents,
    )
