"""The ASGI application of a port: finds the route, checks who calls, answers errors as ``{"kind", "message"}``."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.common import timeouts
from engine.common.errors import WharfError, invalid, not_found
from server.http.admission import Connection
from server.http.errors import report, status_of
from server.swarm.remote import wire
from server.swarmapi.caller import Access, Caller, caller_of

timeouts.define("swarm.body", 30.0)  # until the body of a request has come

#: The most connections to a port, and from one address: a node has a few.
_CONNECTIONS, _OF_ADDRESS = 20_000, 1000


@dataclass(frozen=True, slots=True)
class Call:
    """A request of a node. ``params``: the parts of the path."""

    request: Request
    caller: Caller
    params: Mapping[str, str]

    async def body(self) -> dict[str, Any]:
        """:raises WharfError: INVALID_ARGUMENT: no JSON object, or too long; DEADLINE_EXCEEDED."""
        parts, size = [], 0
        async with timeouts.limit("swarm.body"):
            async for part in self.request.stream():
                size += len(part)
                if size > wire.MAX_REQUEST:
                    raise invalid(f"the body of the request has more than {wire.MAX_REQUEST} bytes")
                parts.append(part)
        return wire.load(b"".join(parts))


@dataclass(frozen=True, slots=True)
class Route:
    """``path``: parameters in braces. ``access``: who may call it."""

    method: str
    path: str
    access: Access
    handler: Callable[[Call], Awaitable[Response]]


#: Raises PERMISSION_DENIED, if the caller has not this access.
Check = Callable[[Caller, Access], Awaitable[None]]


class Connections:
    """Bounds the connections: whoever reaches the port can open some without a certificate."""

    def __init__(self) -> None:
        self._addresses: dict[Connection, str] = {}
        self._count: Counter[str] = Counter()

    def opened(self, connection: Connection) -> None:
        peer = connection.transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if len(self._addresses) >= _CONNECTIONS or self._count[address] >= _OF_ADDRESS:
            connection.transport.abort()
            return
        self._addresses[connection] = address
        self._count[address] += 1

    def closed(self, connection: Connection) -> None:
        address = self._addresses.pop(connection, None)
        if address is not None:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]


class SwarmApp:
    """Implements ``server.http.application.Application``."""

    def __init__(self, routes: Sequence[Route], check: Check) -> None:
        self.admission = Connections()
        self._routes = [
            (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[\\w:.-]{1,256})", each.path)), each) for each in routes
        ]
        self._check = check

    def instant(self, method: str, path: str) -> Response | None:
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Exception as error:
            report(error, f"{request.method} {scope['path']}")
            response = json_answer(wire.error_document(error), status_of(error))
            # What remains of the body isn't read.
            response.headers["connection"] = "close"
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        route, params = self._find(request.method, request.scope["path"])
        caller = caller_of(request)
        await self._check(caller, route.access)
        return await route.handler(Call(request, caller, params))

    def _find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        for pattern, route in self._routes:
            if route.method == method and (found := pattern.fullmatch(path)) is not None:
                return route, found.groupdict()
        raise not_found("page not found")


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[\\w:.-]{1,256})", path))


def json_answer(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


def unexpected(error: Exception) -> WharfError:
    """A document with fields of wrong types."""
    return invalid(f"malformed request: {error}")
