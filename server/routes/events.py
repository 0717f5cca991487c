"""``GET /events``."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api_models import changes
from api_models.supported import Version
from engine.common.errors import invalid
from server.events import EventBus, Subscription
from server.events.wire import document, hidden
from server.http import jsonstreams, params
from server.http.routing import ApiRoute
from server.http.streams import json_stream


def _bus(request: Request) -> EventBus:
    bus: EventBus = request.state.services.events
    return bus


async def _documents(subscription: Subscription, version: Version, *, old_names: bool) -> AsyncIterator[dict[str, Any]]:
    try:
        async for event in subscription:
            if not hidden(event, version):
                yield document(event, old_names=old_names)
    finally:
        await subscription.aclose()


async def events(request: Request) -> Response:
    since, until = params.text(request, "since"), params.text(request, "until")
    since_ns = params.timestamp(since) if since else None
    until_ns = params.timestamp(until) if until else None
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise invalid(f"`since` time ({since}) cannot be after `until` time ({until})")
    subscription = _bus(request).subscribe(since_ns, until_ns, params.filters(request))
    default = jsonstreams.JSON_LINES if params.has(request, changes.EVENTS_AS_JSON_LINES) else jsonstreams.JSON
    kind = jsonstreams.accepted(request) or default
    old_names = not (params.strict(request) and params.has(request, changes.EVENTS_WITHOUT_OLD_NAMES))
    return json_stream(
        _documents(subscription, params.version_of(request), old_names=old_names),
        media_type=kind,
        early=True,
        begin=jsonstreams.prefix(kind),
        end=b"\n",
        name="events",
    )


routes: Sequence[ApiRoute] = (ApiRoute("GET", "/events", events, waits=True, reads=True),)
