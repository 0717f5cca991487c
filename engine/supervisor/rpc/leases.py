"""containerd.services.leases.v1"""

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import leases_pb2 as pb
from engine.api.types import Lease, LeaseResource, to_timestamp
from engine.supervisor.call import Call
from engine.supervisor.gc import Collector
from engine.supervisor.leases import Leases


class LeasesServicer:
    def __init__(self, leases: Leases, collector: Collector) -> None:
        self._leases = leases
        self._collector = collector

    async def create(self, request: pb.CreateRequest, call: Call) -> pb.CreateResponse:
        lease = await self._leases.create(call.namespace, request.id, request.labels)
        self._collector.schedule_expiry(lease.labels)
        return pb.CreateResponse(lease=_lease(lease))

    async def delete(self, request: pb.DeleteRequest, call: Call) -> Empty:
        await self._leases.delete(call.namespace, request.id)
        await self._collector.deleted(sync=request.sync)
        return Empty()

    async def list(self, request: pb.ListRequest, call: Call) -> pb.ListResponse:
        return pb.ListResponse(leases=map(_lease, self._leases.list(call.namespace, request.filters)))

    async def add_resource(self, request: pb.AddResourceRequest, call: Call) -> Empty:
        await self._leases.add_resource(call.namespace, request.id, _resource(request.resource))
        return Empty()

    async def delete_resource(self, request: pb.DeleteResourceRequest, call: Call) -> Empty:
        await self._leases.delete_resource(call.namespace, request.id, _resource(request.resource))
        await self._collector.deleted(sync=False)
        return Empty()

    async def list_resources(self, request: pb.ListResourcesRequest, call: Call) -> pb.ListResourcesResponse:
        found = self._leases.resources(call.namespace, request.id)
        return pb.ListResourcesResponse(
            resources=[pb.Resource(id=resource.id, type=resource.type) for resource in found]
        )


def _lease(lease: Lease) -> pb.Lease:
    return pb.Lease(id=lease.id, created_at=to_timestamp(lease.created_at_ns), labels=dict(lease.labels))


def _resource(message: pb.Resource) -> LeaseResource:
    return LeaseResource(message.id, message.type)
