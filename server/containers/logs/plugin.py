"""Log drivers in other processes: Docker's legacy plugin protocol (``LogDriver.StartLogging`` and a FIFO).

This daemon makes the FIFO, and the container's shim writes to it: a restart of this daemon interrupts no log.
"""

import contextlib
import logging
import os
from typing import Any

from api_models.times import rfc3339
from engine.common.errors import Kind, WharfError, not_found
from engine.common.system import private
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.logdrivers.drivers import DRIVERS
from server.plugins.client import PluginClient
from server.plugins.discovery import Plugins

log = logging.getLogger(__name__)

_plugins = Plugins()


def is_plugin(driver: str) -> bool:
    """Whether the driver is none of ours, and a plugin of this name exists."""
    return driver not in DRIVERS and _plugins.find(driver) is not None


def fifo_path(context: ContainerContext, container: Container) -> str:
    return f"{context.config.exec_root}/containers/{container.id}/log.fifo"


async def _client(driver: str) -> PluginClient:
    try:
        return await _plugins.get(driver, "LogDriver")
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        raise not_found(f"error looking up logging plugin {driver}: {error.message}") from error


async def start_logging(context: ContainerContext, container: Container) -> None:
    """Makes the FIFO and starts the plugin's logging; call it before the task is created. Does nothing for our own
    drivers.

    :raises WharfError: NOT_FOUND: there is no such plugin; INTERNAL: the plugin's error.
    """
    driver = container.host_config.log_config.type
    if driver in DRIVERS:
        return
    client = await _client(driver)
    path = fifo_path(context, container)
    private.make_directory(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o700)
    await client.call("LogDriver.StartLogging", {"File": path, "Info": _info(container)})


async def stop_logging(context: ContainerContext, container: Container) -> None:
    """Ends the plugin's logging and removes the FIFO; call it after the task is deleted, when the shim has written all
    lines, or after a failed start. Errors are logged."""
    driver = container.host_config.log_config.type
    if driver in DRIVERS:
        return
    path = fifo_path(context, container)
    try:
        await (await _client(driver)).call("LogDriver.StopLogging", {"File": path})
    except WharfError as error:
        log.warning("container=%s log plugin: %s", container.id, error)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _info(container: Container) -> dict[str, Any]:
    """The ``Info`` of ``LogDriver.StartLogging``, with the fields of dockerd's ``logger.Info``."""
    return {
        "Config": dict(container.host_config.log_config.config or {}),
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerEntrypoint": container.path,
        "ContainerArgs": container.args,
        "ContainerImageID": container.image_id,
        "ContainerImageName": container.config.image,
        "ContainerCreated": rfc3339(container.created_ns),
        "ContainerEnv": list(container.config.env or ()),
        "ContainerLabels": dict(container.labels),
        "LogPath": "",
        "DaemonName": "docker",
    }
