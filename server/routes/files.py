"""Files of containers: archive (``docker cp``), export, changes."""

import base64
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models.times import rfc3339
from engine.common.errors import invalid
from server.containers.archive import service
from server.containers.archive.tree import PathStat
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.service import Containers
from server.http import params
from server.http.answers import dumps_escaped, json_answer
from server.http.bodies import pieces
from server.http.routing import ApiRoute
from server.http.streams import byte_stream

STAT_HEADER = "X-Docker-Container-Path-Stat"


def _get_container(request: Request) -> tuple[ContainerContext, Container]:
    containers: Containers = request.state.services.containers
    return containers.context, containers.get(_key(request))


def _key(request: Request) -> str:
    key: str = request.path_params["name"]
    return key


def _path(request: Request) -> str:
    path = params.text(request, "path")
    if not path:
        raise invalid("bad parameter: path")
    return path


def _stat_header(found: PathStat) -> dict[str, str]:
    document = {
        "name": found.name,
        "size": found.size,
        "mode": found.mode,
        "mtime": rfc3339(found.mtime_ns),
        "linkTarget": found.link_target,
    }
    return {STAT_HEADER: base64.b64encode(dumps_escaped(document)).decode()}


async def head(request: Request) -> Response:
    context, container = _get_container(request)
    return Response(headers=_stat_header(await service.stat_path(context, container, _key(request), _path(request))))


async def get(request: Request) -> Response:
    context, container = _get_container(request)
    found, packed = await service.get(context, container, _key(request), _path(request))
    return byte_stream(packed, media_type="application/x-tar", headers=_stat_header(found))


async def put(request: Request) -> Response:
    context, container = _get_container(request)
    await service.put(
        context,
        container,
        _key(request),
        _path(request),
        pieces(request),
        no_overwrite_kind=params.flag(request, "noOverwriteDirNonDir"),
        to_user=params.flag(request, "copyUIDGID"),
    )
    return Response()


async def export(request: Request) -> Response:
    context, container = _get_container(request)
    return byte_stream(await service.export(context, container))


async def changes(request: Request) -> Response:
    context, container = _get_container(request)
    return json_answer(await service.diff(context, container) or None)


routes: Sequence[ApiRoute] = (
    ApiRoute("HEAD", "/containers/{name}/archive", head),
    ApiRoute("GET", "/containers/{name}/archive", get),
    ApiRoute("PUT", "/containers/{name}/archive", put, stores=True),
    ApiRoute("GET", "/containers/{name}/export", export),
    ApiRoute("GET", "/containers/{name}/changes", changes, reads=True),
)
