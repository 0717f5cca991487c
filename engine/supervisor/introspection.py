"""The supervisor's version, its id, and its plugins in containerd's sense."""

import os
import platform
import uuid
from collections.abc import Mapping, Sequence

from engine.api import filters
from engine.api.pb import introspection_pb2 as pb
from engine.api.pb import rpc_status_pb2, types_pb2
from engine.api.types import ServerInfo, Version
from engine.common.system import private

#: The version of containerd's API that this server implements; clients read it as containerd's own version.
API_VERSION = "1.7.24"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}

#: gRPC's code UNKNOWN, with which containerd reports the error of a plugin that doesn't work.
_UNKNOWN = 2

_SERVICES = (
    "containers",
    "content",
    "diff",
    "events",
    "images",
    "introspection",
    "leases",
    "namespaces",
    "snapshots",
    "tasks",
    "version",
    "healthcheck",
)


class Introspection:
    """``uuid``: see ``identity``. ``plugins``: those that not every supervisor has."""

    def __init__(self, uuid: str, plugins: Sequence[pb.Plugin]) -> None:
        self._uuid = uuid
        self._plugins = [*_plugins(), *plugins]

    def version(self) -> Version:
        return Version(version=f"{API_VERSION}+wharf", revision="")

    def server(self) -> ServerInfo:
        return ServerInfo(uuid=self._uuid, pid=os.getpid(), pidns=os.stat("/proc/self/ns/pid").st_ino)

    def plugins(self, expressions: Sequence[str]) -> list[pb.Plugin]:
        match = filters.compile_all(expressions)
        return [plugin for plugin in self._plugins if match(_fields(plugin))]


def identity(root: str) -> str:
    """The id of this root, created at its first start."""
    path = os.path.join(root, "uuid")
    try:
        with open(path, encoding="ascii") as file:
            return str(uuid.UUID(file.read().strip()))
    except (FileNotFoundError, ValueError):
        made = str(uuid.uuid4())
        private.make_file(path)
        with open(path, "w", encoding="ascii") as file:
            file.write(made)
        return made


def snapshotter_plugin(name: str, exports: Mapping[str, str], error: str = "") -> pb.Plugin:
    """``error``: why it doesn't work on this host; "": it works."""
    plugin = pb.Plugin(type="io.containerd.snapshotter.v1", id=name, platforms=[_here()], exports=exports)
    if error:
        plugin.init_err.CopyFrom(rpc_status_pb2.Status(code=_UNKNOWN, message=f"{error}: skip plugin"))
    return plugin


def _here() -> types_pb2.Platform:
    machine = platform.machine()
    return types_pb2.Platform(os="linux", architecture=_ARCHITECTURES.get(machine, machine))


def _plugins() -> list[pb.Plugin]:
    here = _here()
    return [
        pb.Plugin(type="io.containerd.content.v1", id="content"),
        pb.Plugin(type="io.containerd.metadata.v1", id="sqlite"),
        pb.Plugin(type="io.containerd.gc.v1", id="scheduler"),
        pb.Plugin(type="io.containerd.event.v1", id="exchange"),
        pb.Plugin(type="io.containerd.lease.v1", id="manager"),
        pb.Plugin(type="io.containerd.differ.v1", id="walking", platforms=[here]),
        pb.Plugin(type="io.containerd.runtime.v2", id="task", platforms=[here]),
        *(pb.Plugin(type="io.containerd.grpc.v1", id=name) for name in _SERVICES),
    ]


def _fields(plugin: pb.Plugin) -> filters.Fields:
    def field(path: Sequence[str]) -> str | None:
        match path:
            case ["type"]:
                return plugin.type
            case ["id"]:
                return plugin.id
            case ["platforms"]:
                return ",".join(f"{one.os}/{one.architecture}" for one in plugin.platforms)
            case ["capabilities"]:
                return ",".join(plugin.capabilities)
        return None

    return field
