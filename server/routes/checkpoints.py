"""Checkpoints of containers: endpoints of an experimental daemon."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models.container import CheckpointRequest
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run import checkpoint
from server.containers.service import Containers
from server.http import params
from server.http.answers import json_answer, no_content
from server.http.routing import ApiRoute, Audience


def _get_container(request: Request) -> tuple[ContainerContext, Container, str]:
    containers: Containers = request.state.services.containers
    checkpoint.check_enabled(containers.context)
    key: str = request.path_params["name"]
    return containers.context, containers.get(key), key


async def listing(request: Request) -> Response:
    _, container, key = _get_container(request)
    return json_answer(checkpoint.listing(container, params.text(request, "dir"), key))


async def create(request: Request) -> Response:
    context, container, key = _get_container(request)
    body = await params.body(request, CheckpointRequest)
    leave = not body.exit
    await checkpoint.create(context, container, key, body.checkpoint_id, body.checkpoint_dir, leave=leave)
    return Response(status_code=201)


async def remove(request: Request) -> Response:
    _, container, key = _get_container(request)
    await checkpoint.remove(container, request.path_params["checkpoint"], params.text(request, "dir"), key)
    return no_content()


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/containers/{name}/checkpoints", listing, since="1.25", audience=Audience.ADMINISTRATORS),
    ApiRoute("POST", "/containers/{name}/checkpoints", create, since="1.25", audience=Audience.ADMINISTRATORS),
    ApiRoute(
        "DELETE", "/containers/{name}/checkpoints/{checkpoint}", remove, since="1.25", audience=Audience.ADMINISTRATORS
    ),
)
