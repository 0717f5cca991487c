"""The route table: maps methods and paths to handlers.

A path is literal text with parameters: ``{name}`` matches one segment, ``{name:path}`` matches anything, slashes
included (image names). The first matching route in the order of the table answers, as in dockerd.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from re import Pattern
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api_models.supported import Version, parse_version
from api_models.versions import QueryMark
from server.access.scope import spelled_endpoint

Handler = Callable[[Request], Awaitable[Response | None]]


class Audience(Enum):
    """Who may call an endpoint, of an engine with a policy."""

    #: Everybody. The service answers for the objects that exist for the caller, and nothing else.
    OWNERS = auto()
    #: Everybody. The answer is the same for all, and tells nothing of anybody.
    ALL = auto()
    #: Administrators.
    ADMINISTRATORS = auto()


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One endpoint.

    ``since``: the API version that introduced it; older clients get 400. ``until``: the last version that has it.
    ``waits``: the handler may wait for long and a disconnect cancels it (streams, wait, pull, attach). Any other
    handler runs to its end, even if the client disconnects. A handler returns its response, or None if it took the
    connection over. ``query``: the query parameters that depend on the version, by name.
    ``instant``: makes the response of a handler that needs nothing of the request; it gets the services. ``audience``:
    who may call it. ``reads``: it shows lists, attributes, events or logs and changes nothing, so that sockets which
    only read allow it. ``stores``: it makes what uses disk space of its owner, and is refused when the owner has no
    more.
    """

    method: str
    path: str
    handler: Handler
    since: str = "1.24"
    until: str | None = None
    waits: bool = False
    query: Mapping[str, QueryMark] = field(default_factory=dict)
    instant: Callable[[Any], Response] | None = None
    audience: Audience = Audience.OWNERS
    reads: bool = False
    stores: bool = False

    @property
    def spelled(self) -> str:
        """The endpoint without the names of its parameters: ``GET /containers/{}/json``."""
        return spelled_endpoint(f"{self.method} {self.path}")

    @property
    def first(self) -> Version:
        major, minor = parse_version(self.since)
        return major, minor

    @property
    def last(self) -> Version | None:
        if self.until is None:
            return None
        major, minor = parse_version(self.until)
        return major, minor


#: The path of a route that has all paths of its method.
EVERY_PATH = "/{path:path}"

_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


def _pattern(path: str) -> Pattern[str]:
    built, at = "", 0
    for found in _PARAMETER.finditer(path):
        built += re.escape(path[at : found.start()])
        built += f"(?P<{found[1]}>{'.*' if found[2] else '[^/]+'})"
        at = found.end()
    return re.compile(built + re.escape(path[at:]) + r"\Z", re.DOTALL)


_VERSIONED = re.compile(r"/v([0-9][0-9.]*)(?=/|\Z)")


@dataclass(frozen=True, slots=True)
class Found:
    """The endpoint of a path."""

    route: ApiRoute
    params: dict[str, str]
    # As the client wrote it; None on an unversioned path.
    version: str | None


class RouteTable:
    """All endpoints, each reachable with and without a ``/v1.NN`` prefix."""

    def __init__(self, routes: Iterable[ApiRoute]) -> None:
        self._fixed: dict[tuple[str, str], ApiRoute] = {}
        # (method, first segment) → routes with parameters, in the table's order.
        self._by_head: dict[tuple[str, str], list[tuple[Pattern[str], ApiRoute]]] = {}
        # method → the route of all paths that no other has.
        self._any: dict[str, ApiRoute] = {}
        for route in routes:
            if "{" not in route.path:
                key = (route.method, route.path)
                if key in self._fixed:
                    raise ValueError(f"two routes for {route.method} {route.path}")
                self._fixed[key] = route
            elif route.path == EVERY_PATH:
                self._any[route.method] = route
            else:
                head = route.path.split("/", 2)[1]
                self._by_head.setdefault((route.method, head), []).append((_pattern(route.path), route))

    def find(self, method: str, path: str) -> Found | None:
        """The endpoint of a decoded path, or None: dockerd answers 404 also for a wrong method."""
        version = None
        prefix = _VERSIONED.match(path)
        if prefix is not None:
            version, path = prefix[1], path[prefix.end() :]
        if (route := self._fixed.get((method, path))) is not None:
            return Found(route, {}, version)
        head = path.split("/", 2)[1] if path.startswith("/") else ""
        for pattern, route in self._by_head.get((method, head), ()):
            found = pattern.match(path)
            if found is not None:
                return Found(route, found.groupdict(), version)
        rest = self._any.get(method)
        return Found(rest, {}, version) if rest is not None else None
