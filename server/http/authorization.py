"""Authorization plugins in front of the endpoints (``server/plugins/authorization.py``).

A request is handled when all plugins allow it, and its response is sent when all allow that, too:

* A response in one piece is withheld until then, and so are archives of up to 64 KiB. After a denial the client gets
  an error instead.
* A stream is sent as it comes. The plugins are asked at its end, as by dockerd; after a denial its last message is the
  error.
* A connection that was taken over (attach, exec, BuildKit) has no HTTP response; a denial is logged.
* An error is answered whatever the plugins say; they are shown a response without a status.

A body is shown if its type is JSON, except credentials (``/auth``). A request with a larger body than 4 MiB is refused:
the plugins see exactly the bytes that the handler parses, or the handler sees none.

Imported when the first plugin is configured.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from engine.common import jsontext
from engine.common.errors import WharfError, invalid
from server.http.endpoints import Endpoints
from server.http.errors import error_body
from server.plugins.authorization import AuthorizationPlugins, AuthorizedRequest, AuthorizedResponse

log = logging.getLogger(__name__)

#: Bytes of a request body: dockerd's limit.
MAX_BODY = 4 * 1024 * 1024
# Bytes of an archive that are withheld: dockerd's limit.
_WITHHELD = 64 * 1024
_ARCHIVE = b"application/x-tar"
_JSON = "application/json"
# dockerd's pattern, on the decoded path.
_CREDENTIALS = re.compile(r"/(v\d[\d.]*/)?auth")
_SECRET = frozenset((b"authorization", b"x-registry-config", b"x-registry-auth"))
# Go's server removes them from a request's headers.
_FRAMING = frozenset((b"host", b"transfer-encoding", b"trailer"))


class AuthorizedEndpoints(BaseRoute):
    """The endpoints behind plugins. ``plugins`` may be replaced; ``None``: there are none any more."""

    def __init__(self, endpoints: Endpoints, plugins: AuthorizationPlugins) -> None:
        self.plugins: AuthorizationPlugins | None = plugins
        self._endpoints = endpoints
        self._reports: set[asyncio.Task[None]] = set()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return self._endpoints.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """:raises WharfError: PERMISSION_DENIED: a plugin denies the request or its response; INTERNAL: a plugin fails;
        INVALID_ARGUMENT: the body is too large to be shown; the errors of the endpoint."""
        plugins = self.plugins
        if plugins is None or scope["found"] is None:
            # Nobody handles an unknown path, and dockerd answers it without its plugins.
            await self._endpoints.handle(scope, receive, send)
            return
        # A client that leaves while the plugins are asked ends a waiting request, which would never notice it.
        scope["extensions"]["connection"].disconnect_cancels = scope["found"].route.waits
        body = b""
        if shows_body(scope, _header(scope["headers"], b"content-type")):
            body = await _whole_body(receive)
            receive = _replay(body, receive)
        request = _request(scope, body)
        try:
            await plugins.authorize_request(request)
        except WharfError as error:
            log.warning("AuthZRequest for %s %s returned error: %s", request.method, request.uri, error.message)
            raise
        response = _Response(scope, send)
        try:
            await self._endpoints.handle(scope, receive, response.send)
        except asyncio.CancelledError:
            # The usual end of a stream: its client has disconnected. This task must end.
            report = asyncio.get_running_loop().create_task(self._report(request, response.shown_as_error()))
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)
            raise
        except Exception:
            await self._report(request, response.shown_as_error())
            raise
        await self._finish(request, response)

    async def _finish(self, request: AuthorizedRequest, response: "_Response") -> None:
        try:
            # A reload may have replaced the plugins, even those that this response would have to wait for.
            if self.plugins is not None:
                await self.plugins.authorize_response(request, response.shown())
        except WharfError as error:
            log.warning("AuthZResponse for %s %s returned error: %s", request.method, request.uri, error.message)
            if not response.started:
                raise
            await response.end(error_body(error))
        else:
            await response.release()

    async def _report(self, request: AuthorizedRequest, response: AuthorizedResponse) -> None:
        """Shows the plugins a response that they can't deny."""
        try:
            if self.plugins is not None:
                await self.plugins.authorize_response(request, response)
        except WharfError as error:
            log.warning("AuthZResponse for %s %s returned error: %s", request.method, request.uri, error.message)


class _Response:
    """Withholds the messages of a response: all of one in one piece or of a short archive, the last one of a stream."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._messages: list[Message] = []
        self._size = 0
        #: Whether the client has got the head.
        self.started = False

    async def send(self, message: Message) -> None:
        self._messages.append(message)
        if message.get("more_body", False):
            self._size += len(message.get("body", b""))
            if self.started or self._size > _WITHHELD or not self._is_archive():
                await self.release()

    def _is_archive(self) -> bool:
        return _header(self._messages[0]["headers"], b"content-type") == _ARCHIVE.decode()

    async def release(self) -> None:
        """Sends what was withheld."""
        messages, self._messages = self._messages, []
        for message in messages:
            self.started = True
            await self._send(message)

    async def end(self, body: bytes) -> None:
        """Ends a stream with this body."""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def shown(self) -> AuthorizedResponse:
        """What the plugins are shown: nothing of a stream, the common headers of a connection that was taken over."""
        if self.started or not self._messages:
            return self.shown_as_error()
        start, *parts = self._messages
        headers: list[tuple[bytes, bytes]] = list(start["headers"])
        body = b""
        if shows_body(self._scope, _header(headers, b"content-type")):
            body = b"".join(bytes(part.get("body", b"")) for part in parts)
        # dockerd's server adds the length after its plugins.
        own = [(name, value) for name, value in headers if name != b"content-length"]
        return AuthorizedResponse(start["status"], _headers([*self._common(), *own]), body)

    def shown_as_error(self) -> AuthorizedResponse:
        """The same for an error, whose status and body are decided later: the common headers if it is the response."""
        return AuthorizedResponse() if self.started else AuthorizedResponse(headers=_headers(self._common()))

    def _common(self) -> list[tuple[bytes, bytes]]:
        return list(self._scope["extensions"]["connection"].server_state.default_headers)


def shows_body(scope: Scope, content_type: str) -> bool:
    """Whether plugins are shown a body of this type. True for each type that :func:`params.check_json` accepts."""
    media = content_type.partition(";")[0].strip().lower()
    return media == _JSON and _CREDENTIALS.match(scope["path"]) is None


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    """The first value, which the handlers use as well, or ""."""
    return next((value.decode("latin-1") for name, value in headers if name == wanted), "")


def _headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers in Go's spelling, the last value of each, without credentials."""
    return {
        "-".join(part.capitalize() for part in name.decode("latin-1").split("-")): jsontext.text(value)
        for name, value in headers
        if name.lower() not in _SECRET
    }


def _request(scope: Scope, body: bytes) -> AuthorizedRequest:
    connection = scope["extensions"]["connection"]
    user, certificates = _identity(connection.transport.get_extra_info("ssl_object"))
    return AuthorizedRequest(
        method=scope["method"],
        uri=jsontext.text(connection.url),
        user=user,
        headers=_headers((name, value) for name, value in scope["headers"] if name not in _FRAMING),
        body=body,
        certificates=certificates,
    )


def _identity(tls: ssl.SSLObject | None) -> tuple[str, list[str]]:
    """The common name in the client's verified certificate, and its certificates in PEM."""
    leaf = tls.getpeercert(binary_form=True) if tls is not None else None
    if tls is None or leaf is None:
        return "", []
    subject: Mapping[str, Any] = tls.getpeercert() or {}
    names = [value for part in subject.get("subject", ()) for name, value in part if name == "commonName"]
    # Python 3.13 knows the chain that the client sent.
    chain = getattr(tls, "get_unverified_chain", None)
    certificates = chain() if chain is not None else [leaf]
    return names[-1] if names else "", [ssl.DER_cert_to_PEM_cert(each) for each in certificates]


async def _whole_body(receive: Receive) -> bytes:
    """Receives the body.

    :raises WharfError: INVALID_ARGUMENT: it is larger than ``MAX_BODY``.
    :raises ClientDisconnect: the client disconnected.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise invalid(f"request body too large for authorization plugin: size exceeds {MAX_BODY} bytes")
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Yields the whole body to the handler once, then what the connection reports."""
    pending = [body]

    async def next_message() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return next_message
