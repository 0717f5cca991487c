"""containerd.services.namespaces.v1"""

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import namespaces_pb2 as pb
from engine.supervisor.call import Call
from engine.supervisor.namespaces import Namespaces


class NamespacesServicer:
    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces

    async def get(self, request: pb.GetNamespaceRequest, call: Call) -> pb.GetNamespaceResponse:
        labels = self._namespaces.get(request.name)
        return pb.GetNamespaceResponse(namespace=pb.Namespace(name=request.name, labels=labels))

    async def list(self, request: pb.ListNamespacesRequest, call: Call) -> pb.ListNamespacesResponse:
        found = self._namespaces.list().items()
        return pb.ListNamespacesResponse(namespaces=[pb.Namespace(name=name, labels=labels) for name, labels in found])

    async def create(self, request: pb.CreateNamespaceRequest, call: Call) -> pb.CreateNamespaceResponse:
        await self._namespaces.create(request.namespace.name, request.namespace.labels)
        return pb.CreateNamespaceResponse(namespace=request.namespace)

    async def update(self, request: pb.UpdateNamespaceRequest, call: Call) -> pb.UpdateNamespaceResponse:
        name = request.namespace.name
        labels = await self._namespaces.update(name, request.namespace.labels, request.update_mask.paths)
        return pb.UpdateNamespaceResponse(namespace=pb.Namespace(name=name, labels=labels))

    async def delete(self, request: pb.DeleteNamespaceRequest, call: Call) -> Empty:
        await self._namespaces.delete(request.name)
        return Empty()
