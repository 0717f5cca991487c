"""containerd.services.snapshots.v1"""

from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import snapshots_pb2 as pb
from engine.api.types import SnapshotInfo, SnapshotKind, to_timestamp
from engine.supervisor.call import Call
from engine.supervisor.gc import Collector
from engine.supervisor.snapshots.service import Snapshots

_PAGE = 100


class SnapshotsServicer:
    def __init__(self, snapshots: Snapshots, collector: Collector) -> None:
        self._snapshots = snapshots
        self._collector = collector

    async def prepare(self, request: pb.PrepareSnapshotRequest, call: Call) -> pb.PrepareSnapshotResponse:
        mounts = await self._snapshots.create(
            call, request.snapshotter, request.key, request.parent, request.labels, SnapshotKind.ACTIVE
        )
        return pb.PrepareSnapshotResponse(mounts=[mount.to_message() for mount in mounts])

    async def view(self, request: pb.ViewSnapshotRequest, call: Call) -> pb.ViewSnapshotResponse:
        mounts = await self._snapshots.create(
            call, request.snapshotter, request.key, request.parent, request.labels, SnapshotKind.VIEW
        )
        return pb.ViewSnapshotResponse(mounts=[mount.to_message() for mount in mounts])

    async def mounts(self, request: pb.MountsRequest, call: Call) -> pb.MountsResponse:
        mounts = await self._snapshots.mounts(call.namespace, request.snapshotter, request.key)
        return pb.MountsResponse(mounts=[mount.to_message() for mount in mounts])

    async def commit(self, request: pb.CommitSnapshotRequest, call: Call) -> Empty:
        await self._snapshots.commit(call, request.snapshotter, request.name, request.key, request.labels)
        return Empty()

    async def remove(self, request: pb.RemoveSnapshotRequest, call: Call) -> Empty:
        await self._snapshots.remove(call.namespace, request.snapshotter, request.key)
        await self._collector.deleted(sync=False)  # it may have been the only child of its parent
        return Empty()

    async def stat(self, request: pb.StatSnapshotRequest, call: Call) -> pb.StatSnapshotResponse:
        info = self._snapshots.stat(call.namespace, request.snapshotter, request.key)
        return pb.StatSnapshotResponse(info=_info(info))

    async def update(self, request: pb.UpdateSnapshotRequest, call: Call) -> pb.UpdateSnapshotResponse:
        info = await self._snapshots.update(
            call.namespace, request.snapshotter, request.info.name, request.info.labels, request.update_mask.paths
        )
        await self._collector.deleted(sync=False)  # a removed label may have referenced something
        return pb.UpdateSnapshotResponse(info=_info(info))

    async def list(self, request: pb.ListSnapshotsRequest, call: Call) -> AsyncIterator[pb.ListSnapshotsResponse]:
        found = await self._snapshots.list(call.namespace, request.snapshotter, request.filters)
        for start in range(0, len(found), _PAGE):
            yield pb.ListSnapshotsResponse(info=map(_info, found[start : start + _PAGE]))

    async def usage(self, request: pb.UsageRequest, call: Call) -> pb.UsageResponse:
        usage = await self._snapshots.usage(call.namespace, request.snapshotter, request.key)
        return pb.UsageResponse(size=usage.size, inodes=usage.inodes)

    async def cleanup(self, request: pb.CleanupRequest, call: Call) -> Empty:
        await self._snapshots.cleanup(request.snapshotter)
        return Empty()


def _info(info: SnapshotInfo) -> pb.Info:
    return pb.Info(
        name=info.name,
        parent=info.parent,
        kind=info.kind.value,  # type: ignore[arg-type]  # the numbers are the wire's
        created_at=to_timestamp(info.created_at_ns),
        updated_at=to_timestamp(info.updated_at_ns),
        labels=dict(info.labels),
    )
