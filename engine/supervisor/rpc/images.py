"""containerd.services.images.v1"""

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import images_pb2 as pb
from engine.api.types import Descriptor, ImageRecord, to_ns, to_timestamp
from engine.supervisor.call import Call
from engine.supervisor.gc import Collector
from engine.supervisor.images import Images


class ImagesServicer:
    def __init__(self, images: Images, collector: Collector) -> None:
        self._images = images
        self._collector = collector

    async def get(self, request: pb.GetImageRequest, call: Call) -> pb.GetImageResponse:
        return pb.GetImageResponse(image=_message(self._images.get(call.namespace, request.name)))

    async def list(self, request: pb.ListImagesRequest, call: Call) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=map(_message, self._images.list(call.namespace, request.filters)))

    async def create(self, request: pb.CreateImageRequest, call: Call) -> pb.CreateImageResponse:
        epoch = to_ns(request.source_date_epoch)
        record = await self._images.create(call.namespace, _record(request.image), now_ns=epoch)
        return pb.CreateImageResponse(image=_message(record))

    async def update(self, request: pb.UpdateImageRequest, call: Call) -> pb.UpdateImageResponse:
        epoch = to_ns(request.source_date_epoch)
        mask = request.update_mask.paths
        record = await self._images.update(call.namespace, _record(request.image), mask, now_ns=epoch)
        await self._collector.deleted(sync=False)
        return pb.UpdateImageResponse(image=_message(record))

    async def delete(self, request: pb.DeleteImageRequest, call: Call) -> Empty:
        await self._images.delete(call.namespace, request.name)
        await self._collector.deleted(sync=request.sync)
        return Empty()


def _record(message: pb.Image) -> ImageRecord:
    return ImageRecord(message.name, Descriptor.from_message(message.target), dict(message.labels))


def _message(record: ImageRecord) -> pb.Image:
    return pb.Image(
        name=record.name,
        labels=dict(record.labels),
        target=record.target.to_message(),
        created_at=to_timestamp(record.created_at_ns),
        updated_at=to_timestamp(record.updated_at_ns),
    )
