"""The messages of containerd's events, by the names of their types."""

from google.protobuf.message import Message

from engine.api.pb import event_messages_pb2, images_pb2
from engine.api.types import AnyValue


def _registry() -> dict[str, type[Message]]:
    classes: list[type[Message]] = [
        getattr(event_messages_pb2, name) for name in event_messages_pb2.DESCRIPTOR.message_types_by_name
    ]
    classes += [images_pb2.ImageCreate, images_pb2.ImageUpdate, images_pb2.ImageDelete]
    return {kind.DESCRIPTOR.full_name: kind for kind in classes}


_CLASSES = _registry()


def decode(value: AnyValue | None) -> Message | AnyValue | None:
    """The decoded event, or the value itself when its type is not one of containerd's."""
    kind = _CLASSES.get(value.type_url.rpartition("/")[2]) if value else None
    return value.unpack(kind) if value and kind else value
