"""``docker inspect`` of a container: every field that dockerd fills, null, empty and absent as there."""

import contextlib
from typing import Any

from api_models.times import rfc3339
from engine.common import timeouts
from engine.common.errors import WharfError
from server.containers import modes
from server.containers.context import Room
from server.containers.inspect import sizes
from server.containers.model import Container
from server.containers.mounts import mounts
from server.containers.run.process import process_of
from server.containers.waiters import Condition

timeouts.define("exit.seen", 5.0)  # from the end of a container's output to word of its exit


async def inspect(room: Room, container: Container, *, size: bool = False) -> dict[str, Any]:
    """The answer of ``GET /containers/{id}/json`` at the newest API version."""
    await _seen(room, container)
    document = describe(room, container)
    if size:
        document["SizeRw"], document["SizeRootFs"] = await sizes.of(room, container)
    return document


async def _seen(room: Room, container: Container) -> None:
    """Who saw the end of a container's output finds it stopped, although word of its exit may still be on its way."""
    state = container.state
    if not state.running or state.restarting or not state.pid or _exists(container):
        return
    waiter = room.waiters.register(container, Condition.NEXT_EXIT)
    with contextlib.suppress(WharfError):
        async with timeouts.limit("exit.seen"):
            await waiter


def _exists(container: Container) -> bool:
    try:
        process_of(container).close()
    except ProcessLookupError:
        return False
    return True


def describe(room: Room, container: Container) -> dict[str, Any]:
    """All but the sizes."""
    started = container.started_before
    networked = started and not container.config.network_disabled
    document: dict[str, Any] = {
        "Id": container.id,
        "Created": rfc3339(container.created_ns),
        "Path": container.path,
        "Args": container.args,
        "State": state(container),
        "Image": container.image_id,
        "ResolvConfPath": _file(container, "/etc/resolv.conf", container.resolv_conf_path) if networked else "",
        "HostnamePath": _file(container, "/etc/hostname", container.hostname_path) if started else "",
        "HostsPath": _file(container, "/etc/hosts", container.hosts_path) if networked else "",
        "LogPath": container.log_path if started else "",
        "Name": "/" + container.name,
        "RestartCount": container.restart_count,
        "Driver": container.driver,
        "Platform": container.platform,
        "MountLabel": container.mount_label,
        "ProcessLabel": container.process_label,
        "AppArmorProfile": container.apparmor_profile,
        "ExecIDs": sorted(container.exec_ids) or None,
        "HostConfig": _host_config(room, container),
        "GraphDriver": {"Data": None, "Name": container.driver},
        "Mounts": mounts.shown(container),
        "Config": _config(container),
        "NetworkSettings": room.networks.settings(container),
    }
    if container.image_manifest is not None:
        document["ImageManifestDescriptor"] = container.image_manifest
    return document


def _file(container: Container, destination: str, own: str) -> str:
    point = container.mounts.get(destination)
    return point.source if point is not None else own


def state(container: Container) -> dict[str, Any]:
    """``State``; ``Health`` only where there is a health check."""
    now = container.state
    document: dict[str, Any] = {
        "Status": now.word,
        "Running": now.running,
        "Paused": now.paused,
        "Restarting": now.restarting,
        "OOMKilled": now.oom_killed,
        "Dead": now.dead,
        "Pid": now.pid,
        "ExitCode": now.exit_code,
        "Error": now.error,
        "StartedAt": rfc3339(now.started_ns),
        "FinishedAt": rfc3339(now.finished_ns),
    }
    if now.health is not None:
        document["Health"] = {
            "Status": now.health.status,
            "FailingStreak": now.health.failing_streak,
            "Log": list(now.health.log),
        }
    return document


def _host_config(room: Room, container: Container) -> dict[str, Any]:
    host = container.host_config
    document = host.wire()
    document["Links"] = room.networks.links_of(container)
    own = {limit.name for limit in host.ulimits or ()}
    extra = [limit for name, limit in room.settings.default_ulimits.items() if name not in own]
    if extra:
        shown = [{"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft} for limit in extra]
        document["Ulimits"] = [*(document["Ulimits"] or ()), *shown]
    return document


def _config(container: Container) -> dict[str, Any]:
    config = container.config
    document = config.wire()
    # The default network's address was a field of the container before endpoints had their own.
    mode = container.host_config.network_mode
    if not config.mac_address and (mode == "bridge" or modes.user_defined(mode)):
        endpoint = container.networking.get(mode)
        if endpoint is not None and endpoint.mac_address:
            document["MacAddress"] = endpoint.mac_address
    return document
