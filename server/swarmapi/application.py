"""The ASGI application of a port: finds the route, checks who calls, answers errors as ``{"kind", "message"}``."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.common import timeouts
from engine.common.errors import WharfError, invalid, not_found
from server.http.errors import status_of
from server.swarm.remote import wire
from server.swarmapi.caller import Access, Caller, caller_of
from server.swarmapi.streams import log_failure

timeouts.define("swarm.body", 30.0)  # until the body of a request has come

#: The most bytes of the body of a request without a certificate.
_MAX_STRANGERS_REQUEST = 256 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """A request of a node. ``params``: the parts of the path."""

    request: Request
    caller: Caller
    params: Mapping[str, str]

    async def body(self) -> dict[str, Any]:
        """:raises WharfError: INVALID_ARGUMENT: no JSON object, or too long; DEADLINE_EXCEEDED."""
        parts, size = [], 0
        most = wire.MAX_REQUEST if self.caller.node_id else _MAX_STRANGERS_REQUEST
        async with timeouts.limit("swarm.body"):
            async for part in self.request.stream():
                size += len(part)
                if size > most:
                    raise invalid(f"the body of the request has more than {most} bytes")
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


class SwarmApp:
    def __init__(self, routes: Sequence[Route], check: Check) -> None:
        self._routes = [
            (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[\\w:.-]{1,256})", each.path)), each) for each in routes
        ]
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            caller = caller_of(request)
            response = await self._answer(request, caller)
            closes = not caller.node_id
        except ClientDisconnect:
            return
        except Exception as error:
            log_failure(error, f"{request.method} {scope['path']}")
            response = json_answer(wire.error_document(error), status_of(error))
            # What remains of the body isn't read.
            closes = True
        if closes:
            # A stranger keeps no idle connection.
            response.headers["connection"] = "close"
        await response(scope, receive, send)

    async def _answer(self, request: Request, caller: Caller) -> Response:
        route, params = self._find(request.method, request.scope["path"])
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
