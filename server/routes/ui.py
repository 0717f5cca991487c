"""What the page needs beside Docker's API; other clients may use it, too.

``/wharf/v1/ui/login`` makes a link to the page, for one login with the caller's identity. Beside it: a directory of a
container, a websocket of an exec, the layers of all images, and the history of builds.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from api_models.times import rfc3339
from engine.common.errors import conflict
from server.config.hosts import parse_page
from server.containers.archive import service as archive
from server.containers.exec.service import Exec
from server.containers.service import Containers
from server.containers.stdio.client import Client
from server.http import params
from server.http.answers import json_answer
from server.http.routing import ApiRoute
from server.http.streams import byte_stream
from server.routes.exec import read_size

if TYPE_CHECKING:
    from server.access.sessions import Sessions
    from server.builder.history.history import History


async def login(request: Request) -> Response:
    sessions: Sessions | None = request.app.sessions
    if sessions is None:
        raise conflict("this engine serves no page: start wharfd with --ui 127.0.0.1:9780")
    from api_models.wharf import PageLogin  # here: with the first request, as in server/routes/wharf.py

    host = parse_page(request.state.services.system.config.ui)
    path = f"/login#{sessions.offer(request.state.caller)}"
    if host.scheme == "unix":
        return json_answer(PageLogin(socket=host.path, path=path).wire(), 201)
    return json_answer(PageLogin(url=f"http://{host.authority}{path}", path=path).wire(), 201)


async def files(request: Request) -> Response:
    from api_models.wharf import Directory, DirectoryEntry

    containers: Containers = request.state.services.containers
    key = request.path_params["name"]
    path = params.text(request, "path") or "/"
    entries, more = await archive.read_directory(containers.context, containers.get(key), key, path)
    answer = Directory(
        truncated=more,
        entries=tuple(
            DirectoryEntry(
                name=entry.name,
                type=entry.kind,
                size=entry.size,
                mode=entry.mode,
                uid=entry.uid,
                gid=entry.gid,
                modified=rfc3339(entry.mtime_ns),
                target=entry.target,
            )
            for entry in entries
        ),
    )
    return json_answer(answer.wire())


async def exec_websocket(request: Request) -> Response | None:
    """Starts an exec whose input and output are the messages of a websocket."""
    from server.http.websocket import relayed  # loads wsproto, which nothing else needs

    service: Exec = request.state.services.exec
    id: str = request.path_params["id"]
    service.get_active(id)
    size = read_size(request)
    async with relayed(request) as sock:
        await service.start(id, client=Client(sock, b""), framed=False, console_size=size)
    return None


async def layers(request: Request) -> Response:
    from api_models.wharf import ImageLayer, ImageLayers

    found = await request.state.services.images.list.layers()
    return json_answer(
        [
            ImageLayers(id=digest, layers=tuple(ImageLayer(id=chain, size=size) for chain, size in chains)).wire()
            for digest, chains in found.items()
        ]
    )


async def _history(request: Request) -> "History":
    builds = await request.state.services.build.builds()
    history: History = builds.buildkit.history
    return history


async def builds(request: Request) -> Response:
    from api_models.wharf import Build

    if request.state.services.build.loaded is None:
        return json_answer([])  # no build yet: the builder is not loaded for a list
    from server.builder.history.summary import summaries

    rows = await summaries(await _history(request))
    return json_answer(
        [
            Build(
                ref=row.ref,
                name=row.name,
                state=row.state,
                began=rfc3339(row.began_ns),
                ended=rfc3339(row.ended_ns) if row.ended_ns else "",
                steps=row.steps,
                cached_steps=row.cached,
                error=row.error,
            ).wire()
            for row in rows
        ]
    )


async def build_log(request: Request) -> Response:
    from server.builder.history.summary import text_log

    lines = text_log(await _history(request), request.path_params["id"])
    return byte_stream(_encoded(lines), media_type="text/plain; charset=utf-8", name="log of a build")


async def _encoded(parts: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part.encode()


routes: Sequence[ApiRoute] = (
    # A socket that only reads gives a page that only reads.
    ApiRoute("POST", "/wharf/v1/ui/login", login, reads=True),
    # As GET /containers/{name}/archive: not for sockets that only read.
    ApiRoute("GET", "/wharf/v1/containers/{name}/files", files),
    ApiRoute("GET", "/wharf/v1/exec/{id}/ws", exec_websocket),
    ApiRoute("GET", "/wharf/v1/images/layers", layers, reads=True),
    ApiRoute("GET", "/wharf/v1/builds", builds, reads=True),
    ApiRoute("GET", "/wharf/v1/builds/{id}/log", build_log, reads=True),
)
