"""Container records."""

import json
from collections.abc import Sequence

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from engine.api.pb import containers_pb2 as pb
from engine.api.rpc import Connection
from engine.api.types import SPEC_TYPE, AnyValue, ContainerRecord, to_ns
from engine.common import jsontext
from engine.common.errors import internal

_SERVICE = "/containerd.services.containers.v1.Containers"


def _record(message: pb.Container) -> ContainerRecord:
    spec = None
    if message.spec.value:
        spec = jsontext.loads(message.spec.value)
        if not isinstance(spec, dict):
            raise internal(f"container {message.id}: the spec is not a JSON object")
    return ContainerRecord(
        id=message.id,
        image=message.image,
        labels=dict(message.labels),
        runtime_name=message.runtime.name,
        runtime_options=AnyValue.from_message(message.runtime.options),
        spec=spec,
        snapshotter=message.snapshotter,
        snapshot_key=message.snapshot_key,
        extensions={
            name: AnyValue(message.extensions[name].type_url, message.extensions[name].value)
            for name in message.extensions
        },
        created_at_ns=to_ns(message.created_at),
        updated_at_ns=to_ns(message.updated_at),
    )


def _message(record: ContainerRecord) -> pb.Container:
    message = pb.Container(
        id=record.id,
        labels=dict(record.labels),
        image=record.image,
        runtime=pb.Container.Runtime(name=record.runtime_name),
        snapshotter=record.snapshotter,
        snapshot_key=record.snapshot_key,
        extensions={name: value.to_message() for name, value in record.extensions.items()},
    )
    if record.runtime_options is not None:
        message.runtime.options.CopyFrom(record.runtime_options.to_message())
    if record.spec is not None:
        message.spec.type_url = SPEC_TYPE
        message.spec.value = json.dumps(record.spec, separators=(",", ":")).encode()
    return message


class Containers:
    def __init__(self, connection: Connection) -> None:
        self._rpc = connection

    async def get(self, id: str) -> ContainerRecord:
        """Raises NOT_FOUND when there is no such record."""
        reply = await self._rpc.call(f"{_SERVICE}/Get", pb.GetContainerRequest(id=id), pb.GetContainerResponse)
        return _record(reply.container)

    async def list(self, filters: Sequence[str] = ()) -> list[ContainerRecord]:
        request = pb.ListContainersRequest(filters=filters)
        stream = self._rpc.stream(f"{_SERVICE}/ListStream", request, pb.ListContainerMessage)
        return [_record(message.container) async for message in stream]

    async def create(self, record: ContainerRecord) -> ContainerRecord:
        """Raises ALREADY_EXISTS when the id is taken."""
        request = pb.CreateContainerRequest(container=_message(record))
        return _record((await self._rpc.call(f"{_SERVICE}/Create", request, pb.CreateContainerResponse)).container)

    async def update(self, record: ContainerRecord, *, fields: Sequence[str] = ()) -> ContainerRecord:
        """Replaces the named fields (``labels``, ``spec``, ``extensions``, ``image``, ``labels.<name>`` …)."""
        request = pb.UpdateContainerRequest(container=_message(record), update_mask=FieldMask(paths=fields))
        return _record((await self._rpc.call(f"{_SERVICE}/Update", request, pb.UpdateContainerResponse)).container)

    async def delete(self, id: str) -> None:
        """Deletes the record only. Delete the task before it, and the snapshot after it."""
        await self._rpc.call(f"{_SERVICE}/Delete", pb.DeleteContainerRequest(id=id), Empty, again=True)
