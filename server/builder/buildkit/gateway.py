"""moby.buildkit.v1.frontend.LLBBridge: serves the part of a build that runs in the client.

buildx builds in this way only: it solves ``dockerfile.v0`` through the gateway and returns the result. The metadata of
every call names its build.
"""

from collections.abc import Awaitable, Callable, Mapping

from engine.common.errors import WharfError, invalid, not_found, not_implemented
from server.builder.buildkit.frontend import platforms_json
from server.builder.exporters.files import Files
from server.builder.jobs.failure import disk_full_error, with_details
from server.builder.jobs.inputs import definition, operations, result_named
from server.builder.jobs.job import Job, Jobs, SolvedTarget
from server.builder.jobs.options import check_count
from server.builder.session.pb import caps_pb2, gateway_pb2, worker_pb2
from server.builder.sources import remotes
from server.builder.sources.remotes import Remote, remote
from server.registry import oci

BUILD = "buildkit-controlapi-buildid"

CAPS = (
    "solve.base",
    "solve.inlinereturn",
    "solve.platform",
    "resolveimage",
    "resolveimage.resolvemode",
    "return",
    "returnmap",
    "proto.refarray",
    "readfile",
    "readdir",
    "statfile",
    "importcaches",
    "frontend.inputs",
    "frontend.caps",
    "gateway.solve.metadata",
    "gateway.evaluate",
    "gateway.solve.evaluate",
    "gateway.warnings",
    "reference.output",
)
"""The capabilities of :class:`Gateway`, by the names that clients check."""

Solve = Callable[[Job, dict[str, str]], Awaitable[list[SolvedTarget]]]
Ask = Callable[[Job, dict[str, str]], Awaitable[Mapping[str, bytes]]]
Fetch = Callable[[Job, Remote], Awaitable[SolvedTarget]]
Resolve = Callable[[Job, str, str], Awaitable[tuple[str, bytes]]]


class Gateway:
    """The servicer. ``call``: the id of the build. ``solve`` runs the built-in front end, ``ask`` its subrequests;
    ``fetch`` fetches remote sources, ``resolve`` returns an image's digest and configuration, ``files`` reads
    results."""

    def __init__(
        self,
        jobs: Jobs,
        solve: Solve,
        ask: Ask,
        fetch: Fetch,
        resolve: Resolve,
        files: Files,
        workers: Callable[[], list[worker_pb2.WorkerRecord]],
    ) -> None:
        self._jobs, self._solve, self._resolve, self._files, self._workers = jobs, solve, resolve, files, workers
        self._ask, self._fetch = ask, fetch

    async def _job(self, call: str) -> Job:
        if not call:
            raise invalid("no buildid found in context")
        job = await self._jobs.get(call)
        if job is None or job.ended:
            raise not_found(f"no such job {call}")
        return job

    async def ping(self, request: gateway_pb2.PingRequest, call: str) -> gateway_pb2.PongResponse:
        await self._job(call)
        caps = [caps_pb2.APICap(ID=name, Enabled=True) for name in CAPS]
        names = ("exporter.image.attestations", *remotes.CAPS)
        low = [caps_pb2.APICap(ID=name, Enabled=True) for name in names]
        return gateway_pb2.PongResponse(FrontendAPICaps=caps, LLBCaps=low, Workers=self._workers())

    async def solve(self, request: gateway_pb2.SolveRequest, call: str) -> gateway_pb2.SolveResponse:
        job = await self._job(call)
        try:
            return await self._run_solve(job, request)
        except WharfError as error:
            raise with_details(error) from error
        except OSError as error:
            raise disk_full_error(error) or error from error

    async def _run_solve(self, job: Job, request: gateway_pb2.SolveRequest) -> gateway_pb2.SolveResponse:
        check_count(request.FrontendOpt, request.FrontendInputs)
        for name, given in request.FrontendInputs.items():
            if not operations(given):
                raise invalid("invalid nil input definition to definition op")
            job.inputs[name] = self._jobs.result(result_named(operations(given)))
        if request.Frontend and operations(request.Definition):
            raise invalid("cannot solve with both Definition and Frontend specified")
        if not request.Frontend:
            if operations(request.Definition):
                fetched = await self._fetch(job, remote(request.Definition))
                job.add_result(fetched)
                return gateway_pb2.SolveResponse(result=encode_results([fetched]))
            return gateway_pb2.SolveResponse(result=gateway_pb2.Result())
        if request.Frontend not in ("dockerfile.v0", "gateway.v0"):
            raise not_implemented(f"front end {request.Frontend} is not supported")
        for policy in request.SourcePolicies:
            if policy.rules:
                raise not_implemented("source policies are not supported")
        options = dict(request.FrontendOpt)
        if request.Frontend == "gateway.v0" and "source" not in options:
            raise invalid("front end gateway.v0 needs a source")
        if options.get("requestid"):
            return gateway_pb2.SolveResponse(result=gateway_pb2.Result(metadata=await self._ask(job, options)))
        made = await self._solve(job, options)
        for item in made:
            job.add_result(item)
        return gateway_pb2.SolveResponse(result=encode_results(made))

    async def return_(self, request: gateway_pb2.ReturnRequest, call: str) -> gateway_pb2.ReturnResponse:
        (await self._job(call)).set_outcome(request)
        return gateway_pb2.ReturnResponse()

    async def inputs(self, request: gateway_pb2.InputsRequest, call: str) -> gateway_pb2.InputsResponse:
        await self._job(call)
        return gateway_pb2.InputsResponse()

    async def evaluate(self, request: gateway_pb2.EvaluateRequest, call: str) -> gateway_pb2.EvaluateResponse:
        # Results are complete when a solve returns, so there is nothing to evaluate.
        (await self._job(call)).result(request.Ref)
        return gateway_pb2.EvaluateResponse()

    async def warn(self, request: gateway_pb2.WarnRequest, call: str) -> gateway_pb2.WarnResponse:
        from server.builder.session.pb import control_pb2

        warning = control_pb2.VertexWarning(
            vertex=request.digest,
            level=request.level,
            short=request.short,
            detail=request.detail,
            url=request.url,
            info=request.info,
            ranges=request.ranges,
        )
        (await self._job(call)).send(control_pb2.StatusResponse(warnings=[warning]))
        return gateway_pb2.WarnResponse()

    async def resolve_image_config(
        self, request: gateway_pb2.ResolveImageConfigRequest, call: str
    ) -> gateway_pb2.ResolveImageConfigResponse:
        job = await self._job(call)
        platform = request.Platform
        text = "/".join(filter(None, (platform.OS, platform.Architecture, platform.Variant)))
        digest, config = await self._resolve(job, request.Ref, text)
        return gateway_pb2.ResolveImageConfigResponse(Digest=digest, Config=config, Ref=request.Ref)

    async def read_file(self, request: gateway_pb2.ReadFileRequest, call: str) -> gateway_pb2.ReadFileResponse:
        made = await self._readable_result(call, request.Ref)
        span = request.Range if request.HasField("Range") else None
        data = await self._files.read(
            made.documents.chain_id, request.FilePath, span.Offset if span else 0, span.Length if span else 0
        )
        return gateway_pb2.ReadFileResponse(Data=data)

    async def read_dir(self, request: gateway_pb2.ReadDirRequest, call: str) -> gateway_pb2.ReadDirResponse:
        made = await self._readable_result(call, request.Ref)
        entries = await self._files.list(made.documents.chain_id, request.DirPath, request.IncludePattern)
        return gateway_pb2.ReadDirResponse(entries=entries)

    async def stat_file(self, request: gateway_pb2.StatFileRequest, call: str) -> gateway_pb2.StatFileResponse:
        made = await self._readable_result(call, request.Ref)
        return gateway_pb2.StatFileResponse(stat=await self._files.stat(made.documents.chain_id, request.Path))

    async def _readable_result(self, call: str, ref: str) -> SolvedTarget:
        """Return a result for reading files, under the build's lease: it keeps the view of the result."""
        job = await self._job(call)
        await job.lease.enter()
        return job.result(ref)


def encode_results(made: list[SolvedTarget]) -> gateway_pb2.Result:
    """Convert the front end's results for the client."""
    result = gateway_pb2.Result()
    if len(made) == 1:
        _fill(result.ref, made[0])
        result.metadata["containerimage.config"] = made[0].documents.config
        return result
    for item in made:
        _fill(result.refs.refs[item.platform], item)
        result.metadata[f"containerimage.config/{item.platform}"] = item.documents.config
    result.metadata["refs.platforms"] = platforms_json(made)
    return result


def _fill(ref: gateway_pb2.Ref, made: SolvedTarget) -> None:
    ref.id = made.id
    whole = getattr(ref, "def")
    for operation in definition(made.id):
        getattr(whole, "def").append(operation)
        # Clients expect metadata for each operation, even empty.
        whole.metadata[oci.digest_of(operation)].SetInParent()


def returned_results(job: Job, result: gateway_pb2.Result) -> list[SolvedTarget]:
    """Return the results that the client returned, to be exported; an empty list if it returned none."""
    kind = result.WhichOneof("result")
    if kind == "ref":
        return [job.result(result.ref.id)] if result.ref.id else []
    if kind == "refDeprecated":
        return [job.result(result.refDeprecated)] if result.refDeprecated else []
    if kind == "refs":
        return _sorted(job, [item.id for item in result.refs.refs.values() if item.id])
    if kind == "refsDeprecated":
        return _sorted(job, [item for item in result.refsDeprecated.refs.values() if item])
    return []


def _sorted(job: Job, ids: list[str]) -> list[SolvedTarget]:
    """Sort results by creation, so that the index is reproducible: a protobuf map has no order."""
    order = {id: number for number, id in enumerate(job.made)}
    return [job.result(id) for id in sorted(ids, key=lambda id: order.get(id, len(order)))]
