"""The snapshot service: root file systems. Each engine uses one snapshotter, chosen before the first call."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from google.protobuf.empty_pb2 import Empty

from engine.api.extensions import NONE, measure_snapshots
from engine.api.pb import snapshots_pb2 as pb
from engine.api.rpc import Connection
from engine.api.types import Mount, SnapshotInfo, SnapshotKind, Usage, label_mask, to_ns
from engine.common.errors import Kind, WharfError
from engine.common.system.task_groups import run_all

#: How many snapshots one request of the extension measures, and how many requests of the standard call run
#: concurrently: each occupies a thread of the server, and the disk.
_GROUP = 256
_CONCURRENT = 8

#: containerd's snapshotters that have only what was unpacked on them.
_LOCAL = frozenset({"overlayfs", "native", "blockfile", "btrfs", "devmapper", "erofs", "zfs"})

_SERVICE = "/containerd.services.snapshots.v1.Snapshots"


def _info(message: pb.Info) -> SnapshotInfo:
    return SnapshotInfo(
        kind=SnapshotKind(message.kind),
        name=message.name,
        parent=message.parent,
        labels=dict(message.labels),
        created_at_ns=to_ns(message.created_at),
        updated_at_ns=to_ns(message.updated_at),
    )


class Snapshots:
    """Committed snapshots (layers) have names, active and view snapshots have keys; both share one namespace."""

    def __init__(self, connection: Connection, snapshotter: str) -> None:
        self._rpc = connection
        self.snapshotter = snapshotter
        self.extensions = NONE

    @property
    def remote(self) -> bool:
        """Whether the snapshotter may be one that provides layers without a download."""
        return self.snapshotter not in _LOCAL

    async def prepare(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Creates a writable snapshot on ``parent`` ("" for an empty one). ALREADY_EXISTS: the key is taken."""
        request = pb.PrepareSnapshotRequest(
            snapshotter=self.snapshotter, key=key, parent=parent, labels=dict(labels or {})
        )
        reply = await self._rpc.call(
            f"{_SERVICE}/Prepare", request, pb.PrepareSnapshotResponse, deadline="snapshot.prepare"
        )
        return tuple(map(Mount.from_message, reply.mounts))

    async def view(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Creates a read-only snapshot of ``parent``."""
        request = pb.ViewSnapshotRequest(
            snapshotter=self.snapshotter, key=key, parent=parent, labels=dict(labels or {})
        )
        reply = await self._rpc.call(f"{_SERVICE}/View", request, pb.ViewSnapshotResponse, deadline="snapshot.prepare")
        return tuple(map(Mount.from_message, reply.mounts))

    async def mounts(self, key: str) -> tuple[Mount, ...]:
        """The mounts of an active or view snapshot."""
        request = pb.MountsRequest(snapshotter=self.snapshotter, key=key)
        reply = await self._rpc.call(f"{_SERVICE}/Mounts", request, pb.MountsResponse)
        return tuple(map(Mount.from_message, reply.mounts))

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        """Commits the active snapshot ``key`` under ``name``; raises ALREADY_EXISTS when the name is taken."""
        request = pb.CommitSnapshotRequest(snapshotter=self.snapshotter, name=name, key=key, labels=dict(labels or {}))
        await self._rpc.call(f"{_SERVICE}/Commit", request, Empty, deadline="snapshot.prepare")

    async def remove(self, key: str) -> None:
        """Raises FAILED_PRECONDITION while another snapshot has it as its parent."""
        request = pb.RemoveSnapshotRequest(snapshotter=self.snapshotter, key=key)
        await self._rpc.call(f"{_SERVICE}/Remove", request, Empty, deadline="snapshot.remove")

    async def stat(self, key: str) -> SnapshotInfo:
        request = pb.StatSnapshotRequest(snapshotter=self.snapshotter, key=key)
        return _info((await self._rpc.call(f"{_SERVICE}/Stat", request, pb.StatSnapshotResponse)).info)

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[SnapshotInfo]:
        request = pb.ListSnapshotsRequest(snapshotter=self.snapshotter, filters=filters)
        async for page in self._rpc.stream(f"{_SERVICE}/List", request, pb.ListSnapshotsResponse):
            for message in page.info:
                yield _info(message)

    async def usage(self, key: str) -> Usage:
        """The space that the snapshot itself uses, without its parents."""
        request = pb.UsageRequest(snapshotter=self.snapshotter, key=key)
        reply = await self._rpc.call(f"{_SERVICE}/Usage", request, pb.UsageResponse, deadline="snapshot.prepare")
        return Usage(size=reply.size, inodes=reply.inodes)

    async def usages(self, keys: Collection[str]) -> dict[str, Usage]:
        """As ``usage`` for several snapshots, by key, without those that don't exist."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Usage] = {}
        if self.extensions.measures_snapshots and len(wanted) > 1:
            path, namespace = self.extensions.descriptors, self._rpc.namespace
            while wanted:
                answer = await measure_snapshots(path, namespace, self.snapshotter, wanted[:_GROUP])
                if answer is None:
                    break
                found |= answer
                del wanted[:_GROUP]
        left = iter(wanted)

        async def measure() -> None:
            for key in left:
                try:
                    found[key] = await self.usage(key)
                except WharfError as error:
                    if error.kind is not Kind.NOT_FOUND:
                        raise

        await run_all(measure() for _ in range(min(_CONCURRENT, len(wanted))))
        return found

    async def update_labels(self, key: str, labels: Mapping[str, str | None]) -> SnapshotInfo:
        """Sets these labels and keeps the others; None removes a label."""
        info = pb.Info(name=key, labels={name: value or "" for name, value in labels.items()})
        request = pb.UpdateSnapshotRequest(snapshotter=self.snapshotter, info=info, update_mask=label_mask(labels))
        return _info((await self._rpc.call(f"{_SERVICE}/Update", request, pb.UpdateSnapshotResponse)).info)

    async def cleanup(self) -> None:
        """Removes the directories that belong to no snapshot."""
        request = pb.CleanupRequest(snapshotter=self.snapshotter)
        await self._rpc.call(f"{_SERVICE}/Cleanup", request, Empty, deadline="snapshot.remove")
