"""The ASGI application: a Starlette application whose routes are the endpoints.

A handler hijacks a connection through the ASGI extension ``connection`` (``server.http.hijack``); nothing is sent
through ASGI afterwards.
"""

import logging
from collections.abc import Callable, Iterable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.common.errors import WharfError
from server.http.endpoints import Endpoints
from server.http.errors import error_body, report, status_of
from server.http.hijack import ClientGone, connection_of
from server.http.middleware import Activity, GoPaths
from server.http.routing import ApiRoute
from server.http.streams import BrokenStream

log = logging.getLogger(__name__)


class _Nothing(Response):
    """Send nothing: the client has disconnected, or the connection was hijacked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        return


def _name(request: Request) -> str:
    return f"{request.scope['method']} {request.scope['path']}"


async def _failed(request: Request, error: Exception) -> Response:
    """Return an error as dockerd sends it. 304 has no body."""
    if isinstance(error, BrokenStream):
        return _Nothing()  # reported by the stream; the server drops the connection
    report(error, _name(request))
    if connection_of(request).detached:
        return _Nothing()
    status = status_of(error)
    if status == 304:
        return Response(b"", 304)
    return Response(error_body(error), status, media_type="application/json")


async def _left(request: Request, error: Exception) -> Response:
    log.debug("%s: the client left in the middle of its request", _name(request))
    return _Nothing()


class EngineApp(Starlette):
    """All routes over one set of services, which handlers find as ``request.app.state.services``."""

    def __init__(
        self, routes: Iterable[ApiRoute], services: object, observe: Callable[[str, str, float], None] | None = None
    ) -> None:
        """``observe`` is called with (method, path of the route, seconds) for each request that succeeded."""
        endpoints = Endpoints(routes, observe)
        super().__init__(
            routes=[endpoints],
            middleware=[Middleware(Activity), Middleware(GoPaths)],
            exception_handlers={
                WharfError: _failed,
                OSError: _failed,
                ClientDisconnect: _left,
                ClientGone: _left,
                # An internal error. Starlette raises it again after the answer; the server handles that.
                Exception: _failed,
            },
        )
        self.state.services = services
        #: For the protocol class, which answers pings without calling the application.
        self.instant = endpoints.instant
