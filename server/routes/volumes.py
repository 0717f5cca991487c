"""/volumes: thin handlers over ``server/volumes``."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models import changes
from api_models.filters import Filters
from api_models.volume import VolumeCreateRequest
from engine.common.errors import Kind, WharfError
from server.http import params
from server.http.answers import json_answer, no_content
from server.http.routing import ApiRoute
from server.swarmtext import NO_MANAGER
from server.volumes import query
from server.volumes.service import Volumes


def _volumes(request: Request) -> Volumes:
    volumes: Volumes = request.state.services.volumes
    return volumes


async def list_volumes(request: Request) -> Response:
    return json_answer(await query.listing(_volumes(request), params.filters(request)))


async def create(request: Request) -> Response:
    body = await params.body(request, VolumeCreateRequest)
    if body.cluster_volume_spec is not None:
        raise WharfError(Kind.UNAVAILABLE, NO_MANAGER)
    volumes = _volumes(request)
    volume = await volumes.create(body.name, body.driver, options=body.driver_opts, labels=body.labels)
    return json_answer(query.show(volumes, volume), 201)


async def inspect(request: Request) -> Response:
    volumes = _volumes(request)
    return json_answer(query.show(volumes, await volumes.inspect(request.path_params["name"])))


async def update(request: Request) -> Response:
    raise WharfError(Kind.UNAVAILABLE, "volume update only valid for cluster volumes, but swarm is unavailable")


async def remove(request: Request) -> Response:
    await _volumes(request).remove(request.path_params["name"], force=params.flag(request, "force"))
    return no_content()


async def prune(request: Request) -> Response:
    filters = params.filters(request)
    if not params.has(request, changes.PRUNE_KEEPS_NAMED_VOLUMES) and "all" not in filters:
        filters = Filters({**{key: filters.get(key) for key in filters}, "all": ("true",)})
    return json_answer(await query.prune(_volumes(request), filters))


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/volumes", list_volumes, reads=True),
    ApiRoute("POST", "/volumes/create", create, stores=True),
    ApiRoute("POST", "/volumes/prune", prune, since="1.25"),
    ApiRoute("GET", "/volumes/{name:path}", inspect, reads=True),
    ApiRoute("PUT", "/volumes/{name:path}", update, since="1.42"),
    ApiRoute("DELETE", "/volumes/{name:path}", remove),
)
