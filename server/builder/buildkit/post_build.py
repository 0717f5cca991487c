"""``POST /build?version=2``: a BuildKit build with its context in the request's body, at a URL or in a session.

The response is BuildKit's status in messages of the classic stream, which old CLIs, dockerode and testcontainers read.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid
from server.builder.buildkit.control import Control
from server.builder.options import BuildKitOptions, ClassicOptions
from server.builder.session.pb import control_pb2 as pb
from server.builder.session.session import Session, Sessions
from server.builder.sources.sources import UPLOADED
from server.messages import Progress, error_message

UPLOAD = timeouts.define("build.upload", 5.0)
"""How long a build waits for the second request with its context, and the other way round."""
SESSION_FILES = "client-session"
"""The ``remote`` of a build whose files come from its session."""
UPLOAD_REQUEST = "upload-request"
"""Prefix of the ``remote`` of a build whose context comes in a second request; its ``buildid`` follows."""
BODY = f"{UPLOADED}body"
IMAGES = ("moby", "image")
"""Exporters that store an image in this engine."""


class BodySession(Session):
    """The session of a build with its context in a request's body; other calls go to the client's session, if any."""

    def __init__(self, body: AsyncIterator[bytes], real: Session | None) -> None:
        super().__init__(
            id=f"body-{secrets.token_hex(12)}",
            name=real.name if real else "",
            shared_key=real.shared_key if real else "",
            methods=real.methods if real else frozenset(),
            carrier=real.carrier if real else None,
        )
        self._body = body

    async def upload(self, path: str) -> AsyncIterator[bytes]:
        """Yield the body; such a build requests no other upload."""
        async for piece in self._body:
            yield piece


class _Upload:
    def __init__(self) -> None:
        self.body: asyncio.Future[AsyncIterator[bytes]] = asyncio.get_running_loop().create_future()
        self.taken, self.finished = asyncio.Event(), asyncio.Event()


class Uploads:
    """Contexts that arrive in a second request, by the id of their build."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Upload] = {}

    async def offer(self, id: str, body: AsyncIterator[bytes]) -> None:
        """Pass a body to the build of that id; return when the build has finished reading.

        :raises WharfError: CONFLICT if the build has a context; DEADLINE_EXCEEDED if no build takes it.
        """
        upload = self._waiting.setdefault(id, _Upload())
        if upload.body.done():
            raise WharfError(Kind.CONFLICT, f"build {id} has its context already")
        upload.body.set_result(body)
        try:
            async with _limit():
                await upload.taken.wait()
            await upload.finished.wait()
        finally:
            if self._waiting.get(id) is upload:
                del self._waiting[id]

    @asynccontextmanager
    async def take(self, id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Provide the body for a build during the block.

        :raises WharfError: DEADLINE_EXCEEDED if no body arrives.
        """
        upload = self._waiting.setdefault(id, _Upload())
        try:
            async with _limit():
                body = await asyncio.shield(upload.body)
            upload.taken.set()
            yield body
        finally:
            upload.finished.set()
            if self._waiting.get(id) is upload:
                del self._waiting[id]


@asynccontextmanager
async def _limit() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(UPLOAD):
            yield
    except TimeoutError:
        raise WharfError(Kind.DEADLINE_EXCEEDED, "context deadline exceeded") from None


class PostBuild:
    """Runs the builds of ``POST /build?version=2``."""

    def __init__(self, sessions: Sessions, control: Control, host_gateway: Callable[[], str]) -> None:
        self._sessions, self._control, self._host_gateway = sessions, control, host_gateway
        self._uploads = Uploads()

    async def build(self, options: BuildKitOptions, body: AsyncIterator[bytes], messages: Progress) -> None:
        """Run a build and put its response into ``messages``; a failure is the last message.

        :raises WharfError: an error before the first message.
        """
        build_id, remote = options.common.build_id, options.common.remote
        if build_id.startswith(f"{UPLOAD_REQUEST}:"):
            await self._uploads.offer(build_id.removeprefix(f"{UPLOAD_REQUEST}:"), body)
            return
        request = to_request(options, self._host_gateway)
        async with AsyncExitStack() as stack:
            if remote == UPLOAD_REQUEST:
                body, remote = await stack.enter_async_context(self._uploads.take(build_id)), ""
            if remote == SESSION_FILES:
                if not options.session:
                    raise invalid("could not access local files without session")
                request.Session = options.session
            else:
                request.FrontendAttrs["context"] = remote or BODY
                session = BodySession(body, await self._real(options.session))
                stack.enter_context(self._sessions.registered(session))
                request.Session = session.id
            await self._run(request, options, messages)

    async def _real(self, id: str) -> Session | None:
        """Return the client's session. As in dockerd, a missing session fails only the steps that need it."""
        try:
            return await self._sessions.get(id) if id else None
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None

    async def _run(self, request: pb.SolveRequest, options: BuildKitOptions, messages: Progress) -> None:
        quiet = options.common.quiet
        solving = asyncio.create_task(self._control.solve(request, {}), name=f"build {request.Ref}")
        try:
            async for status in self._control.status(pb.StatusRequest(Ref=request.Ref), {}):
                if not quiet:
                    aux = base64.b64encode(status.SerializeToString()).decode()
                    await messages.put({"id": "moby.buildkit.trace", "aux": aux})
            response = (await solving).ExporterResponse
        except WharfError as error:
            await messages.put(error_message(error))
            return
        finally:
            solving.cancel()
            await asyncio.gather(solving, return_exceptions=True)
        if all(item.Type not in IMAGES for item in request.Exporters):
            return
        id = response["containerimage.digest"]
        await messages.put({"stream": f"{id}\n"} if quiet else {"id": "moby.image.id", "aux": {"ID": id}})


def to_request(options: BuildKitOptions, host_gateway: Callable[[], str]) -> pb.SolveRequest:
    """Convert the query to a request of BuildKit's, without context and session.

    :raises WharfError: INVALID_ARGUMENT in dockerd's words.
    """
    common = options.common
    if len(options.outputs) > 1:
        raise invalid("multiple outputs not supported")
    if common.network_mode not in ("", "default", "host", "none"):
        raise invalid(f'network mode "{common.network_mode}" not supported by buildkit')
    request = pb.SolveRequest(Ref=secrets.token_hex(12), Frontend="dockerfile.v0")
    request.FrontendAttrs.update(_attributes(common, host_gateway))
    kind, attributes = next(iter(options.outputs), ("moby", {}))
    if kind != "cacheonly":
        exporter = request.Exporters.add(Type=kind)
        exporter.Attrs.update(attributes)
        if kind in IMAGES and common.tags:
            exporter.Attrs["name"] = ",".join(common.tags)
    if (common.build_args.get("BUILDKIT_INLINE_CACHE") or "").lower() in ("1", "t", "true"):
        request.Cache.Exports.add(Type="inline")
    if common.network_mode == "host":
        request.Entitlements.append("network.host")
    return request


def _attributes(common: ClassicOptions, host_gateway: Callable[[], str]) -> dict[str, str]:
    """Return the front end's options (server.builder.jobs.options)."""
    limits = common.limits
    found = {
        "target": common.target,
        "filename": "" if common.dockerfile == "." else common.dockerfile,
        "platform": common.platform,
        "cache-from": ",".join(common.cache_from),
        "force-network-mode": common.network_mode if common.network_mode in ("host", "none") else "",
        "add-hosts": ",".join(_host(item, host_gateway) for item in limits.extra_hosts),
        "shm-size": str(limits.shm_size) if limits.shm_size > 0 else "",
        "ulimit": ",".join(f"{name}={soft}:{hard}" for name, soft, hard in limits.ulimits),
        "image-resolve-mode": "pull" if common.pull else "default",
    }
    found = {key: value for key, value in found.items() if value}
    found |= {f"build-arg:{name}": value for name, value in common.build_args.items() if value is not None}
    found |= {f"label:{name}": value for name, value in common.labels.items()}
    if common.no_cache:
        found["no-cache"] = ""
    return found


def _host(item: str, host_gateway: Callable[[], str]) -> str:
    name, _, address = item.partition(":")
    if not name or not address:
        raise invalid(f"invalid host {item}")
    if address == "host-gateway":
        address = host_gateway()
        if not address:
            raise invalid("unable to derive the IP value for host-gateway")
    return f"{name}={address}"
