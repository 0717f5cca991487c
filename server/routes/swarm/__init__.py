"""The endpoints of swarm mode, over ``server/swarm``.

Handlers and the objects of swarm mode are imported by the first request of a node that is part of a swarm. Without a
swarm, ``init`` and ``join`` are the only requests that import something.
"""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from operator import attrgetter

from starlette.requests import Request
from starlette.responses import Response

from server.http.routing import ApiRoute, Audience, Handler
from server.swarm.facade import SwarmFacade


def _handler(module: str, name: str, *, manager: bool = True) -> Handler:
    """The handler ``name`` (dotted: of an object) of a module of this package. ``manager``: it needs a manager."""
    path = f"{__name__}.{module}"

    async def handle(request: Request) -> Response | None:
        swarm: SwarmFacade = request.state.services.swarm
        if manager:
            swarm.manager()
        if path not in sys.modules:
            await asyncio.to_thread(import_module, path)
        found: Handler = attrgetter(name)(sys.modules[path])
        return await found(request)

    return handle


def _route(
    endpoint: str,
    module: str,
    name: str,
    *,
    since: str = "1.24",
    manager: bool = True,
    reads: bool = False,
    waits: bool = False,
) -> ApiRoute:
    method, path = endpoint.split()
    handler = _handler(module, name, manager=manager)
    return ApiRoute(method, path, handler, since=since, audience=Audience.ADMINISTRATORS, reads=reads, waits=waits)


def _cluster() -> Iterator[ApiRoute]:
    yield _route("POST /swarm/init", "cluster", "init", manager=False)
    yield _route("POST /swarm/join", "cluster", "join", manager=False)
    yield _route("POST /swarm/leave", "cluster", "leave", manager=False)
    yield _route("POST /swarm/unlock", "cluster", "unlock", manager=False)
    yield _route("GET /swarm", "cluster", "inspect", reads=True)
    yield _route("GET /swarm/unlockkey", "cluster", "unlock_key")
    yield _route("POST /swarm/update", "cluster", "update")


def _nodes() -> Iterator[ApiRoute]:
    yield _route("GET /nodes", "nodes", "list_nodes", reads=True)
    yield _route("GET /nodes/{id}", "nodes", "inspect", reads=True)
    yield _route("DELETE /nodes/{id}", "nodes", "remove")
    yield _route("POST /nodes/{id}/update", "nodes", "update")


def _payloads(kind: str, since: str) -> Iterator[ApiRoute]:
    """``kind``: "secrets" or "configs"."""
    yield _route(f"GET /{kind}", "payloads", f"{kind}.listing", since=since, reads=True)
    yield _route(f"POST /{kind}/create", "payloads", f"{kind}.create", since=since)
    yield _route(f"GET /{kind}/{{id}}", "payloads", f"{kind}.inspect", since=since, reads=True)
    yield _route(f"DELETE /{kind}/{{id}}", "payloads", f"{kind}.remove", since=since)
    yield _route(f"POST /{kind}/{{id}}/update", "payloads", f"{kind}.update", since=since)


def _services() -> Iterator[ApiRoute]:
    yield _route("GET /services", "services", "list_services", reads=True)
    yield _route("POST /services/create", "services", "create", waits=True)
    yield _route("GET /services/{id}", "services", "inspect", reads=True)
    yield _route("POST /services/{id}/update", "services", "update", waits=True)
    yield _route("DELETE /services/{id}", "services", "remove")
    yield _route("GET /services/{id}/logs", "services", "logs", reads=True, waits=True)
    yield _route("GET /tasks", "services", "list_tasks", reads=True)
    yield _route("GET /tasks/{id}", "services", "inspect_task", reads=True)
    yield _route("GET /tasks/{id}/logs", "services", "task_logs", reads=True, waits=True)


routes: Sequence[ApiRoute] = (
    *_cluster(),
    *_nodes(),
    *_services(),
    *_payloads("secrets", "1.25"),
    *_payloads("configs", "1.30"),
)
