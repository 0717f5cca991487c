"""The connections of BuildKit's clients: hijacked ``POST /grpc`` and ``POST /session``, which then carry gRPC."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from engine.api.pb import content_pb2
from engine.api.serving import Server
from engine.common.timeline import current
from server.builder.buildkit.control import Control, Prune, Using, worker
from server.builder.buildkit.frontend import Frontend
from server.builder.buildkit.gateway import BUILD, Gateway
from server.builder.buildkit.platforms import platforms
from server.builder.buildkit.post_build import PostBuild
from server.builder.contexts.contexts import Contexts
from server.builder.exporters.export import Exporters
from server.builder.exporters.files import Files
from server.builder.history.blobs import Blobs
from server.builder.history.history import History
from server.builder.history.records import Records
from server.builder.jobs.job import Job, Jobs, SolvedTarget
from server.builder.neighbours import Images
from server.builder.options import BuildKitOptions
from server.builder.session.pb import control_pb2, gateway_pb2, worker_pb2
from server.builder.session.session import Sessions
from server.builder.solver.builder import Builder
from server.builder.sources.caches import Caches
from server.builder.sources.mirrors import Mirrors
from server.builder.sources.remotes import Remote
from server.builder.sources.sources import Sources
from server.containers.context import ContainerContext
from server.messages import Progress


class BuildKit:
    """``images``: the image operations for builds and exports."""

    def __init__(
        self,
        container_context: ContainerContext,
        images: Images,
        builder: Builder,
        contexts: Contexts,
        usage: Using,
        prune: Prune,
        *,
        root: str,
        worker_id: str,
        version: str,
        host_gateway: Callable[[], str],
    ) -> None:
        self._container_context, self._images, self._builder, self._uploads = (
            container_context,
            images,
            builder,
            contexts,
        )
        self._usage, self._prune = usage, prune
        self._worker_id, self._version, self._host_gateway = worker_id, version, host_gateway
        self.mirrors = Mirrors(os.path.join(root, "mirrors"), builder.cache)
        self._sessions = Sessions()
        #: Running and completed builds.
        self.history = History(Records(os.path.join(root, "history.db")))
        self._caches = Caches(container_context.engine, images)
        self._jobs = Jobs(self.history.contains, self.history.jobs)
        self._files = Files(container_context.engine)
        self._server: Server | None = None
        self._control: Control | None = None
        self._post_build: PostBuild | None = None

    def _workers(self) -> list[worker_pb2.WorkerRecord]:
        return [
            worker(
                self._worker_id,
                version=self._version,
                host_gateway=self._host_gateway(),
                platforms=platforms(),
            )
        ]

    def _get_control(self) -> Control:
        """Control, created on first use."""
        if self._control is None:
            self._control = Control(
                self._container_context,
                self._jobs,
                self._sessions,
                self._solve,
                Exporters(self._container_context.engine, self._images, self._files, self._builder.scratch),
                self._workers,
                self._usage,
                self._prune,
                self.history,
                self._caches,
                self._builder.caller.owner,
            )
        return self._control

    def _get_server(self) -> Server:
        """The server of Control and the gateway, created on first use."""
        if self._server is None:
            control = self._get_control()
            gateway = Gateway(
                self._jobs, self._solve, self._ask, self._fetch, self._resolve, self._files, self._workers
            )
            self._server = Server()
            self._server.add(control_pb2.DESCRIPTOR.services_by_name["Control"], control, dict)
            blobs = Blobs(self.history, self._container_context.engine.content, self._images)
            self._server.add(content_pb2.DESCRIPTOR.services_by_name["Content"], blobs, dict)
            self._server.add(gateway_pb2.DESCRIPTOR.services_by_name["LLBBridge"], gateway, _build_id)
        return self._server

    async def stop(self) -> None:
        """Cancel every build and close every connection."""
        if self._server is not None:
            await self._server.stop()
        await self.history.close()

    async def grpc(self, sock: socket.socket, early: bytes) -> None:
        """Serve a client's calls on a hijacked connection, until it disconnects."""
        await self._get_server().serve(sock, early)

    async def post_build(self, options: BuildKitOptions, body: AsyncIterator[bytes], messages: Progress) -> None:
        """Run ``POST /build?version=2`` (:meth:`PostBuild.build`)."""
        if self._post_build is None:
            self._post_build = PostBuild(self._sessions, self._get_control(), self._host_gateway)
        await self._post_build.build(options, body, messages)

    async def session(
        self, sock: socket.socket, early: bytes, *, id: str, name: str, shared_key: str, methods: Sequence[str]
    ) -> None:
        """Serve a client's session on a hijacked connection, until it disconnects."""
        await self._sessions.serve(sock, early=early, id=id, name=name, shared_key=shared_key, methods=methods)

    async def _solve(self, job: Job, options: dict[str, str]) -> list[SolvedTarget]:
        if self._container_context.shares is not None:
            # Not before the session, whose refusal buildx shows without the reason.
            await self._container_context.shares.check_disk(self._builder.caller.owner)
        with job.timeline.entered():
            return await self._solve_within(job, options)

    async def _solve_within(self, job: Job, options: dict[str, str]) -> list[SolvedTarget]:
        part = current()
        session = await self._sessions.get(job.session)
        part.waited("session", "the client's session")
        job.lease.begin()
        job.options = {key: value for key, value in options.items() if not key.startswith("input")}
        async with Sources(session, self.mirrors, self._uploads, options, self._builder.scratch, job) as sources:
            imports = await self._caches.import_caches(job, session, options)
            # A gateway call runs in a task of its own, which must enter the build's lease.
            await job.lease.enter()
            front = Frontend(self._container_context, self._images, self._builder, job, sources, options, imports)
            return await front.solve()

    async def _ask(self, job: Job, options: dict[str, str]) -> Mapping[str, bytes]:
        session = await self._sessions.get(job.session)
        await job.lease.enter()
        async with Sources(session, self.mirrors, self._uploads, options, self._builder.scratch, job) as sources:
            return await Frontend(self._container_context, self._images, self._builder, job, sources, options).ask()

    async def _fetch(self, job: Job, remote: Remote) -> SolvedTarget:
        session = await self._sessions.get(job.session)
        job.lease.begin()
        async with Sources(session, self.mirrors, self._uploads, {}, self._builder.scratch, job) as sources:
            await job.lease.enter()
            return await Frontend(self._container_context, self._images, self._builder, job, sources, {}).fetch(remote)

    async def _resolve(self, job: Job, ref: str, platform: str) -> tuple[str, bytes]:
        image = await self._images.resolve(ref, platform=platform or None)
        config = await self._container_context.engine.content.read_all(image.manifest["config"]["digest"])
        return image.target.digest, config


def _build_id(metadata: Mapping[str, str]) -> str:
    """Return the build that a call's metadata names."""
    return metadata.get(BUILD, "")
