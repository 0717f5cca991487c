"""Snapshots as directories: an active one is a copy of its parent's, a view is its parent's bound read-only.

A layer whose label ``FILES`` names a directory is provided at once, as by a remote snapshotter.
"""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from google.protobuf.empty_pb2 import Empty

from engine.api import filters
from engine.api.pb import event_messages_pb2, types_pb2
from engine.api.pb import snapshots_pb2 as pb
from engine.api.tests.fake.events import Events
from engine.api.tests.fake.state import Call, Namespace, Snapshot, field_of, masked, now
from engine.common.errors import Kind, WharfError, invalid, not_found

#: The label with the directory of a layer's files.
FILES = "containerd.io/snapshot/test.files"
_TARGET = "containerd.io/snapshot.ref"

_KIND = {pb.ACTIVE: "active", pb.VIEW: "view", pb.COMMITTED: "committed"}


def sizes(root: Path) -> dict[int, int]:
    """Bytes of each regular file below ``root``, by inode: a file with several names counts once."""
    found = [entry.lstat() for entry in root.rglob("*") if entry.is_file() and not entry.is_symlink()]
    return {entry.st_ino: entry.st_size for entry in found}


class Snapshots:
    def __init__(self, events: Events, root: Path) -> None:
        self._events = events
        self._root = root
        self._number = 0

    def prepare(self, call: Call, request: pb.PrepareSnapshotRequest) -> pb.PrepareSnapshotResponse:
        parent = self._parent(call, request.snapshotter, request.parent)
        self._add(call, request.snapshotter, request.key, request.parent, pb.ACTIVE, request.labels)
        snapshot = self._at(call, request.snapshotter, request.key)
        if parent is not None and os.listdir(parent.folder):
            subprocess.run(["cp", "-a", f"{parent.folder}/.", str(snapshot.folder)], check=True)
        prepared = event_messages_pb2.SnapshotPrepare(
            key=request.key, parent=request.parent, snapshotter=request.snapshotter
        )
        self._events.publish_own(call.namespace, "/snapshot/prepare", prepared)
        files, target = request.labels.get(FILES), request.labels.get(_TARGET)
        if files and target:
            shutil.copytree(files, snapshot.folder, dirs_exist_ok=True)
            self.commit(
                call,
                pb.CommitSnapshotRequest(
                    snapshotter=request.snapshotter, name=target, key=request.key, labels=request.labels
                ),
            )
            raise WharfError(Kind.ALREADY_EXISTS, f'target snapshot "{target}": already exists')
        return pb.PrepareSnapshotResponse(mounts=_mounts(snapshot))

    def view(self, call: Call, request: pb.ViewSnapshotRequest) -> pb.ViewSnapshotResponse:
        parent = self._parent(call, request.snapshotter, request.parent)
        self._add(call, request.snapshotter, request.key, request.parent, pb.VIEW, request.labels)
        snapshot = self._at(call, request.snapshotter, request.key)
        if parent is not None:
            snapshot.folder = parent.folder
        return pb.ViewSnapshotResponse(mounts=_mounts(snapshot))

    def mounts(self, call: Call, request: pb.MountsRequest) -> pb.MountsResponse:
        snapshot = self._at(call, request.snapshotter, request.key)
        if snapshot.info.kind == pb.COMMITTED:
            raise not_found(f"snapshot {request.key} is not active: not found")
        return pb.MountsResponse(mounts=_mounts(snapshot))

    def commit(self, call: Call, request: pb.CommitSnapshotRequest) -> Empty:
        snapshot = self._at(call, request.snapshotter, request.key)
        if snapshot.info.kind != pb.ACTIVE:
            raise WharfError(Kind.FAILED_PRECONDITION, f"snapshot {request.key} is not active")
        if (request.snapshotter, request.name) in call.space.snapshots:
            raise WharfError(Kind.ALREADY_EXISTS, f"snapshot {request.name}: already exists")
        call.add_to_lease(f"snapshots/{request.snapshotter}", request.name)
        del call.space.snapshots[request.snapshotter, request.key]
        snapshot.info.MergeFrom(pb.Info(name=request.name, kind=pb.COMMITTED, updated_at=now()))
        snapshot.info.ClearField("labels")
        snapshot.info.labels.update(request.labels)
        call.space.snapshots[request.snapshotter, request.name] = snapshot
        committed = event_messages_pb2.SnapshotCommit(
            key=request.key, name=request.name, snapshotter=request.snapshotter
        )
        self._events.publish_own(call.namespace, "/snapshot/commit", committed)
        return Empty()

    def remove(self, call: Call, request: pb.RemoveSnapshotRequest) -> Empty:
        snapshot = self._at(call, request.snapshotter, request.key)
        if any(other.info.parent == request.key for other in self._all(call.space, request.snapshotter).values()):
            raise WharfError(Kind.FAILED_PRECONDITION, f"cannot remove snapshot with child: {request.key}")
        self.discard(call.space, request.snapshotter, snapshot)
        removed = event_messages_pb2.SnapshotRemove(key=request.key, snapshotter=request.snapshotter)
        self._events.publish_own(call.namespace, "/snapshot/remove", removed)
        return Empty()

    def discard(self, space: Namespace, snapshotter: str, snapshot: Snapshot) -> None:
        """Deletes the record, and the directory if it is its own."""
        del space.snapshots[snapshotter, snapshot.info.name]
        if snapshot.info.kind != pb.VIEW or not snapshot.info.parent:
            shutil.rmtree(snapshot.folder)

    def stat(self, call: Call, request: pb.StatSnapshotRequest) -> pb.StatSnapshotResponse:
        return pb.StatSnapshotResponse(info=self._at(call, request.snapshotter, request.key).info)

    def update(self, call: Call, request: pb.UpdateSnapshotRequest) -> pb.UpdateSnapshotResponse:
        info = self._at(call, request.snapshotter, request.info.name).info
        masked(info, request.info, request.update_mask.paths or ["labels"])
        info.updated_at.CopyFrom(now())
        return pb.UpdateSnapshotResponse(info=info)

    async def list(self, call: Call, request: pb.ListSnapshotsRequest) -> AsyncIterator[pb.ListSnapshotsResponse]:
        match = filters.compile_all(request.filters)
        found = [snapshot.info for snapshot in self._all(call.space, request.snapshotter).values()]
        yield pb.ListSnapshotsResponse(info=[info for info in found if match(partial(_field_of, info))])

    def usage(self, call: Call, request: pb.UsageRequest) -> pb.UsageResponse:
        snapshot = self._at(call, request.snapshotter, request.key)
        parent = self._parent(call, request.snapshotter, snapshot.info.parent)
        own, below = sizes(snapshot.folder), sizes(parent.folder) if parent is not None else {}
        size = sum(own.values()) - sum(below.values())
        return pb.UsageResponse(size=max(0, size), inodes=max(0, len(own) - len(below)))

    def _add(
        self,
        call: Call,
        snapshotter: str,
        key: str,
        parent: str,
        kind: "pb.Kind.ValueType",
        labels: Mapping[str, str],
    ) -> None:
        if (snapshotter, key) in call.space.snapshots:
            raise WharfError(Kind.ALREADY_EXISTS, f"snapshot {key}: already exists")
        call.add_to_lease(f"snapshots/{snapshotter}", key)
        self._number += 1
        folder = self._root / str(self._number)
        folder.mkdir(parents=True)
        info = pb.Info(name=key, parent=parent, kind=kind, created_at=now(), updated_at=now(), labels=labels)
        call.space.snapshots[snapshotter, key] = Snapshot(info, folder)

    def _parent(self, call: Call, snapshotter: str, key: str) -> Snapshot | None:
        if not key:
            return None
        parent = self._at(call, snapshotter, key)
        if parent.info.kind != pb.COMMITTED:
            raise invalid(f"parent snapshot {key} is not committed")
        return parent

    def _at(self, call: Call, snapshotter: str, key: str) -> Snapshot:
        found = call.space.snapshots.get((snapshotter, key))
        if found is None:
            raise not_found(f"snapshot {key}: not found")
        return found

    def _all(self, space: Namespace, snapshotter: str) -> dict[str, Snapshot]:
        return {key: snapshot for (name, key), snapshot in space.snapshots.items() if name == snapshotter}


def _field_of(info: pb.Info, path: Sequence[str]) -> str | None:
    if path[0] == "parent":
        return info.parent  # also an empty one
    return _KIND[info.kind] if path[0] == "kind" else field_of(info, path)


def _mounts(snapshot: Snapshot) -> list[types_pb2.Mount]:
    mode = "rw" if snapshot.info.kind == pb.ACTIVE else "ro"
    return [types_pb2.Mount(type="bind", source=str(snapshot.folder), options=[mode, "rbind"])]
