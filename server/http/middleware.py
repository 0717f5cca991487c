"""Middleware: runs for every request before its endpoint is looked up."""

import posixpath
import urllib.parse

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.common.system import idle


class Activity:
    """Notes when the process was last used: it returns free memory to the kernel while it is idle."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            idle.request_received()


class GoPaths:
    """Answers what Go's router answers by itself: a redirect from an unclean path.

    It comes before the endpoints: a name in a path may have slashes, and would take unclean parts for its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (location := _clean(scope["path"], scope["query_string"])) is not None:
            await Response(b"", 301, {"Location": location})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _clean(path: str, query: bytes) -> str | None:
    """The URL without empty and dotted parts; None if ``path`` has none."""
    if "//" not in path and "/." not in path:
        return None
    clean = "/" + posixpath.normpath(path).lstrip("/")
    if path.endswith("/") and clean != "/":
        clean += "/"
    if clean == path:
        return None
    return urllib.parse.quote(clean) + (f"?{query.decode('latin-1')}" if query else "")
