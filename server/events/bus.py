"""The event bus: a ring of the last events, and any number of listeners with a filter each."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping

from api_models.filters import Filters
from server.events.match import matches
from server.events.message import EventMessage

log = logging.getLogger(__name__)

# How many past events since/until can reach. dockerd keeps 256; a burst of containers makes many.
RING = 1024
# What a listener may fall behind before it is dropped: a client that doesn't read must not grow the daemon.
BACKLOG = 8192


class Subscription(AsyncIterator[EventMessage]):
    """Events for one listener, in order. Registered on construction, so nothing published later is missed."""

    def __init__(self, bus: "EventBus", past: Iterable[EventMessage], until_ns: int | None, filters: Filters) -> None:
        self._bus = bus
        self._filters = filters
        self._until_ns = until_ns
        self._waiting: deque[EventMessage] = deque(event for event in past if matches(event, filters))
        self._ready = asyncio.Event()
        self._closed = False
        self._overrun = False

    def _offer(self, event: EventMessage) -> None:
        if self._overrun or not matches(event, self._filters):
            return
        if len(self._waiting) >= BACKLOG:
            log.warning("a listener to events is %d behind and is dropped", BACKLOG)
            self._overrun = True
        else:
            self._waiting.append(event)
        self._ready.set()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> EventMessage:
        """The next event; ends at ``until`` or when the listener fell too far behind."""
        while not self._waiting:
            if self._closed or self._overrun:
                await self.aclose()
                raise StopAsyncIteration
            self._ready.clear()
            left = None if self._until_ns is None else (self._until_ns - time.time_ns()) / 1e9
            if left is not None and left <= 0:
                await self.aclose()
                raise StopAsyncIteration
            try:
                await asyncio.wait_for(self._ready.wait(), left)
            except TimeoutError:
                continue
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """Stops listening; further reading ends at what is queued."""
        self._closed = True
        self._bus.forget(self)
        self._ready.set()


class EventBus:
    """Publishes to whoever listens. All calls are made on the loop; none waits."""

    def __init__(self) -> None:
        self._ring: deque[EventMessage] = deque(maxlen=RING)
        self._listeners: set[Subscription] = set()
        self._last_ns = 0
        #: How many events there were since the start.
        self.published = 0

    def publish(
        self, kind: str, action: str, actor: str, attributes: Mapping[str, str], *, scope: str = "local"
    ) -> EventMessage:
        """Tells all listeners, in the order of the calls. Times never run backwards."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        event = EventMessage(kind, action, actor, dict(attributes), scope, self._last_ns)
        self._ring.append(event)
        self.published += 1
        for listener in tuple(self._listeners):
            listener._offer(event)
        return event

    def subscribe(
        self, since_ns: int | None = None, until_ns: int | None = None, filters: Filters | None = None
    ) -> Subscription:
        """Listens from now on; past events come first if ``since_ns`` or an end is given."""
        past: Iterable[EventMessage] = ()
        if since_ns is not None or until_ns is not None:
            past = [
                event
                for event in self._ring
                # An end that was before the epoch cuts off nothing, as with dockerd.
                if event.time_ns >= (since_ns or 0) and (until_ns is None or not 0 < until_ns < event.time_ns)
            ]
        subscription = Subscription(self, past, until_ns, filters or Filters())
        if until_ns is None or until_ns > time.time_ns():
            self._listeners.add(subscription)
        return subscription

    @property
    def listeners(self) -> int:
        """How many listen now (``NEventsListener`` of info)."""
        return len(self._listeners)

    def forget(self, subscription: Subscription) -> None:
        self._listeners.discard(subscription)
