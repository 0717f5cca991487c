"""The service of ``GET /version``, ``/info`` and ``/system/df``."""

import asyncio
import copy
import glob
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from api_models.filters import Filters
from api_models.supported import MAXIMUM, spelled
from engine.api.client import Engine
from engine.common import timeouts
from engine.common.errors import WharfError, invalid
from engine.common.system.run import run_sync
from engine.common.system.task_groups import run_all
from engine.runtime.probe import Binary, Probe
from server.builder.facade import BuilderFacade
from server.config import Config
from server.containers.run import devicerequests
from server.containers.service import Containers
from server.containers.spec.host import HostFacts
from server.events import EventBus
from server.images.service import Images
from server.images.timestamps import format_ns
from server.networks.service import Networks
from server.swarm.facade import SwarmFacade
from server.system import host, info, usage
from server.system.features import Features
from server.version import BUILD_TIME, GIT_COMMIT, SERVER_VERSION
from server.volumes import query as volume_query
from server.volumes.service import Volumes
from server.volumes.sizes import directory_size

if TYPE_CHECKING:
    from server.access.policy import Role

#: The values of ``type`` of ``GET /system/df``.
OBJECTS = ("container", "image", "volume", "build-cache")
#: In the disk usage, the object with the sums of each list.
_LISTS = {
    "Containers": "ContainerUsage",
    "Images": "ImageUsage",
    "Volumes": "VolumeUsage",
    "BuildCache": "BuildCacheUsage",
}


class System:
    """``config`` is replaced when the daemon reloads its file. ``identity``: the engine's ID."""

    def __init__(
        self,
        config: Config,
        *,
        engine: Engine,
        bus: EventBus,
        identity: str,
        facts: HostFacts,
        probe: Probe,
        snapshotter: str,
        containers: Containers,
        images: Images,
        volumes: Volumes,
        networks: Networks,
        build: BuilderFacade,
        swarm: SwarmFacade,
    ) -> None:
        self.config = config
        self.identity = identity
        self._engine = engine
        self._bus = bus
        self._facts = facts
        self._probe = probe
        self._snapshotter = snapshotter
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._networks = networks
        self._build = build
        self._swarm = swarm
        self._administrator = True
        self._features = Features()
        self._role: Role | None = None

    def seen_by(
        self,
        *,
        bus: EventBus,
        containers: Containers,
        images: Images,
        volumes: Volumes,
        networks: Networks,
        build: BuilderFacade,
        role: "Role | None",
        administrator: bool,
    ) -> "System":
        """The same service over the other services of one caller. It keeps this service's present configuration.
        ``role``: its limits are shown as the machine's."""
        bound = copy.copy(self)
        bound._role, bound._administrator = role, administrator
        bound._bus, bound._containers, bound._images = bus, containers, images
        bound._volumes, bound._networks, bound._build = volumes, networks, build
        return bound

    async def version(self) -> dict[str, Any]:
        """Return the answer of ``GET /version``."""
        engine = await self._engine.version()
        common = {
            "ApiVersion": spelled(MAXIMUM),
            "MinAPIVersion": spelled(self.config.oldest_version),
            "GitCommit": GIT_COMMIT,
            "Os": "linux",
            "Arch": host.go_architecture(),
            "KernelVersion": platform.release(),
            "BuildTime": BUILD_TIME,
        }
        details = {**common, "GoVersion": "", "Experimental": "false", "PythonVersion": platform.python_version()}
        components: list[dict[str, Any]] = [
            {"Name": "Engine", "Version": SERVER_VERSION, "Details": details},
            {"Name": "containerd", "Version": engine.version, "Details": {"GitCommit": engine.revision}},
        ]
        for name, binary in self._probe.usable.items():
            components.append(_component(name, binary))
        if self._facts.init_path:
            init = {"Name": "docker-init", "Version": self._init_version, "Details": {"GitCommit": ""}}
            components.append(init)
        return {
            "Platform": {"Name": "Wharf"},
            "Components": components,
            "Version": SERVER_VERSION,
            **common,
            # Clients in typed languages require this field.
            "GoVersion": "",
        }

    @cached_property
    def _init_version(self) -> str:
        """The version in the output of tini: ``tini version 0.19.0``; "" for another program."""
        try:
            done = run_sync([self._facts.init_path, "--version"], deadline=timeouts.seconds("runtime.probe"))
        except (OSError, subprocess.SubprocessError, WharfError):
            return ""
        words = done.stdout.decode(errors="replace").split()
        return words[2] if len(words) > 2 else ""

    async def info(self) -> dict[str, Any]:
        """Return the answer of ``GET /info`` at the newest API version."""
        context = self._containers.context
        states = Counter(container.state.status for container in self._containers.visible)
        running = states["running"] + states["restarting"]
        config = self.config
        document: dict[str, Any] = {
            "ID": self.identity,
            "Containers": sum(states.values()),
            "ContainersRunning": running,
            "ContainersPaused": states["paused"],
            "ContainersStopped": sum(states.values()) - running - states["paused"],
            "Images": await self._images.list.count(),
            "Plugins": info.plugins(config, self._volumes.driver_names(), self._networks.drivers()),
            "SecurityOptions": info.security(config, self._facts),
            "RegistryConfig": info.registries(config),
            "Swarm": self._swarm.info(administrator=self._administrator),
            "FirewallBackend": {"Driver": "nftables"},
            "DiscoveredDevices": await asyncio.to_thread(devicerequests.discovered, context.config.cdi_spec_dirs),
            "Containerd": {
                "Address": self._engine.address.removeprefix("unix://"),
                "Namespaces": {"Containers": self._engine.namespace, "Plugins": ""},
            },
            "Warnings": [*info.insecure_sockets(config), *self._probe.warnings, *info.limit_warnings(context.limits)]
            or None,
        }
        for part in (
            info.storage(config, self._snapshotter),
            info.limits(context.limits),
            info.host_facts(self._facts),
            info.process(config, self._bus.listeners),
            info.configured(config),
            await info.runtimes(context.runtimes.paths(), context.runtimes.default, self._features),
            info.commits((await self._engine.version()).revision, self._probe, self._facts),
        ):
            document |= part
        if self._role is not None:
            document |= info.shares(self._role, document["NCPU"], document["MemTotal"])
        return document

    async def disk_usage(self, objects: Collection[str], *, verbose: bool = False) -> dict[str, Any]:
        """Return the answer of ``GET /system/df`` for ``objects`` (of :data:`OBJECTS`), or for all if it is empty: the
        sums of each kind and the lists of objects. ``verbose``: the lists are in the objects of the sums, not beside
        them.

        :raises WharfError: INVALID_ARGUMENT ``unknown object type: x``.
        """
        for name in objects:
            if name not in OBJECTS:
                raise invalid(f"unknown object type: {name}")
        document: dict[str, Any] = {}
        await run_all(self._usage(name, document) for name in OBJECTS if not objects or name in objects)
        if verbose:
            document.pop("LayersSize", None)
            for rows, sums in _LISTS.items():
                if items := document.pop(rows, None):
                    document[sums]["Items"] = items
        return document

    async def _usage(self, name: str, document: dict[str, Any]) -> None:
        if name == "container":
            rows = await self._containers.list(Filters(), everything=True, size=True)
            paths = {one.id: (one.directory, one.log_path) for one in self._containers.visible}
            rows = document["Containers"] = await asyncio.to_thread(_add_files, rows, paths)
            for row in rows:
                row.pop("ImageManifestDescriptor", None)  # not part of this answer in dockerd either
            document["ContainerUsage"] = usage.of_containers(rows)
        elif name == "image":
            images = self._images.list
            rows = document["Images"] = await images.summaries(Filters(), show_all=False, shared_size=True)
            document["LayersSize"] = await images.layers_size()
            document["ImageUsage"] = usage.of_images(rows, document["LayersSize"])
        elif name == "volume":
            rows = document["Volumes"] = await volume_query.usage(self._volumes)
            document["VolumeUsage"] = usage.of_volumes(rows)
        else:
            rows = document["BuildCache"] = await self._cache_records()
            document["BuildCacheUsage"] = usage.of_build_cache(rows)

    async def _cache_records(self) -> list[dict[str, Any]]:
        return [
            {
                "ID": item.record.id,
                "Parents": list(item.record.parents) or None,
                "Type": item.record.kind,
                "Description": item.record.description,
                "InUse": item.in_use,
                "Shared": item.shared,
                "Size": item.record.size,
                "CreatedAt": format_ns(item.record.created_ns),
                "LastUsedAt": format_ns(item.record.used_ns) if item.record.used_ns else None,
                "UsageCount": item.record.uses,
            }
            for builds in await self._build.visible()
            for item in await builds.usage()
        ]


def _add_files(rows: list[dict[str, Any]], paths: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Add the size of the files beside a container's layer, mostly its log, which are removed with it. ``paths``: the
    directory and the log of each container."""
    for row in rows:
        directory, log = paths.get(row["Id"], ("", ""))
        size = directory_size(directory) if directory else 0
        if log and not log.startswith(f"{directory}/"):
            size += sum(map(_size, glob.glob(glob.escape(log) + "*")))
        if size:
            row["SizeRw"] = row.get("SizeRw", 0) + size
    return rows


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        # Removed by a log rotation meanwhile.
        return 0


def _component(name: str, binary: Binary) -> dict[str, Any]:
    return {"Name": name, "Version": binary.version, "Details": {"GitCommit": binary.commit, "Path": binary.path}}
