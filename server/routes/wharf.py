"""``/wharf/v1``, the API beside Docker's: what engines with a policy have. Handlers import what only these need.

Each endpoint is described in ``server/routes/described.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from engine.common import limits
from engine.common.errors import conflict, invalid
from server.http import params
from server.http.answers import json_answer
from server.http.jsonstreams import NDJSON
from server.http.routing import ApiRoute, Audience
from server.http.streams import byte_stream
from server.routes import gpus, job_sockets, timelines, ui

if TYPE_CHECKING:
    from server.access.audit import AuditLog
    from server.access.gate import Gate
    from server.access.policy import Policy
    from server.shares.accounting import Accounting
    from server.shares.service import Shares

# Without a parameter: lines of the audit log, days of accounts.
_LINES, _DAYS = 50, 7


def _gate(request: Request) -> Gate | None:
    gate: Gate | None = request.app.gate
    return gate


def _policy(request: Request) -> Policy:
    """:raises WharfError: CONFLICT: the engine has no policy."""
    gate = _gate(request)
    if gate is None or gate.policy is None:
        raise conflict("this engine has no policy: all of its clients are administrators")
    return gate.policy


def _audit(request: Request) -> AuditLog:
    """:raises WharfError: CONFLICT: the engine has no policy or no audit log."""
    _policy(request)
    gate = _gate(request)
    if gate is None or gate.audit is None:
        raise conflict("this engine has no audit log: its policy has no table [audit]")
    return gate.audit


async def users(request: Request) -> Response:
    policy = _policy(request)
    from server.system import overview

    services = request.state.services
    owned = await overview.owned(services.containers, services.networks, services.volumes, services.images)
    rows = await overview.users(policy, request.state.caller, owned)
    return json_answer([row.wire() for row in rows])


async def policy(request: Request) -> Response:
    found = _policy(request)
    from server.system import overview

    return json_answer(overview.caller_policy(found, request.state.caller).wire())


async def audit(request: Request) -> Response:
    log = _audit(request)
    count = params.number(request, "n", _LINES) or 0
    if count < 0:
        raise invalid(f"n: {count} is no number of lines")
    if count > limits.AUDIT_LINES:
        raise limits.exceeded("AUDIT_LINES", "the number of lines")
    follow = params.flag(request, "follow")
    lines = log.read(count, params.text(request, "user"), follow=follow)
    return byte_stream(_ended(lines), media_type=NDJSON, early=follow, name="audit")


async def _ended(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield line + b"\n"


def _accounting(request: Request) -> Accounting:
    """:raises WharfError: CONFLICT: the engine has no policy."""
    shares: Shares | None = request.state.services.shares
    if shares is None:
        raise conflict("this engine has no policy: without one, it keeps no accounts")
    return shares.accounting


async def usage(request: Request) -> Response:
    accounting = _accounting(request)
    days = params.number(request, "days", _DAYS) or 0
    if days < 1:
        raise invalid(f"days: {days} is no number of days")
    if days > limits.USAGE_DAYS:
        raise limits.exceeded("USAGE_DAYS", "the number of days")
    from server.shares import report

    containers = params.flag(request, "containers")
    rows = await report.usage(accounting, request.state.caller, days, containers=containers)
    return json_answer([row.wire() for row in rows])


async def openapi(request: Request) -> Response:
    from server.routes import described

    return json_answer(described.document((*routes, *gpus.routes, *job_sockets.routes, *timelines.routes, *ui.routes)))


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/wharf/v1/users", users, reads=True),
    ApiRoute("GET", "/wharf/v1/policy", policy, reads=True),
    ApiRoute("GET", "/wharf/v1/usage", usage, reads=True),
    # Not for sockets that only read, unless their scope names it; and who reads the log is in the log.
    ApiRoute("GET", "/wharf/v1/audit", audit, waits=True, audience=Audience.ADMINISTRATORS),
    ApiRoute("GET", "/wharf/v1/openapi.json", openapi, audience=Audience.ALL, reads=True),
)
