"""The introspection service: the server's plugins and identity."""

from collections.abc import Sequence

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import introspection_pb2 as pb
from engine.api.rpc import Connection
from engine.api.types import Plugin, ServerInfo

_SERVICE = "/containerd.services.introspection.v1.Introspection"


class Introspection:
    def __init__(self, connection: Connection) -> None:
        self._rpc = connection

    async def plugins(self, filters: Sequence[str] = ()) -> list[Plugin]:
        request = pb.PluginsRequest(filters=filters)
        reply = await self._rpc.call(f"{_SERVICE}/Plugins", request, pb.PluginsResponse)
        return [
            Plugin(
                type=message.type,
                id=message.id,
                exports=dict(message.exports),
                capabilities=tuple(message.capabilities),
                error=message.init_err.message,
            )
            for message in reply.plugins
        ]

    async def server(self) -> ServerInfo:
        reply = await self._rpc.call(f"{_SERVICE}/Server", Empty(), pb.ServerResponse)
        return ServerInfo(uuid=reply.uuid, pid=reply.pid, pidns=reply.pidns)
