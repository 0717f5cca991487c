"""Events: published at once to every subscriber whose filters match, in the order of publishing."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from engine.api import filters
from engine.api.event_types import decode
from engine.api.pb import events_pb2 as pb
from engine.api.tests.fake.state import Call, field_of, now
from engine.api.types import AnyValue
from engine.common.errors import invalid


class Events:
    def __init__(self) -> None:
        self._subscribers: list[tuple[filters.Filter, asyncio.Queue[pb.Envelope]]] = []

    def publish_own(self, namespace: str, topic: str, message: Message) -> None:
        """Publishes an event of the server."""
        event = AnyValue.pack(message).to_message()
        self._send(pb.Envelope(timestamp=now(), namespace=namespace, topic=topic, event=event))

    def publish(self, call: Call, request: pb.PublishRequest) -> Empty:
        if not request.topic.startswith("/"):
            raise invalid(f"envelope topic \"{request.topic}\": must start with '/'")
        envelope = pb.Envelope(timestamp=now(), namespace=call.namespace, topic=request.topic, event=request.event)
        self._send(envelope)
        return Empty()

    def forward(self, call: Call, request: pb.ForwardRequest) -> Empty:
        self._send(request.envelope)
        return Empty()

    async def subscribe(self, call: Call, request: pb.SubscribeRequest) -> AsyncIterator[pb.Envelope]:
        mine = filters.compile_all(request.filters), asyncio.Queue[pb.Envelope]()
        self._subscribers.append(mine)
        try:
            while True:
                yield await mine[1].get()
        finally:
            self._subscribers.remove(mine)

    def _send(self, envelope: pb.Envelope) -> None:
        def field(path: Sequence[str]) -> str | None:
            if path[0] == "event":
                return field_of(decode(AnyValue.from_message(envelope.event)), path[1:])
            return field_of(envelope, path)

        for match, queue in self._subscribers:
            if match(field):
                queue.put_nowait(envelope)
