"""/nodes: thin handlers."""

from starlette.requests import Request
from starlette.responses import Response

from api_models.swarm.node import NodeSpec
from server.http import params
from server.http.answers import json_answer, no_content
from server.routes.swarm.common import manager_of, version_of
from server.swarm.operations.nodes import Nodes


def _nodes(request: Request) -> Nodes:
    return manager_of(request).objects.nodes


async def list_nodes(request: Request) -> Response:
    return json_answer(_nodes(request).list(params.filters(request)))


async def inspect(request: Request) -> Response:
    return json_answer(_nodes(request).inspect(request.path_params["id"]))


async def remove(request: Request) -> Response:
    await _nodes(request).remove(request.path_params["id"], force=params.flag(request, "force"))
    return no_content(200)


async def update(request: Request) -> Response:
    spec = await params.body(request, NodeSpec)
    await _nodes(request).update(request.path_params["id"], version_of(request, "node"), spec)
    return no_content(200)
