"""The Engine API's endpoints as one route of a Starlette application."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from api_models.supported import MINIMUM, Version
from engine.common.errors import Kind, WharfError, not_found
from server.access.caller import EVERYONE, Caller
from server.http.errors import status_of
from server.http.hijack import connection_of
from server.http.routing import ApiRoute, Audience, Found, RouteTable
from server.http.versioning import negotiated
from server.messages import message_of

if TYPE_CHECKING:
    from server.access.audit import Entry
    from server.access.gate import Gate
    from server.http.protocol import EngineProtocol

log = logging.getLogger(__name__)

# How many spellings of paths are remembered: there are two methods and some thirty versions.
_INSTANT = 128


class Observe(Protocol):
    """Gets the duration of each request until its handler has returned. ``path``: of the route. ``failed``: it was
    refused, or its client has disconnected."""

    def __call__(self, method: str, path: str, seconds: float, *, failed: bool) -> None: ...


class Endpoints(BaseRoute):
    """All endpoints, each with and without ``/v1.NN`` in front.

    The application has this one route, and not one for each endpoint: Starlette tries its routes one after the other.
    With 226 of them a request of ``/volumes/{name}`` took 72 µs in the application, of ``/containers/{name}/json``
    19 µs; with the look-up by method and first segment both take 10 µs (measured without a handler's work).

    Every path matches: dockerd answers 404 ``page not found`` to unknown paths and to wrong methods.
    """

    def __init__(
        self,
        routes: Iterable[ApiRoute],
        services: object,
        observe: Observe | None = None,
        minimum: Version = MINIMUM,
    ) -> None:
        """``services``: handlers find them as ``request.state.services``. ``observe`` is called when a handler
        has returned. ``minimum``: the oldest version that a path may name."""
        #: Finds callers and their services, on an engine with a policy.
        self.gate: Gate | None = None
        self._services = services
        self._routes = tuple(routes)
        self._table = RouteTable(self._routes)
        self._minimum = minimum
        self._observe = observe
        self._instant: dict[tuple[str, str], Callable[[Any], Response]] = {}

    @property
    def spelled(self) -> tuple[str, ...]:
        """All endpoints, in the form of ``ApiRoute.spelled``."""
        return tuple(route.spelled for route in self._routes)

    def instant(self, method: str, path: str) -> Response | None:
        """The answer of a route that needs nothing of the request (a ping), or None for all others."""
        known = self._instant.get((method, path))
        if known is None and path.endswith("/_ping"):
            found = self._table.find(method, path)
            if found is not None and found.route.instant is not None:
                try:
                    negotiated(found.route, found.version, self._minimum)
                except WharfError:
                    return None
                known = found.route.instant
                if len(self._instant) < _INSTANT:
                    self._instant[method, path] = known
        return known(self._services) if known is not None else None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        found = self._table.find(scope["method"], scope["path"])
        return Match.FULL, {"found": found, "path_params": found.params if found is not None else {}}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """:raises WharfError: NOT_FOUND: no such endpoint; the handler's errors."""
        found: Found | None = scope["found"]
        if found is None:
            raise not_found("page not found")
        route = found.route
        request = Request(scope, receive)
        request.state.version = negotiated(route, found.version, self._minimum)
        request.state.query = route.query
        connection = connection_of(request)
        connection.disconnect_cancels = route.waits
        if self.gate is None:
            request.state.caller, request.state.services = EVERYONE, self._services
            await self._answer(route, request, send)
        else:
            await self._answer_gated(self.gate, route, request, send)

    async def _answer(self, route: ApiRoute, request: Request, send: Send) -> int:
        """Handle the request; return the status: 101 if the handler took the connection over."""
        began, failed = time.monotonic(), True
        try:
            response = await route.handler(request)
            failed = False
        finally:
            if self._observe is not None:
                self._observe(route.method, route.path, time.monotonic() - began, failed=failed)
        if response is None:
            return 101
        await response(request.scope, request.receive, send)
        log.debug("%s %s %s", request.scope["method"], request.scope["path"], response.status_code)
        return response.status_code

    async def _answer_gated(self, gate: Gate, route: ApiRoute, request: Request, send: Send) -> None:
        """The same on an engine with a policy or with scopes of sockets; the audit log gets the result."""
        began_ns = time.time_ns()
        caller: Caller | None = None
        status, problem = 500, ""
        peer = _peer(connection_of(request)) if gate.audit is not None else ""
        try:
            caller = _identified(request.scope) or await gate.caller(connection_of(request))
            _check_access(route, caller)
            with gate.request(caller):
                request.state.caller, request.state.services = caller, gate.services(caller)
                if route.stores:
                    await gate.check_disk(caller.owner)
                status = await self._answer(route, request, send)
        except asyncio.CancelledError:
            status, problem = 499, "the client disconnected"
            raise
        except Exception as error:
            status, problem = status_of(error), message_of(error)
            raise
        finally:
            if gate.audit is not None and (gate.audit.reads or status in (401, 403) or not route.reads):
                gate.audit.write(_entry(request, peer, began_ns, caller, status, problem))


def _identified(scope: Scope) -> Caller | None:
    """The caller that an application in front of this one has identified (the page); None: the connection tells."""
    return scope.get("caller")


def _peer(connection: EngineProtocol) -> str:
    """The path of the unix socket, or the address of the client."""
    sock = connection.transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return str(sock.getsockname())
    return str(connection.transport.get_extra_info("peername")[0])


def _entry(request: Request, peer: str, began_ns: int, caller: Caller | None, status: int, problem: str) -> Entry:
    from server.access.audit import SHOWN, Entry  # loaded: there is an audit log

    return Entry(
        began_ns=began_ns,
        seconds=(time.time_ns() - began_ns) / 1e9,
        caller=caller,
        peer=peer,
        method=request.method,
        path=request.url.path,
        query={name: value for name, value in request.query_params.items() if name in SHOWN},
        status=status,
        error=problem,
    )


def _check_access(route: ApiRoute, caller: Caller) -> None:
    """:raises WharfError: PERMISSION_DENIED: the endpoint is for administrators, or not in the socket's scope."""
    scope = caller.scope
    if scope is not None and not (route.reads if scope.endpoints is None else route.spelled in scope.endpoints):
        raise WharfError(
            Kind.PERMISSION_DENIED, f"the scope {scope.name} of this socket does not allow {route.method} {route.path}"
        )
    if route.audience is Audience.ADMINISTRATORS and not caller.administrator:
        raise WharfError(Kind.PERMISSION_DENIED, f"{route.method} {route.path} is for administrators of this engine")
