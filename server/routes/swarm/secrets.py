"""/secrets: thin handlers."""

from starlette.requests import Request
from starlette.responses import Response

from api_models.supported import spelled
from api_models.swarm.secret import SecretSpec
from engine.common.errors import invalid
from server.http import params
from server.http.answers import json_answer, no_content
from server.routes.swarm.common import manager_of, version_of
from server.swarm.operations.secrets import Secrets


def _secrets(request: Request) -> Secrets:
    return manager_of(request).secrets


async def listing(request: Request) -> Response:
    return json_answer(_secrets(request).list(params.filters(request)))


async def create(request: Request) -> Response:
    spec = await params.body(request, SecretSpec)
    version = params.version_of(request)
    if spec.templating is not None and version < (1, 37):
        raise invalid(f"secret templating is not supported on the specified API version: {spelled(version)}")
    return json_answer({"ID": await _secrets(request).create(spec)}, 201)


async def inspect(request: Request) -> Response:
    return json_answer(_secrets(request).inspect(request.path_params["id"]))


async def remove(request: Request) -> Response:
    await _secrets(request).remove(request.path_params["id"])
    return no_content()


async def update(request: Request) -> Response:
    spec = await params.body(request, SecretSpec)
    version = version_of(request, "secret", reason=False)
    await _secrets(request).update(request.path_params["id"], version, spec)
    return no_content(200)
