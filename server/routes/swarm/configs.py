"""/configs: thin handlers."""

from starlette.requests import Request
from starlette.responses import Response

from api_models.supported import spelled
from api_models.swarm.secret import ConfigSpec
from engine.common.errors import invalid
from server.http import params
from server.http.answers import json_answer, no_content
from server.routes.swarm.common import manager_of, version_of
from server.swarm.operations.secrets import Configs


def _configs(request: Request) -> Configs:
    return manager_of(request).configs


async def listing(request: Request) -> Response:
    return json_answer(_configs(request).list(params.filters(request)))


async def create(request: Request) -> Response:
    spec = await params.body(request, ConfigSpec)
    version = params.version_of(request)
    if spec.templating is not None and version < (1, 37):
        raise invalid(f"config templating is not supported on the specified API version: {spelled(version)}")
    return json_answer({"ID": await _configs(request).create(spec)}, 201)


async def inspect(request: Request) -> Response:
    return json_answer(_configs(request).inspect(request.path_params["id"]))


async def remove(request: Request) -> Response:
    await _configs(request).remove(request.path_params["id"])
    return no_content()


async def update(request: Request) -> Response:
    spec = await params.body(request, ConfigSpec)
    version = version_of(request, "config", reason=False)
    await _configs(request).update(request.path_params["id"], version, spec)
    return no_content(200)
