"""containerd.services.introspection.v1, containerd.services.version.v1 and grpc.health.v1"""

from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import health_pb2, version_pb2
from engine.api.pb import introspection_pb2 as pb
from engine.common.errors import not_found
from engine.supervisor.call import Call
from engine.supervisor.introspection import Introspection

_SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class IntrospectionServicer:
    def __init__(self, introspection: Introspection) -> None:
        self._introspection = introspection

    async def plugins(self, request: pb.PluginsRequest, call: Call) -> pb.PluginsResponse:
        return pb.PluginsResponse(plugins=self._introspection.plugins(request.filters))

    async def server(self, request: Empty, call: Call) -> pb.ServerResponse:
        info = self._introspection.server()
        return pb.ServerResponse(uuid=info.uuid, pid=info.pid, pidns=info.pidns)


class VersionServicer:
    def __init__(self, introspection: Introspection) -> None:
        self._introspection = introspection

    async def version(self, request: Empty, call: Call) -> version_pb2.VersionResponse:
        version = self._introspection.version()
        return version_pb2.VersionResponse(version=version.version, revision=version.revision)


class HealthServicer:
    async def check(self, request: health_pb2.HealthCheckRequest, call: Call) -> health_pb2.HealthCheckResponse:
        if request.service:
            raise not_found("unknown service")
        return _SERVING

    async def watch(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        yield _SERVING
