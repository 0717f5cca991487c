"""``/_ping``, ``/version``, ``/info``, ``/system/df``: thin handlers over ``server/system``."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api_models.system import DiskUsage, Info
from api_models.versions import Since
from server.http import params
from server.http.answers import json_answer
from server.http.routing import EVERY_PATH, ApiRoute, Audience
from server.system.service import System

#: ``Builder-Version: 2``: clients build with BuildKit's protocol.
_PING = {
    "Builder-Version": "2",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


def _system(request: Request) -> System:
    system: System = request.state.services.system
    return system


@cache
def _pong(swarm: str, body: bytes) -> Response:
    """``swarm``: this node's state in the swarm."""
    return Response(body, 200, {**_PING, "Swarm": swarm}, media_type="text/plain")


def _answer_get(services: Any) -> Response:
    return _pong(services.swarm.status, b"OK")


def _answer_head(services: Any) -> Response:
    return _pong(services.swarm.status, b"")


async def ping(request: Request) -> Response:
    answer = _answer_get if request.method == "GET" else _answer_head
    return answer(request.state.services)


async def options(request: Request) -> Response:
    return Response(b"", 200)


async def version(request: Request) -> Response:
    return json_answer(await _system(request).version())


async def info(request: Request) -> Response:
    return json_answer(params.shaped(request, Info, await _system(request).info()))


async def disk_usage(request: Request) -> Response:
    verbose = params.flag(request, "verbose")
    usage = await _system(request).disk_usage(params.texts(request, "type"), verbose=verbose)
    return json_answer(params.shaped(request, DiskUsage, usage))


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/_ping", ping, instant=_answer_get, audience=Audience.ALL, reads=True),
    ApiRoute("HEAD", "/_ping", ping, instant=_answer_head, audience=Audience.ALL, reads=True),
    ApiRoute("OPTIONS", EVERY_PATH, options, audience=Audience.ALL, reads=True),
    ApiRoute("GET", "/version", version, audience=Audience.ALL, reads=True),
    ApiRoute("GET", "/info", info, reads=True),
    ApiRoute(
        "GET",
        "/system/df",
        disk_usage,
        waits=True,
        query={"type": Since((1, 42)), "verbose": Since((1, 52))},
        reads=True,
    ),
)
