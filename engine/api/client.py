"""The client of containerd's API: it talks to our supervisor or to a stock containerd."""

from google.protobuf.empty_pb2 import Empty

from engine.api.extensions import NONE, PLUGIN_TYPE, Extensions
from engine.api.pb import health_pb2, version_pb2
from engine.api.rpc import Connection
from engine.api.services.containers import Containers
from engine.api.services.content import Content
from engine.api.services.diff import Diff
from engine.api.services.events import Events
from engine.api.services.images import Images
from engine.api.services.introspection import Introspection
from engine.api.services.leases import Leases
from engine.api.services.namespaces import Namespaces
from engine.api.services.snapshots import Snapshots
from engine.api.services.tasks import Tasks
from engine.api.types import Version
from engine.common.errors import Kind, WharfError


class Engine:
    """One connection for one namespace. Creating it costs little; it belongs to one event loop.

    ``address`` is ``unix:///path`` or a path. Every method raises WharfError with the kind that the server answered;
    UNAVAILABLE when the server can't be reached, DEADLINE_EXCEEDED when a named deadline has passed.
    """

    def __init__(
        self,
        address: str,
        *,
        namespace: str = "moby",
        snapshotter: str = "overlayfs",
        connection: Connection | None = None,
    ) -> None:
        """``connection``: carries the calls instead of one to ``address`` (unit tests)."""
        self._rpc = connection or Connection(address, namespace)
        # The version that the server answered, and the connection's count of losses at that moment.
        self._version: tuple[int, Version] | None = None
        self.address = address
        self.extensions = NONE
        self.namespace = namespace
        self.content = Content(self._rpc)
        self.images = Images(self._rpc)
        self.leases = Leases(self._rpc)
        self.snapshots = Snapshots(self._rpc, snapshotter)
        self.diff = Diff(self._rpc)
        self.containers = Containers(self._rpc)
        self.tasks = Tasks(self._rpc)
        self.events = Events(self._rpc)
        self.namespaces = Namespaces(self._rpc)
        self.introspection = Introspection(self._rpc)

    async def connect(self, *, deadline: float) -> None:
        """Waits up to ``deadline`` seconds until the server answers that it serves, and reads the extensions that it
        declares; raises UNAVAILABLE after that."""
        await self._rpc.ready(deadline)
        reply = await self._rpc.call(
            "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse
        )
        if reply.status != health_pb2.HealthCheckResponse.SERVING:
            raise WharfError(Kind.UNAVAILABLE, f"{self._rpc.address}: the server does not answer")
        plugins = await self.introspection.plugins([f"type=={PLUGIN_TYPE}"])
        self.use(Extensions.from_plugins(plugins))

    def use(self, extensions: Extensions) -> None:
        """Makes shorter calls where the server has them; the standard ones with ``NONE``."""
        self.extensions = self.content.extensions = self.diff.extensions = self.snapshots.extensions = extensions

    async def close(self) -> None:
        await self._rpc.close()

    async def version(self) -> Version:
        """The server's version. It is cached until the connection is lost: a new server may have another version. The
        event stream, which wharfd always keeps open, notices the loss."""
        losses = self._rpc.losses
        if self._version is not None and self._version[0] == losses:
            return self._version[1]
        reply = await self._rpc.call(
            "/containerd.services.version.v1.Version/Version", Empty(), version_pb2.VersionResponse
        )
        found = Version(version=reply.version, revision=reply.revision)
        self._version = losses, found
        return found
