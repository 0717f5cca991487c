"""``POST /grpc`` and ``POST /session``: connections that BuildKit's clients take over for HTTP/2."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from engine.errors import invalid
from server.http.hijack import Hijacked, hijack
from server.http.routing import ApiRoute
from server.services.build.buildkit.service import BuildKit


def _buildkit(request: Request) -> BuildKit:
    found: BuildKit = request.app.state.services.build.buildkit
    return found


async def _upgraded(request: Request) -> Hijacked:
    """The connection, after the answer that HTTP/2 begins. Raises INVALID_ARGUMENT for another protocol."""
    if request.headers.get("upgrade", "").lower() != "h2c":
        raise invalid("no upgrade to h2c was asked for")
    taken = await hijack(request)
    await taken.send(taken.head())
    return taken


async def grpc(request: Request) -> Response | None:
    taken = await _upgraded(request)
    await _buildkit(request).grpc(taken.sock, taken.early)
    return None


async def session(request: Request) -> Response | None:
    headers = request.headers
    id = headers.get("x-docker-expose-session-uuid", "")
    if not id:
        raise invalid("X-Docker-Expose-Session-Uuid header is required")
    taken = await _upgraded(request)
    await _buildkit(request).session(
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
