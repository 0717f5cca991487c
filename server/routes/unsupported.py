"""Endpoints that are refused by name: managed plugins. The sentences are dockerd's."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from engine.common.errors import not_found, not_implemented
from server.http.answers import json_answer
from server.http.routing import ApiRoute, Audience


async def no_plugins(request: Request) -> Response:
    return json_answer([])


async def no_plugin(request: Request) -> Response:
    raise not_found(f'plugin "{request.path_params["name"]}" not found')


async def no_managed_plugins(request: Request) -> Response:
    raise not_implemented(
        "managed plugins are not part of this engine: volume drivers are found by their sockets in /run/docker/plugins"
    )


routes: Sequence[ApiRoute] = (
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
