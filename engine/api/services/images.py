"""The image service: names of images."""

from collections.abc import Sequence

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from engine.api.pb import images_pb2 as pb
from engine.api.rpc import Connection
from engine.api.types import Descriptor, ImageRecord, to_ns, to_timestamp

_SERVICE = "/containerd.services.images.v1.Images"


def _record(message: pb.Image) -> ImageRecord:
    return ImageRecord(
        name=message.name,
        target=Descriptor.from_message(message.target),
        labels=dict(message.labels),
        created_at_ns=to_ns(message.created_at),
        updated_at_ns=to_ns(message.updated_at),
    )


def _message(record: ImageRecord) -> pb.Image:
    message = pb.Image(name=record.name, labels=dict(record.labels), target=record.target.to_message())
    if record.created_at_ns:
        message.created_at.CopyFrom(to_timestamp(record.created_at_ns))
    return message


class Images:
    def __init__(self, connection: Connection) -> None:
        self._rpc = connection

    async def get(self, name: str) -> ImageRecord:
        """Raises NOT_FOUND when there is no such name."""
        reply = await self._rpc.call(f"{_SERVICE}/Get", pb.GetImageRequest(name=name), pb.GetImageResponse)
        return _record(reply.image)

    async def list(self, filters: Sequence[str] = ()) -> list[ImageRecord]:
        request = pb.ListImagesRequest(filters=filters)
        reply = await self._rpc.call(f"{_SERVICE}/List", request, pb.ListImagesResponse)
        return [_record(message) for message in reply.images]

    async def create(self, record: ImageRecord) -> ImageRecord:
        """Raises ALREADY_EXISTS when the name is taken; ``update`` changes its target."""
        request = pb.CreateImageRequest(image=_message(record))
        return _record((await self._rpc.call(f"{_SERVICE}/Create", request, pb.CreateImageResponse)).image)

    async def update(self, record: ImageRecord, *, fields: Sequence[str] = ()) -> ImageRecord:
        """Replaces the named fields (``target``, ``labels``, ``labels.<name>``); without ``fields``, all of them."""
        request = pb.UpdateImageRequest(image=_message(record))
        if fields:
            request.update_mask.CopyFrom(FieldMask(paths=fields))
        return _record((await self._rpc.call(f"{_SERVICE}/Update", request, pb.UpdateImageResponse)).image)

    async def delete(self, name: str, *, sync: bool = False) -> None:
        """``sync`` waits until the garbage collector has removed what only this name referenced."""
        request = pb.DeleteImageRequest(name=name, sync=sync)
        await self._rpc.call(f"{_SERVICE}/Delete", request, Empty, deadline="engine.collect" if sync else "engine.call")
