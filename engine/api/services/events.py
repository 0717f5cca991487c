"""The event service."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from engine.api.event_types import decode
from engine.api.pb import events_pb2 as pb
from engine.api.rpc import Connection
from engine.api.types import AnyValue, Event, to_ns, to_timestamp
from engine.common import timeouts

_SERVICE = "/containerd.services.events.v1.Events"
_MARK = "/wharf/subscribed"

#: Seconds between two marker events until the subscription is active; usually the first one arrives.
_MARK_AGAIN = 0.1


def _event(message: pb.Envelope) -> Event:
    return Event(
        timestamp_ns=to_ns(message.timestamp),
        namespace=message.namespace,
        topic=message.topic,
        event=decode(AnyValue.from_message(message.event)),
    )


class Subscription:
    """Events from now on, in the server's order. Iterate it, or enter it to be sure that the subscription is active:

    >>> async with events.subscribe('namespace=="moby"') as subscription:   # no event after this is missed
    ...     async for event in subscription: ...

    The iteration ends with UNAVAILABLE when the server ends.
    """

    def __init__(self, events: "Events", filters: Sequence[str]) -> None:
        self._events = events
        self._mark = f"{_MARK}/{secrets.token_hex(8)}"
        expressions = [*filters, f'topic=="{self._mark}"'] if filters else []
        self._stream = events.stream(expressions)
        self._early: list[Event] = []

    async def __aenter__(self) -> Self:
        try:
            async with timeouts.limit("engine.call"):
                await self._ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ready(self) -> None:
        # The protocol does not confirm a subscription, so publish marker events until one of them comes back.
        async def marks() -> None:
            while True:
                await self._events.publish(self._mark, Empty())
                await asyncio.sleep(_MARK_AGAIN)

        marker = asyncio.create_task(marks())
        reader = asyncio.create_task(self._until_mark())
        try:
            await asyncio.wait({marker, reader}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
            else:
                marker.result()
        finally:
            marker.cancel()
            reader.cancel()
            await asyncio.gather(marker, reader, return_exceptions=True)

    async def _until_mark(self) -> None:
        async for event in self._stream:
            if event.topic == self._mark:
                return
            self._early.append(event)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._early:
            return self._early.pop(0)
        while True:
            event = await anext(self._stream)
            if not event.topic.startswith(_MARK):
                return event

    async def close(self) -> None:
        await self._stream.aclose()


class Events:
    def __init__(self, connection: Connection) -> None:
        self._rpc = connection

    def subscribe(self, *filters: str) -> Subscription:
        """Subscribes to events that match any of the filters (``topic~="^/tasks/"``,
        ``namespace=="moby",topic=="…"``)."""
        return Subscription(self, filters)

    async def stream(self, filters: Sequence[str]) -> AsyncGenerator[Event, None]:
        request = pb.SubscribeRequest(filters=filters)
        async for message in self._rpc.stream(f"{_SERVICE}/Subscribe", request, pb.Envelope):
            yield _event(message)
        self._rpc.losses += 1  # only a server that ends closes the stream

    async def publish(self, topic: str, event: Message) -> None:
        """Publishes an event in this connection's namespace, with the server's time."""
        request = pb.PublishRequest(topic=topic, event=AnyValue.pack(event).to_message())
        await self._rpc.call(f"{_SERVICE}/Publish", request, Empty)

    async def forward(self, event: Event) -> None:
        """Publishes an event with its own namespace and time."""
        value = event.event if isinstance(event.event, AnyValue) else None
        if isinstance(event.event, Message):
            value = AnyValue.pack(event.event)
        envelope = pb.Envelope(timestamp=to_timestamp(event.timestamp_ns), namespace=event.namespace, topic=event.topic)
        if value is not None:
            envelope.event.CopyFrom(value.to_message())
        await self._rpc.call(f"{_SERVICE}/Forward", pb.ForwardRequest(envelope=envelope), Empty)
