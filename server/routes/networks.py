"""/networks: thin handlers over ``server/networks``."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models.network import (
    NetworkConnect,
    NetworkCreateRequest,
    NetworkDisconnect,
    NetworkInspect,
    NetworkSummary,
)
from api_models.versions import fills
from server.http import params
from server.http.answers import json_answer, no_content
from server.http.routing import ApiRoute
from server.networks.service import Networks


def _networks(request: Request) -> Networks:
    networks: Networks = request.state.services.networks
    return networks


async def list_networks(request: Request) -> Response:
    version = params.version_of(request)
    containers = fills(NetworkSummary, "containers", version)
    rows = await _networks(request).listing(params.filters(request), containers=containers)
    return json_answer([params.shaped(request, NetworkSummary, row) for row in rows])


async def inspect(request: Request) -> Response:
    networks = _networks(request)
    await networks.ensure_bridge()
    scope, verbose = params.text(request, "scope"), params.flag(request, "verbose")
    shown = await networks.inspect(request.path_params["id"], scope=scope, verbose=verbose)
    return json_answer(params.shaped(request, NetworkInspect, shown))


async def create(request: Request) -> Response:
    body = await params.body(request, NetworkCreateRequest, optional=False)
    network = await _networks(request).create(body)
    return json_answer({"Id": network.id, "Warning": ""}, 201)


async def connect(request: Request) -> Response:
    body = await params.body(request, NetworkConnect, optional=False)
    await _networks(request).connect(request.path_params["id"], body.container, body.endpoint_config)
    return no_content(200)


async def disconnect(request: Request) -> Response:
    body = await params.body(request, NetworkDisconnect, optional=False)
    await _networks(request).disconnect(request.path_params["id"], body.container, force=body.force)
    return no_content(200)


async def remove(request: Request) -> Response:
    await _networks(request).delete(request.path_params["id"])
    return no_content()


async def prune(request: Request) -> Response:
    return json_answer({"NetworksDeleted": await _networks(request).prune(params.filters(request)) or None})


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/networks", list_networks, reads=True),
    ApiRoute("GET", "/networks/", list_networks, reads=True),
    ApiRoute("POST", "/networks/create", create),
    ApiRoute("POST", "/networks/prune", prune, since="1.25"),
    ApiRoute("GET", "/networks/{id}", inspect, reads=True),
    ApiRoute("POST", "/networks/{id}/connect", connect),
    ApiRoute("POST", "/networks/{id}/disconnect", disconnect),
    ApiRoute("DELETE", "/networks/{id}", remove),
)
