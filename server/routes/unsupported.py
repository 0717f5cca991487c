"""Endpoints that are refused by name: swarm mode and managed plugins. The sentences are dockerd's."""

from collections.abc import Iterator, Sequence

from starlette.requests import Request
from starlette.responses import Response

from engine.common.errors import Kind, WharfError, not_found, not_implemented
from server.http.answers import json_answer
from server.http.routing import ApiRoute, Audience
from server.swarmtext import NO_MANAGER

_SWARM = (
    *(f"GET /{kind}" for kind in ("services", "tasks")),
    *(f"GET /{kind}/{{id}}" for kind in ("services", "tasks")),
    "DELETE /services/{id}",
    "POST /services/create",
    "POST /services/{id}/update",
    "GET /services/{id}/logs",
    "GET /tasks/{id}/logs",
)


async def no_manager(request: Request) -> Response:
    raise WharfError(Kind.UNAVAILABLE, NO_MANAGER)


async def no_plugins(request: Request) -> Response:
    return json_answer([])


async def no_plugin(request: Request) -> Response:
    raise not_found(f'plugin "{request.path_params["name"]}" not found')


async def no_managed_plugins(request: Request) -> Response:
    raise not_implemented(
        "managed plugins are not part of this engine: volume drivers are found by their sockets in /run/docker/plugins"
    )


def _swarm_routes() -> Iterator[ApiRoute]:
    for text in _SWARM:
        method, path = text.split()
        yield ApiRoute(method, path, no_manager, audience=Audience.ALL)


routes: Sequence[ApiRoute] = (
    *_swarm_routes(),
    ApiRoute("GET", "/plugins", no_plugins, audience=Audience.ALL),
    ApiRoute("GET", "/plugins/privileges", no_managed_plugins, audience=Audience.ALL),
    ApiRoute("POST", "/plugins/pull", no_managed_plugins, audience=Audience.ALL),
    ApiRoute("POST", "/plugins/create", no_managed_plugins, audience=Audience.ALL),
    ApiRoute("GET", "/plugins/{name:path}/json", no_plugin, audience=Audience.ALL),
    *(
        ApiRoute("POST", f"/plugins/{{name:path}}/{verb}", no_plugin, audience=Audience.ALL)
        for verb in ("enable", "disable", "push", "upgrade", "set")
    ),
    ApiRoute("DELETE", "/plugins/{name:path}", no_plugin, audience=Audience.ALL),
)
