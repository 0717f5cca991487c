"""``/wharf/v1/sockets``: job sockets (``server/jobs``).

As in ``server/routes/wharf.py``, handlers import what only engines with a policy need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from api_models.times import rfc3339
from engine.common.errors import conflict
from server.http import params
from server.http.answers import json_answer, no_content
from server.http.routing import ApiRoute

if TYPE_CHECKING:
    from server.jobs.model import Job
    from server.jobs.service import Jobs


def _jobs(request: Request) -> Jobs:
    """:raises WharfError: CONFLICT: the engine has no policy."""
    jobs: Jobs | None = request.state.services.jobs
    if jobs is None:
        raise conflict("this engine has no policy: job sockets need one")
    return jobs


def _show(jobs: Jobs, job: Job) -> dict[str, Any]:
    from api_models.wharf import JobSocket, SocketLimits

    return JobSocket(
        id=job.id,
        path=str(jobs.path(job.id)),
        user=job.user,
        labels=job.labels,
        created=rfc3339(job.created_ns),
        expires=rfc3339(job.expires_ns) if job.expires_ns else "",
        holder=job.holder,
        limits=SocketLimits(**job.limits),
    ).wire()


async def listing(request: Request) -> Response:
    jobs = _jobs(request)
    return json_answer([_show(jobs, job) for job in jobs.visible(request.state.caller)])


async def create(request: Request) -> Response:
    jobs = _jobs(request)
    from api_models.wharf import SocketCreateRequest

    body = await params.body(request, SocketCreateRequest)
    job = await jobs.create(
        request.state.caller,
        labels=body.labels or {},
        ttl=body.ttl,
        holder=body.holder,
        narrowed={name: value for name, value in asdict(body.limits).items() if value is not None},
    )
    return json_answer(_show(jobs, job), 201)


async def remove(request: Request) -> Response:
    await _jobs(request).remove(request.state.caller, request.path_params["id"])
    return no_content()


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/wharf/v1/sockets", listing, reads=True),
    ApiRoute("POST", "/wharf/v1/sockets", create),
    ApiRoute("DELETE", "/wharf/v1/sockets/{id}", remove),
)
