"""The ASGI application: finds the route, settles the version, calls the handler, turns errors into answers."""

import logging
import posixpath
import time
import urllib.parse
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.common.errors import WharfError, not_found
from engine.common.system import rest
from server.http.errors import error_body, report, status_of
from server.http.hijack import ClientGone, connection_of
from server.http.routing import ApiRoute, Match, RouteTable
from server.http.streams import BrokenStream
from server.http.versioning import negotiated

log = logging.getLogger(__name__)

# How many spellings of paths are remembered: there are two methods and some thirty versions.
_INSTANT = 128


def error_answer(error: BaseException) -> Response:
    """An error as dockerd sends it. 304 has no body."""
    status = status_of(error)
    if status == 304:
        return Response(b"", 304)
    return Response(error_body(error), status, media_type="application/json")


def _elsewhere(path: str, query: bytes) -> Response | None:
    """A path with empty or dotted parts is redirected to the clean one, as Go's router does; None if it is clean."""
    if "//" not in path and "/." not in path:
        return None
    clean = "/" + posixpath.normpath(path).lstrip("/")
    if path.endswith("/") and clean != "/":
        clean += "/"
    if clean == path:
        return None
    location = urllib.parse.quote(clean) + (f"?{query.decode('latin-1')}" if query else "")
    return Response(b"", 301, {"Location": location})


class EngineApp:
    """All routes over one set of services, which handlers find as ``request.app.state.services``."""

    def __init__(
        self, routes: Iterable[ApiRoute], services: Any, timed: Callable[[str, str, float], None] | None = None
    ) -> None:
        """``timed`` is told (method, path of the route, seconds) of each request that ended well."""
        self._timed = timed
        self.table = RouteTable(routes)
        self.state = SimpleNamespace(services=services)
        self._instant: dict[tuple[str, str], Response] = {}

    def instant(self, method: str, path: str) -> Response | None:
        """The answer of a route that needs nothing of the request (a ping), or None for all others."""
        known = self._instant.get((method, path))
        if known is None and path.endswith("/_ping"):
            match = self.table.find(method, path)
            if match is not None and match.route.instant is not None:
                try:
                    negotiated(match.route, match.version)
                except WharfError:
                    return None
                known = match.route.instant
                if len(self._instant) < _INSTANT:
                    self._instant[method, path] = known
        return known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        request = Request(scope, receive)
        name = f"{scope['method']} {scope['path']}"
        try:
            response = await self._answer(request)
            if response is not None:
                await response(scope, receive, watched)
                log.debug("%s %s", name, response.status_code)
        except (ClientDisconnect, ClientGone):
            log.debug("%s: the client left in the middle of its request", name)
        except BrokenStream:
            raise
        except Exception as error:
            report(error, name)
            if started:
                raise BrokenStream from error
            if not connection_of(request).taken:
                await error_answer(error)(scope, receive, send)
        finally:
            rest.touched()

    async def _answer(self, request: Request) -> Response | None:
        method, path = request.scope["method"], request.scope["path"]
        if method == "OPTIONS":
            return Response(b"", 200)
        # First: a name in a path may have slashes, and would take such parts for its own.
        elsewhere = _elsewhere(path, request.scope["query_string"])
        if elsewhere is not None:
            return elsewhere
        match: Match | None = self.table.find(method, path)
        if match is None:
            raise not_found("page not found")
        request.state.version = negotiated(match.route, match.version)
        request.state.query = match.route.query
        request.scope["path_params"] = match.params
        connection_of(request).leaving_cancels = match.route.waits
        if self._timed is None:
            return await match.route.handler(request)
        began = time.monotonic()
        response = await match.route.handler(request)
        self._timed(match.route.method, match.route.path, time.monotonic() - began)
        return response
