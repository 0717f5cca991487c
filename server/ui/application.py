"""The page's ASGI application."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from engine.common.errors import WharfError
from server.app import EngineApp
from server.config import Config
from server.config.hosts import parse_page
from server.containers.model import Container
from server.http.errors import error_body, report, status_of
from server.ui import compose, documents, live, login, logs
from server.ui.history import History
from server.ui.passwords import Passwords
from server.ui.problems import Problems
from server.ui.sampler import Sampler
from server.ui.security import Guard

if TYPE_CHECKING:
    from server.access.sessions import Sessions
    from server.wiring import Services

#: Headers that are for the page, not for the API or its authorization plugins.
_OWN_HEADERS = (b"cookie", b"x-csrf-token")


class Page:
    """Serves the page. ``engine``: the API's application, for what is below ``/api``. ``sessions``: who has logged in.

    Use it within ``async with``.
    """

    #: For the protocol class: any number of connections is served, and no request without a call of the application.
    admission = None

    def __init__(self, engine: EngineApp, services: Services, sessions: Sessions, config: Config) -> None:
        self.engine = engine
        self.sessions = sessions
        self.history = History()
        self.sampler = Sampler(services.containers, services.networks.interfaces, self.history)
        self.problems = Problems()
        self.passwords = Passwords()
        self.composer = compose.Composer(config.hosts)
        self.cookie = _cookie_name(config)
        self._services = services
        self._stack = AsyncExitStack()
        pages = Starlette(
            routes=[
                Route("/", documents.page),
                Route("/terminal", documents.terminal),
                Route("/login", login.show, methods=["GET"]),
                Route("/login", login.enter, methods=["POST"]),
                Route("/logout", login.leave, methods=["POST"]),
                Route("/live", live.stream),
                Route("/history", live.machine_history),
                Route("/history/{id}", live.history),
                Route("/trends", live.trends),
                Route("/logs", logs.stream),
                Route("/logsizes", live.log_sizes),
                Route("/problems", live.problems),
                Route("/compose", compose.run, methods=["POST"]),
                Mount("/static", StaticFiles(packages=[("server.ui", "static")])),
            ],
            exception_handlers={
                WharfError: _failed,
                OSError: _failed,
                Exception: _failed,
                HTTPException: _refused,
                ClientDisconnect: _left,
            },
        )
        pages.state.page = self
        self._pages = pages
        self._guard = Guard(self._dispatch, sessions, names=config.ui_names, cookie=self.cookie)

    async def __aenter__(self) -> Page:
        self.problems.attach()
        self._stack.callback(self.problems.close)
        hooks = self._services.containers.hooks
        hooks.removed.append(self._removed)
        self._stack.callback(hooks.removed.remove, self._removed)
        sampling = asyncio.create_task(self.sampler.run(), name="samples of the page")
        self._stack.push_async_callback(asyncio.wait, (sampling,))
        self._stack.callback(sampling.cancel)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def _removed(self, container: Container) -> None:
        self.history.forget(container.id)

    def instant(self, method: str, path: str) -> Response | None:
        return None

    @property
    def has_policy(self) -> bool:
        """Whether the engine knows users."""
        gate = self.engine.gate
        return gate is not None and gate.policy is not None

    def services(self, request: Request) -> Services:
        """The services for the caller of a session."""
        services: Any = self.engine.services_for(request.scope["session"].caller)
        found: Services = services
        return found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guard(scope, receive, send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/api/"):
            await self.engine(_api_scope(scope), receive, send)
        else:
            await self._pages(scope, receive, send)


def _api_scope(scope: Scope) -> Scope:
    """The same request as one of the API, by the session's caller."""
    return {
        **scope,
        "path": scope["path"].removeprefix("/api"),
        "raw_path": scope["raw_path"].removeprefix(b"/api"),
        "headers": [(name, value) for name, value in scope["headers"] if name not in _OWN_HEADERS],
        "caller": scope["session"].caller,
    }


def _cookie_name(config: Config) -> str:
    """Browsers keep cookies by host, not by port: the pages of two engines on one machine have different names."""
    host = parse_page(config.ui)
    return f"wharf_ui_{host.port}" if host.port else "wharf_ui"


async def _failed(request: Request, error: Exception) -> Response:
    report(error, f"page: {request.method} {request.url.path}")
    return Response(error_body(error), status_of(error), media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, another method."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"message": error.detail}, error.status_code, dict(error.headers or {}))


async def _left(request: Request, error: Exception) -> Response:
    return Response(b"", 499)
