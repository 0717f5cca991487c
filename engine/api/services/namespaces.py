"""The namespace service."""

from collections.abc import Mapping

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import namespaces_pb2 as pb
from engine.api.rpc import Connection
from engine.api.types import label_mask

_SERVICE = "/containerd.services.namespaces.v1.Namespaces"


class Namespaces:
    def __init__(self, connection: Connection) -> None:
        self._rpc = connection

    async def get(self, name: str) -> dict[str, str]:
        """The namespace's labels; none if it doesn't exist yet: the first object in it creates it."""
        request = pb.GetNamespaceRequest(name=name)
        reply = await self._rpc.call(f"{_SERVICE}/Get", request, pb.GetNamespaceResponse)
        return dict(reply.namespace.labels)

    async def list(self) -> dict[str, dict[str, str]]:
        """Name → labels."""
        reply = await self._rpc.call(f"{_SERVICE}/List", pb.ListNamespacesRequest(), pb.ListNamespacesResponse)
        return {message.name: dict(message.labels) for message in reply.namespaces}

    async def create(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        request = pb.CreateNamespaceRequest(namespace=pb.Namespace(name=name, labels=dict(labels or {})))
        await self._rpc.call(f"{_SERVICE}/Create", request, pb.CreateNamespaceResponse)

    async def update_labels(self, name: str, labels: Mapping[str, str | None]) -> None:
        """Sets these labels and keeps the others; None removes a label."""
        message = pb.Namespace(name=name, labels={key: value or "" for key, value in labels.items()})
        request = pb.UpdateNamespaceRequest(namespace=message, update_mask=label_mask(labels))
        await self._rpc.call(f"{_SERVICE}/Update", request, pb.UpdateNamespaceResponse)

    async def delete(self, name: str) -> None:
        """Raises FAILED_PRECONDITION while the namespace is not empty."""
        await self._rpc.call(f"{_SERVICE}/Delete", pb.DeleteNamespaceRequest(name=name), Empty)
