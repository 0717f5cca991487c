"""``GET /events``."""

from collections.abc import AsyncIterator, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models import changes
from api_models.supported import Version
from engine.common.errors import invalid
from server.events import EventBus, Subscription
from server.events.message import EventMessage
from server.events.wire import document, hidden
from server.http import hijack, jsonstreams, params
from server.http.answers import dumps_escaped
from server.http.cycle import Part
from server.http.routing import ApiRoute
from server.http.streams import line_stream

# The number of lines that are kept: clients read the same event within moments.
_KEPT = 64
#: The time of the event, what precedes it, and whether it has the old names of its fields.
_Form = tuple[int, bytes, bool]


def _bus(request: Request) -> EventBus:
    bus: EventBus = request.state.services.events
    return bus


class _Encoded:
    """The lines of the last events, which all clients of the same form share."""

    def __init__(self) -> None:
        self._lines: dict[_Form, tuple[EventMessage, Part]] = {}

    def line(self, event: EventMessage, begin: bytes, *, old_names: bool) -> Part:
        form = event.time_ns, begin, old_names
        found = self._lines.get(form)
        if found is None or found[0] is not event:  # of another bus at the same time
            if len(self._lines) >= _KEPT:
                del self._lines[next(iter(self._lines))]
            found = event, Part(begin + dumps_escaped(document(event, old_names=old_names)) + b"\n")
            self._lines[form] = found
        return found[1]


_encoded = _Encoded()


async def _lines(
    subscription: Subscription,
    version: Version,
    begin: bytes,
    push: Callable[[Part], bool] | None,
    *,
    old_names: bool,
) -> AsyncIterator[bytes]:
    if push is not None:
        subscription.receiver = lambda event: (
            hidden(event, version) or push(_encoded.line(event, begin, old_names=old_names))
        )
    try:
        async for event in subscription:
            if not hidden(event, version):
                yield _encoded.line(event, begin, old_names=old_names).body
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
    begin = jsonstreams.prefix(kind)
    lines = _lines(subscription, params.version_of(request), begin, hijack.pusher(request), old_names=old_names)
    return line_stream(lines, media_type=kind, name="events")


routes: Sequence[ApiRoute] = (ApiRoute("GET", "/events", events, waits=True, reads=True),)
