"""The event bus. Publishing happens synchronously in the loop: subscribers see events in the order of publication, and
a publisher never waits for a subscriber."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from engine.api import filters
from engine.api.event_types import decode
from engine.api.pb import events_pb2 as pb
from engine.api.types import AnyValue, to_timestamp
from engine.common.errors import Kind, WharfError, invalid
from engine.supervisor.names import check_identifier

log = logging.getLogger(__name__)

#: The maximum number of queued events per subscriber. A slower one is disconnected with an error, since its queue could
#: use any amount of memory; it subscribes again and reads the state.
_BACKLOG = 16_384

#: Seconds after the start during which new subscribers also get the events that happened before the start.
_KEPT = 60.0

_TOPIC = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


class EventBus:
    """Distributes events to the subscribers of all namespaces."""

    def __init__(self) -> None:
        self._subscribers: set[_Subscriber] = set()
        self._kept: list[pb.Envelope] = []
        self._kept_until = time.monotonic() + _KEPT

    def publish(self, namespace: str, topic: str, message: Message, *, keep: bool = False) -> None:
        """Publishes an event of the supervisor. ``keep``: also for subscribers that connect soon after the start, as
        containerd's shims retry events that they could not publish while it was down."""
        fields = _fields(namespace, topic, lambda: message)
        interested = [subscriber for subscriber in self._subscribers if subscriber.match(fields)]
        keep = keep and len(self._kept) < _BACKLOG
        if interested or keep:
            value = Any(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())
            envelope = pb.Envelope(
                timestamp=to_timestamp(time.time_ns()), namespace=namespace, topic=topic, event=value
            )
            if keep:
                self._kept.append(envelope)
            for subscriber in interested:
                subscriber.enqueue(envelope)

    def publish_any(self, namespace: str, topic: str, event: Any) -> None:
        """Publishes a client's event; INVALID_ARGUMENT for a malformed topic."""
        _check_topic(topic)
        self._send(pb.Envelope(timestamp=to_timestamp(time.time_ns()), namespace=namespace, topic=topic, event=event))

    def forward(self, envelope: pb.Envelope) -> None:
        """Publishes another process's event, with its own time and namespace."""
        check_identifier(envelope.namespace, "event envelope has invalid namespace")
        _check_topic(envelope.topic)
        if not envelope.HasField("timestamp") or envelope.timestamp.seconds <= 0:
            raise invalid("timestamp must be set on forwarded event")
        self._send(envelope)

    def subscribe(self, expressions: Sequence[str]) -> "_Subscriber":
        """Events from this call on that match any of the filters; the caller closes the subscriber."""
        subscriber = _Subscriber(self._subscribers, filters.compile_all(expressions))
        self._subscribers.add(subscriber)
        if time.monotonic() > self._kept_until:
            self._kept.clear()
        for envelope in self._kept:
            if subscriber.match(_fields_of(envelope)):
                subscriber.enqueue(envelope)
        return subscriber

    def close(self) -> None:
        """Ends every subscription: the supervisor exits."""
        for subscriber in list(self._subscribers):
            subscriber.end(WharfError(Kind.UNAVAILABLE, "the supervisor is ending"))

    def _send(self, envelope: pb.Envelope) -> None:
        fields = _fields_of(envelope)
        for subscriber in list(self._subscribers):
            if subscriber.match(fields):
                subscriber.enqueue(envelope)


class _Subscriber:
    def __init__(self, others: "set[_Subscriber]", match: filters.Filter) -> None:
        self._others = others
        self.match = match
        self._queue: asyncio.Queue[pb.Envelope | WharfError] = asyncio.Queue()

    def enqueue(self, envelope: pb.Envelope) -> None:
        if self._queue.qsize() >= _BACKLOG:
            log.warning("events: a subscriber is %d events behind and is dropped", _BACKLOG)
            self.end(WharfError(Kind.RESOURCE_EXHAUSTED, f"the subscriber fell {_BACKLOG} events behind"))
            return
        self._queue.put_nowait(envelope)

    async def __aiter__(self) -> AsyncIterator[pb.Envelope]:
        while True:
            item = await self._queue.get()
            if isinstance(item, WharfError):
                raise item
            yield item

    def end(self, error: WharfError) -> None:
        """Ends the subscription: queued events are delivered, then the error is raised."""
        self.close()
        self._queue.put_nowait(error)

    def close(self) -> None:
        self._others.discard(self)


def _fields(namespace: str, topic: str, event: Callable[[], object]) -> filters.Fields:
    """The fields for filters; ``event`` is called if a filter uses more than namespace and topic."""

    def field(path: Sequence[str]) -> str | None:
        if path[0] == "namespace":
            return namespace or None
        if path[0] == "topic":
            return topic or None
        if path[0] == "event":
            return _field_of(event(), path[1:])
        return None

    return field


def _fields_of(envelope: pb.Envelope) -> filters.Fields:
    @cache
    def event() -> object:
        try:
            return decode(AnyValue.from_message(envelope.event))
        except WharfError:
            return None  # a client may publish undecodable events; no filter matches them

    return _fields(envelope.namespace, envelope.topic, event)


def _field_of(message: object, path: Sequence[str]) -> str | None:
    """A field of an event by its path: strings, numbers as digits, entries of maps by the rest of the path."""
    if not isinstance(message, Message) or not path or path[0] not in message.DESCRIPTOR.fields_by_name:
        return None
    value = getattr(message, path[0])
    if isinstance(value, Message):
        return _field_of(value, path[1:])
    if len(path) > 1:
        return filters.in_labels(path[1:], value) if hasattr(value, "items") else None
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else None


def _check_topic(topic: str) -> None:
    if not topic:
        raise invalid(f'envelope topic "{topic}": must not be empty')
    if not topic.startswith("/"):
        raise invalid(f"envelope topic \"{topic}\": must start with '/'")
    if len(topic) == 1:
        raise invalid(f'envelope topic "{topic}": must have at least one component')
    for part in topic[1:].split("/"):
        if not _TOPIC.fullmatch(part):
            raise invalid(f'envelope topic "{topic}": component "{part}" is malformed')
