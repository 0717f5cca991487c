"""containerd.services.containers.v1"""

from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import containers_pb2 as pb
from engine.supervisor.call import Call
from engine.supervisor.containers import Containers
from engine.supervisor.gc import Collector


class ContainersServicer:
    def __init__(self, containers: Containers, collector: Collector) -> None:
        self._containers = containers
        self._collector = collector

    async def get(self, request: pb.GetContainerRequest, call: Call) -> pb.GetContainerResponse:
        return pb.GetContainerResponse(container=self._containers.get(call.namespace, request.id))

    async def list(self, request: pb.ListContainersRequest, call: Call) -> pb.ListContainersResponse:
        return pb.ListContainersResponse(containers=self._containers.list(call.namespace, request.filters))

    async def list_stream(
        self, request: pb.ListContainersRequest, call: Call
    ) -> AsyncIterator[pb.ListContainerMessage]:
        for container in self._containers.list(call.namespace, request.filters):
            yield pb.ListContainerMessage(container=container)

    async def create(self, request: pb.CreateContainerRequest, call: Call) -> pb.CreateContainerResponse:
        return pb.CreateContainerResponse(container=await self._containers.create(call.namespace, request.container))

    async def update(self, request: pb.UpdateContainerRequest, call: Call) -> pb.UpdateContainerResponse:
        mask = request.update_mask.paths
        container = await self._containers.update(call.namespace, request.container, mask)
        return pb.UpdateContainerResponse(container=container)

    async def delete(self, request: pb.DeleteContainerRequest, call: Call) -> Empty:
        await self._containers.delete(call.namespace, request.id)
        await self._collector.deleted(sync=False)
        return Empty()
