"""/swarm: thin handlers."""

from starlette.requests import Request
from starlette.responses import Response

from api_models.swarm.cluster import InitRequest, JoinRequest, SwarmSpec, UnlockRequest
from server.http import params
from server.http.answers import json_answer, no_content
from server.routes.swarm.common import boolean, manager_of, version_of
from server.swarm.facade import SwarmFacade
from server.swarm.operations.cluster import ClusterOperations, Rotations


def _swarm(request: Request) -> SwarmFacade:
    swarm: SwarmFacade = request.state.services.swarm
    return swarm


def _cluster(request: Request) -> ClusterOperations:
    return manager_of(request).cluster


async def init(request: Request) -> Response:
    return json_answer(await _swarm(request).init(await params.body(request, InitRequest)))


async def join(request: Request) -> Response:
    await _swarm(request).join(await params.body(request, JoinRequest))
    return no_content(200)


async def leave(request: Request) -> Response:
    await _swarm(request).leave(force=params.flag(request, "force"))
    return no_content(200)


async def unlock(request: Request) -> Response:
    await _swarm(request).unlock((await params.body(request, UnlockRequest)).unlock_key)
    return no_content(200)


async def inspect(request: Request) -> Response:
    return json_answer(_cluster(request).inspect())


async def unlock_key(request: Request) -> Response:
    return json_answer({"UnlockKey": _cluster(request).unlock_key()})


async def update(request: Request) -> Response:
    spec = await params.body(request, SwarmSpec)
    version = version_of(request, "swarm")
    rotations = Rotations(
        worker_token=boolean(request, "rotateWorkerToken"),
        manager_token=boolean(request, "rotateManagerToken"),
        unlock_key=boolean(request, "rotateManagerUnlockKey"),
    )
    await _cluster(request).update(version, spec, rotations)
    return no_content(200)
