"""The event bus: the last events, and subscriptions, each with its filter."""

import asyncio
import contextlib
import copy
import heapq
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from api_models.filters import Filters
from server.access.caller import EVERYONE, Caller
from server.access.owners import user_of
from server.events.match import matches
from server.events.message import EventMessage

log = logging.getLogger(__name__)

# The number of past events of each user that ``since`` and ``until`` can select. dockerd keeps 256 in all, fewer than
# the start of a hundred containers publishes.
RING = 1024
# The number of queued events at which a subscription is closed, to bound the memory of a client that doesn't read.
BACKLOG = 8192


class Subscription(AsyncIterator[EventMessage]):
    """The events of one subscription, in order: those of ``past`` first. ``until_ns``: the end, None: no end.
    ``caller``: gets only events of objects that exist for it.

    ``receiver``, if it is set, is called with each event that is published while the reader waits for one, and returns
    whether it has taken the event; the iteration yields the others. So a thousand subscriptions cost no wake-up of a
    thousand tasks."""

    def __init__(
        self,
        bus: "EventBus",
        past: Iterable[EventMessage],
        until_ns: int | None,
        filters: Filters,
        caller: Caller = EVERYONE,
    ) -> None:
        self._bus = bus
        self._filters = filters
        self._caller = caller
        self._until_ns = until_ns
        self._queue: deque[EventMessage] = deque(event for event in past if self._matches(event))
        self._ready = asyncio.Event()
        self._waiting = False
        self._closed = False
        self._overrun = False
        self.receiver: Callable[[EventMessage], bool] | None = None

    @property
    def owner(self) -> str:
        """The owner of the client that subscribed."""
        return self._caller.owner

    def _matches(self, event: EventMessage) -> bool:
        return self._caller.sees(event.owner, event.attributes) and matches(event, self._filters)

    def _put(self, event: EventMessage) -> None:
        if self._overrun or not self._matches(event):
            return
        if self._waiting and not self._queue and self.receiver is not None and self.receiver(event):
            return
        if len(self._queue) >= BACKLOG:
            log.warning("a client of the events has not read %d events: its subscription is closed", BACKLOG)
            self._overrun = True
        else:
            self._queue.append(event)
        self._ready.set()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> EventMessage:
        """The next event. The iteration ends at ``until_ns``, after ``aclose``, or after ``BACKLOG`` unread events."""
        while not self._queue:
            if self._closed or self._overrun:
                await self.aclose()
                raise StopAsyncIteration
            await self._wait()
        return self._queue.popleft()

    async def _wait(self) -> None:
        """Waits for the next queued event, or the end."""
        self._ready.clear()
        self._waiting = True
        try:
            if self._until_ns is None:
                await self._ready.wait()
                return
            seconds = (self._until_ns - time.time_ns()) / 1e9
            if seconds <= 0:
                await self.aclose()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ready.wait()
        finally:
            self._waiting = False

    async def aclose(self) -> None:
        """Ends the subscription; queued events can still be read."""
        self._closed = True
        self._bus.unsubscribe(self)
        self._ready.set()


class EventBus:
    """Passes published events to all subscriptions. Call it on the event loop; no call waits."""

    def __init__(self) -> None:
        # By user: the events of one user push none of another's out.
        self._rings: defaultdict[str, deque[EventMessage]] = defaultdict(lambda: deque(maxlen=RING))
        self._subscriptions: set[Subscription] = set()
        self._last_ns = 0
        self._caller = EVERYONE
        #: The number of events since the daemon's start.
        self.published = 0

    def seen_by(self, caller: Caller) -> "EventBus":
        """The same bus for one caller: its subscriptions get only events of objects that exist for the caller. Do
        not publish through it: ``published`` and the time of the last event are copies of this moment."""
        bound = copy.copy(self)
        bound._caller = caller
        return bound

    def publish(
        self,
        kind: str,
        action: str,
        actor: str,
        attributes: Mapping[str, str],
        *,
        scope: str = "local",
        owner: str = "",
    ) -> EventMessage:
        """Publishes an event. ``kind``: the type of the object, ``actor``: its id or name, ``owner``: the object's.
        Subscriptions get events in the order of the calls, with increasing times."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        event = EventMessage(kind, action, actor, dict(attributes), scope, self._last_ns, owner)
        self._rings[user_of(owner)].append(event)
        self.published += 1
        for subscription in tuple(self._subscriptions):
            subscription._put(event)
        return event

    def subscribe(
        self, since_ns: int | None = None, until_ns: int | None = None, filters: Filters | None = None
    ) -> Subscription:
        """Subscribes from now on; with ``since_ns`` or ``until_ns`` past events come first. Times are ns since the
        epoch.
        """
        past: Iterable[EventMessage] = ()
        if since_ns is not None or until_ns is not None:
            past = [
                event
                for event in self._past()
                # As with dockerd, an end before the epoch excludes no event.
                if event.time_ns >= (since_ns or 0) and (until_ns is None or not 0 < until_ns < event.time_ns)
            ]
        subscription = Subscription(self, past, until_ns, filters or Filters(), self._caller)
        if until_ns is None or until_ns > time.time_ns():
            self._subscriptions.add(subscription)
        return subscription

    @property
    def listeners(self) -> int:
        """The number of subscriptions (``NEventsListener`` of info) that exist for the caller."""
        return sum(self._caller.sees(each.owner) for each in self._subscriptions)

    def _past(self) -> Iterable[EventMessage]:
        """The past events in order: of the caller's user; for an administrator all. Those outside of the caller's scope
        are among them."""
        if not self._caller.administrator:
            return self._rings.get(user_of(self._caller.owner), ())
        if len(self._rings) == 1:
            return next(iter(self._rings.values()))
        return heapq.merge(*self._rings.values(), key=lambda event: event.time_ns)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
