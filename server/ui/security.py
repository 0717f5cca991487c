"""What comes before every request of the page.

* ``Host`` must be a name of this machine: another name that resolves to it belongs to another site (DNS rebinding).
* A request that changes something, and a websocket, must come from the page itself (``Origin``), and has the session's
  token in ``X-CSRF-Token`` (a websocket can't send headers of its own).
* Everything but the login and the static files needs a session.
* Each response says what a browser may do with it: no script, style, frame or connection but the page's own.

Sources: the HTML standard, Fetch, Content Security Policy Level 3, RFC 6265bis.
"""

import ipaddress
import platform
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.sessions import Session, Sessions

_SAFE = ("GET", "HEAD", "OPTIONS")
#: Paths that need no session, and below them.
_OPEN = ("/login", "/static/")
#: Where a browser without a session is led to the login; other paths are refused.
_DOCUMENTS = ("/",)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors {ancestors}"
)
#: Of documents and scripts.
_PAGE = _POLICY.format(styles="", ancestors="'none'")
#: xterm.js makes style elements. It has a document of its own, which only the page may embed.
_TERMINAL = _POLICY.format(styles=" 'unsafe-inline'", ancestors="'self'")
#: Of the API's answers, some of which have content that a container wrote.
_CONTENT = "default-src 'none'; sandbox; frame-ancestors 'none'"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware. ``names``: under which browsers reach the page, besides addresses and names of this host.
    ``cookie``: the name of the session's cookie. Handlers find the session as ``scope["session"]``."""

    def __init__(self, app: ASGIApp, sessions: Sessions, *, names: Iterable[str], cookie: str) -> None:
        self._app = app
        self._sessions = sessions
        self._names = {"localhost", platform.node().lower(), *(name.lower() for name in names)}
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        headers = Headers(scope=scope)
        extra = _headers_of(path)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in extra.items():
                    found[name] = value
            await send(message)

        refusal = self._refusal(scope, headers, path)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers, path: str) -> Response | None:
        """What is answered instead of the application; None: the request may pass."""
        host = headers.get("host", "")
        if not self._is_own(host):
            return PlainTextResponse(
                "The page is not reached under this name. Add it with --ui-name, or use the address.\n", 421
            )
        websocket = headers.get("upgrade", "").lower() == "websocket"
        safe = scope["method"] in _SAFE and not websocket
        if _is_foreign(headers) or not (safe or _same_origin(headers, host)):
            return PlainTextResponse("This request comes from another site.\n", 403)
        scope["session"] = session = self._session(headers)
        if path.startswith(_OPEN):
            return None
        if session is None:
            return RedirectResponse("/login", 303) if path in _DOCUMENTS else _unauthorized()
        if not (safe or websocket) and not session.confirmed(headers.get("x-csrf-token", "")):
            return PlainTextResponse("The token of this request is missing or belongs to another session.\n", 403)
        return None

    def _is_own(self, host: str) -> bool:
        name = _name_of(host)
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # an address is no name that another site could let resolve to this machine

    def _session(self, headers: Headers) -> Session | None:
        for text in headers.getlist("cookie"):
            try:
                found = SimpleCookie(text).get(self._cookie)
            except CookieError:
                continue
            if found is not None:
                return self._sessions.find(found.value)
        return None


def _unauthorized() -> Response:
    return PlainTextResponse("No session: `wharf ui` prints a link for the login.\n", 401)


def _name_of(host: str) -> str:
    """The name or address in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _same_origin(headers: Headers, host: str) -> bool:
    """Whether the page itself has sent a request: browsers name the origin in all that change something, and in
    handshakes of websockets. Without the scheme: a proxy may add TLS."""
    scheme, _, rest = headers.get("origin", "").partition("://")
    return scheme in ("http", "https") and rest.lower() == host.lower()


def _is_foreign(headers: Headers) -> bool:
    """Whether the browser says that a document of another site has sent a request; a link may be followed."""
    return headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"


def _headers_of(path: str) -> Mapping[str, str]:
    if path.startswith("/api/"):
        return {**_HEADERS, "Content-Security-Policy": _CONTENT, "Cache-Control": "no-store"}
    if path == "/terminal":
        return {**_HEADERS, "Content-Security-Policy": _TERMINAL, "Cache-Control": "no-store"}
    if path.startswith("/static/"):
        # The files change with an upgrade of the engine only; the browser asks whether they did.
        return {**_HEADERS, "Content-Security-Policy": _PAGE, "Cache-Control": "no-cache"}
    return {**_HEADERS, "Content-Security-Policy": _PAGE, "Cache-Control": "no-store"}
