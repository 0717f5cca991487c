"""``/wharf/v1/gpus`` and ``/wharf/v1/queue``: the allocation of GPUs (``server/gpus``).

As in ``server/routes/wharf.py``, handlers import what only engines with a policy need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from api_models.times import rfc3339
from engine.common.errors import conflict
from server.containers.service import Containers
from server.http.answers import json_answer
from server.http.routing import ApiRoute

if TYPE_CHECKING:
    from server.gpus.service import Gpus


def _gpus(request: Request) -> Gpus:
    """:raises WharfError: CONFLICT: the engine has no policy."""
    gpus: Gpus | None = request.state.services.gpus
    if gpus is None:
        raise conflict("this engine has no policy: without one, it allocates no GPUs")
    return gpus


def _name(request: Request, id: str) -> str:
    """The name of a container that exists for the caller."""
    containers: Containers = request.state.services.containers
    found = containers.visible.by_id(id) if id else None
    return found.name if found is not None else ""


async def gpus(request: Request) -> Response:
    service = _gpus(request)
    from api_models.wharf import Gpu, GpuHolder

    rows = [
        Gpu(
            name=row.name,
            names=row.names,
            partition=row.partition,
            shared=row.shared,
            holders=tuple(
                GpuHolder(
                    user=holder.user,
                    since=rfc3339(holder.since_ns),
                    container=holder.container,
                    container_name=_name(request, holder.container),
                )
                for holder in row.holders
            ),
        )
        for row in await service.gpus()
    ]
    return json_answer([row.wire() for row in rows])


async def queue(request: Request) -> Response:
    service = _gpus(request)
    from api_models.wharf import QueueEntry

    rows = [
        QueueEntry(
            place=row.place,
            user=row.user,
            gpus=row.gpus,
            counts=row.counts,
            since=rfc3339(row.since_ns),
            reason=row.reason,
            container=row.container,
            container_name=_name(request, row.container),
        )
        for row in service.queue()
    ]
    return json_answer([row.wire() for row in rows])


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/wharf/v1/gpus", gpus, reads=True),
    ApiRoute("GET", "/wharf/v1/queue", queue, reads=True),
)
