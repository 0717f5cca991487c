"""The ASGI application: a Starlette application whose routes are the endpoints.

A handler hijacks a connection through the ASGI extension ``connection`` (``server.http.hijack``); nothing is sent
through ASGI afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api_models.supported import MINIMUM, Version
from engine.common.errors import WharfError
from server.http.endpoints import Endpoints, Observe
from server.http.errors import error_body, report, status_of
from server.http.hijack import ClientGone, connection_of
from server.http.middleware import Activity, GoPaths
from server.http.routing import ApiRoute
from server.http.streams import BrokenStream

if TYPE_CHECKING:
    from server.access.caller import Caller
    from server.access.gate import Gate
    from server.access.sessions import Sessions
    from server.http.admission import Admission
    from server.http.authorization import AuthorizedEndpoints
    from server.plugins.discovery import Plugins

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
    """All routes over one set of services, which handlers find as ``request.state.services``."""

    def __init__(
        self,
        routes: Iterable[ApiRoute],
        services: object,
        observe: Observe | None = None,
        minimum: Version = MINIMUM,
    ) -> None:
        """``observe``: see ``Endpoints``. ``minimum``: the oldest API version that clients may name."""
        self._endpoints = Endpoints(routes, services, observe, minimum)
        super().__init__(
            routes=[self._endpoints],
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
        self.instant = self._endpoints.instant
        self._authorized: AuthorizedEndpoints | None = None
        #: The logins to the page; None: the engine serves none.
        self.sessions: Sessions | None = None

    def close(self) -> None:
        """Writes the rest of the audit log. Call it after the last request."""
        if self.gate is not None:
            self.gate.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All endpoints, in the form of ``ApiRoute.spelled``."""
        return self._endpoints.spelled

    @property
    def gate(self) -> Gate | None:
        """Finds the callers of an engine with a policy."""
        return self._endpoints.gate

    @gate.setter
    def gate(self, gate: Gate | None) -> None:
        self._endpoints.gate = gate

    def services_for(self, caller: Caller) -> object:
        """The services as a request of this caller gets them."""
        return self.gate.services(caller) if self.gate is not None else self.state.services

    @property
    def admission(self) -> Admission | None:
        """Bounds the connections of an engine with a policy."""
        gate = self._endpoints.gate
        return gate.connections if gate is not None else None

    async def authorize(self, names: Sequence[str], plugins: Plugins | None = None) -> None:
        """Let these authorization plugins allow or deny every request from now on; without names, none does.

        ``plugins``: finds them; by default in the usual directories.
        :raises WharfError: a plugin is missing or fails, and nothing changes.
        """
        if not names:
            if self._authorized is not None:
                self._authorized.plugins = None
                self._authorized = None
            self.instant = self._endpoints.instant
            self.router.routes[:] = [self._endpoints]
            return
        # Here: without plugins, these modules cost nothing.
        from server.http.authorization import AuthorizedEndpoints
        from server.plugins.authorization import AuthorizationPlugins
        from server.plugins.discovery import Plugins

        chain = AuthorizationPlugins(names, plugins or Plugins())
        await chain.check()
        if self._authorized is None:
            self._authorized = AuthorizedEndpoints(self._endpoints, chain)
        self._authorized.plugins = chain
        self.instant = _never_instant
        self.router.routes[:] = [self._authorized]


def _never_instant(method: str, path: str) -> Response | None:
    """Every request is shown to the plugins."""
    return None
