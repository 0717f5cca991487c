"""containerd.services.diff.v1"""

from engine.api.pb import diff_pb2 as pb
from engine.api.types import Descriptor, Mount, to_ns
from engine.supervisor.call import Call
from engine.supervisor.diff import Differ


class DiffServicer:
    def __init__(self, differ: Differ) -> None:
        self._differ = differ

    async def apply(self, request: pb.ApplyRequest, call: Call) -> pb.ApplyResponse:
        mounts = [Mount.from_message(mount) for mount in request.mounts]
        applied = await self._differ.apply(
            call.namespace, Descriptor.from_message(request.diff), mounts, sync=request.sync_fs
        )
        return pb.ApplyResponse(applied=applied.to_message())

    async def diff(self, request: pb.DiffRequest, call: Call) -> pb.DiffResponse:
        made = await self._differ.diff(
            call,
            [Mount.from_message(mount) for mount in request.left],
            [Mount.from_message(mount) for mount in request.right],
            media_type=request.media_type,
            ref=request.ref,
            labels=request.labels,
            epoch_ns=to_ns(request.source_date_epoch) if request.HasField("source_date_epoch") else None,
        )
        return pb.DiffResponse(diff=made.to_message())
