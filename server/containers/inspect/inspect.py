"""``docker inspect`` of a container: all fields of dockerd; null, empty and absent values are the same as dockerd's."""

import contextlib
import os
from dataclasses import replace
from typing import Any

from api_models.container import ContainerConfig, ContainerInspect, HostConfig
from api_models.times import rfc3339
from engine.common import timeouts
from engine.common.errors import WharfError
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.mounts import mounts
from server.containers.values import modes
from server.containers.waiters import Condition

timeouts.define("exit.seen", 5.0)  # from the exit of a container's process to the engine's event


async def inspect(context: ContainerContext, container: Container, *, size: bool = False) -> dict[str, Any]:
    """The answer of ``GET /containers/{id}/json`` at the newest API version."""
    await _await_exit_event(context, container)
    document = describe(context, container)
    if size:
        written, whole = await context.sizes.get(container)
        document = replace(document, size_rw=written, size_root_fs=whole)
    return document.wire()


async def _await_exit_event(context: ContainerContext, container: Container) -> None:
    """Waits for the exit event of a container whose process has exited: a client that has read the end of the output
    expects a stopped container."""
    state = container.state
    if not state.running or state.restarting or not state.pid or _exists(state.pid):
        return
    waiter = context.waiters.register(container, Condition.NEXT_EXIT)
    with contextlib.suppress(WharfError):
        async with timeouts.limit("exit.seen"):
            await waiter


def _exists(pid: int) -> bool:
    """True also for another process that has got the pid: the answer then is the one of a moment earlier. Reading the
    start time of a process takes 17 µs, a tenth of an inspect."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def describe(context: ContainerContext, container: Container) -> ContainerInspect:
    """The answer without the sizes."""
    started = container.started_before
    networked = started and not container.config.network_disabled
    return ContainerInspect(
        id=container.id,
        created=rfc3339(container.created_ns),
        path=container.path,
        args=tuple(container.args),
        state=state(container),
        image=container.image_id,
        resolv_conf_path=_file(container, "/etc/resolv.conf", container.resolv_conf_path) if networked else "",
        hostname_path=_file(container, "/etc/hostname", container.hostname_path) if started else "",
        hosts_path=_file(container, "/etc/hosts", container.hosts_path) if networked else "",
        log_path=container.log_path if started else "",
        name="/" + container.name,
        restart_count=container.restart_count,
        driver=container.driver,
        platform=container.platform,
        mount_label=container.mount_label,
        process_label=container.process_label,
        app_armor_profile=container.apparmor_profile,
        exec_ids=tuple(sorted(container.exec_ids)) or None,
        host_config=_host_config(context, container),
        graph_driver={"Data": None, "Name": container.driver},
        storage={"RootFS": {"Snapshot": {"Name": container.driver}}},
        mounts=mounts.describe(container),
        config=_config(container),
        network_settings=context.networks.settings(container),
        image_manifest_descriptor=container.image_manifest,
    )


def _file(container: Container, destination: str, own: str) -> str:
    point = container.mounts.get(destination)
    return point.source if point is not None else own


def state(container: Container) -> dict[str, Any]:
    """The object ``State``; with ``Health`` if the container has a health check."""
    now = container.state
    document: dict[str, Any] = {
        "Status": now.status,
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


def _host_config(context: ContainerContext, container: Container) -> HostConfig:
    host = container.host_config
    own = {limit.name for limit in host.ulimits or ()}
    extra = tuple(limit for name, limit in context.defaults.ulimits.items() if name not in own)
    links = context.networks.links_of(container)
    if links is None and host.links is None and not extra:
        return host
    return replace(
        host,
        links=None if links is None else tuple(links),
        ulimits=(*(host.ulimits or ()), *extra) if extra else host.ulimits,
    )


def _config(container: Container) -> ContainerConfig:
    config = container.config
    # Clients below API 1.44 read the MAC address of the main network here.
    mode = container.host_config.network_mode
    if not config.mac_address and (mode == "bridge" or modes.user_defined(mode)):
        endpoint = container.networking.get(mode)
        if endpoint is not None and endpoint.mac_address:
            return replace(config, mac_address=endpoint.mac_address)
    return config
