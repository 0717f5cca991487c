"""``POST /grpc`` and ``POST /session``: connections that BuildKit's clients upgrade to HTTP/2.

A client that speaks HTTP/2 from its first byte comes to ``POST /grpc`` too (``server.http.protocol``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from engine.common.errors import invalid
from server.builder.facade import BuilderFacade
from server.http.hijack import Hijacked, hijack
from server.http.routing import ApiRoute

if TYPE_CHECKING:
    from server.builder.buildkit.service import BuildKit


def _protocol(request: Request) -> str:
    """Return the protocol of the upgrade: ``h2c``.

    :raises WharfError: INVALID_ARGUMENT: another protocol, or none.
    """
    protocol: str = request.headers.get("upgrade", "")
    if not protocol:
        raise invalid("no upgrade proto in request")
    if protocol != "h2c":
        raise invalid(f"protocol {protocol} not supported")
    return protocol


async def _upgrade(request: Request) -> tuple[BuildKit, Hijacked]:
    """Upgrade the connection; return its server and the connection.

    :raises WharfError: INVALID_ARGUMENT: another protocol. UNAVAILABLE: the builder can't be loaded.
    """
    protocol = _protocol(request)
    facade: BuilderFacade = request.state.services.build
    builds = await facade.builds()
    taken = await hijack(request)
    # Some clients omit ``Connection: Upgrade``.
    taken.upgrade = protocol
    await taken.send(taken.head())
    return builds.buildkit, taken


async def grpc(request: Request) -> Response | None:
    buildkit, taken = await _upgrade(request)
    await buildkit.grpc(taken.sock, taken.early)
    return None


async def session(request: Request) -> Response | None:
    headers = request.headers
    id = headers.get("x-docker-expose-session-uuid", "")
    _protocol(request)
    if not id:
        raise invalid("X-Docker-Expose-Session-Uuid header is required")
    buildkit, taken = await _upgrade(request)
    await buildkit.session(
        taken.sock,
        taken.early,
        id=id,
        name=headers.get("x-docker-expose-session-name", ""),
        shared_key=headers.get("x-docker-expose-session-sharedkey", ""),
        methods=headers.getlist("x-docker-expose-session-grpc-method"),
    )
    return None


routes: Sequence[ApiRoute] = (
    ApiRoute("POST", "/grpc", grpc, since="1.38"),
    ApiRoute("POST", "/session", session, since="1.28"),
)
