"""containerd.services.events.v1"""

from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import events_pb2 as pb
from engine.supervisor.call import Call
from engine.supervisor.events import EventBus


class EventsServicer:
    """Subscriptions get the events of every namespace (a filter narrows that), as in containerd."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    async def publish(self, request: pb.PublishRequest, call: Call) -> Empty:
        self._bus.publish_any(call.namespace, request.topic, request.event)
        return Empty()

    async def forward(self, request: pb.ForwardRequest, call: Call) -> Empty:
        self._bus.forward(request.envelope)
        return Empty()

    async def subscribe(self, request: pb.SubscribeRequest, call: Call) -> AsyncIterator[pb.Envelope]:
        subscriber = self._bus.subscribe(request.filters)
        try:
            async for envelope in subscriber:
                yield envelope
        finally:
            subscriber.close()
