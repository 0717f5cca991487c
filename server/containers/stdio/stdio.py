"""The ``stdout`` URI of a task: the settings of a container's stdio and log, which the shim reads."""

import os
from collections.abc import Mapping

import orjson

from engine.api.stdio import StdioUri
from engine.common.errors import internal
from engine.common.system import private
from server.containers.context import ContainerContext
from server.containers.logs.config import log_file
from server.containers.logs.fields import log_attributes, render_tag
from server.containers.logs.plugin import fifo_path
from server.containers.logs.remote import remote_options
from server.containers.model import Container
from server.containers.plan import ContainerPlan
from server.containers.stdio_backend import Embedded
from server.logdrivers.options import FILES
from server.logdrivers.values import parse_bool
from server.units import parse_size

#: The rotation of file drivers without options, as in dockerd's ``local`` driver. dockerd's ``json-file`` doesn't
#: rotate by default and so can fill the disk; ``max-size=-1`` switches the rotation off.
DEFAULT_SIZE = 20 << 20
DEFAULT_FILES = 5


def socket_path(context: ContainerContext, container: Container) -> str:
    """The path of the socket on which the container's stdio is served while it has a task."""
    return f"{context.config.exec_root}/containers/{container.id}/stdio.sock"


def stdio_uri(context: ContainerContext, container: Container) -> StdioUri:
    """The container's URI. Makes the directories of the paths in it.

    :raises WharfError: INTERNAL, as in dockerd: a log option has an invalid value.
    """
    path = socket_path(context, container)
    private.make_directory(os.path.dirname(path))
    options = {
        "stdin": "1" if container.config.open_stdin else "0",
        "stdin-once": "1" if container.config.stdin_once else "0",
        **_log_options(context, container),
        **owner(context, container),
        **({"usage": "1"} if context.shares is not None else {}),
    }
    return StdioUri(path, options)


def task_owner(context: ContainerContext, container: ContainerPlan) -> tuple[int, int] | None:
    """The (uid, gid) of the pipes that a stock containerd makes; None: root, or our own shim makes the pipes."""
    remap = context.remap_of(container)
    return remap.root if remap is not None and not isinstance(context.stdio, Embedded) else None


def owner(context: ContainerContext, container: ContainerPlan) -> dict[str, str]:
    """The URI's option with the owner of the pipes that our own shim makes; {}: root."""
    remap = context.remap_of(container)
    return {"owner": "{}:{}".format(*remap.root)} if remap is not None else {}


def _log_options(context: ContainerContext, container: Container) -> dict[str, str]:
    config = container.host_config.log_config
    options = config.config or {}
    if config.type == "none":
        return {"driver": "none"}
    found = {"driver": config.type, "path": log_file(container)}
    try:
        if config.type not in FILES:
            found |= remote_options(container, fifo_path(context, container))
            options = {key.removeprefix("cache-"): value for key, value in options.items() if key.startswith("cache-")}
        if found["path"]:
            private.make_directory(os.path.dirname(found["path"]))
            found |= _file_options(config.type, options)
        if config.type == "json-file":
            attributes = log_attributes(container)
            if tag := options.get("tag", ""):
                attributes["tag"] = render_tag(container, tag)
            if attributes:
                found["attrs"] = orjson.dumps(attributes).decode()
    except ValueError as error:
        raise internal(f"failed to initialize logging driver: {error}") from None
    return found


def _file_options(kind: str, options: Mapping[str, str]) -> dict[str, str]:
    """The URI's options for a file driver; ``max-size`` in bytes.

    :raises ValueError: an invalid value, in dockerd's words.
    """
    files = DEFAULT_FILES
    if text := options.get("max-file", ""):
        if not text.lstrip("-").isdecimal():
            raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
        files = int(text)
        if files < 1:
            raise ValueError("max-file cannot be less than 1")
    elif "max-size" in options and kind == "json-file":
        # As in dockerd, max-size without max-file keeps one file.
        files = 1
    text = options.get("max-size", "")
    size = 0 if text == "-1" else parse_size(text) if text else DEFAULT_SIZE
    found = {"max-size": str(size), "max-file": str(files)}
    if compress := options.get("compress", ""):
        on = parse_bool(compress)
        if on and kind == "json-file" and (files == 1 or size <= 0):
            raise ValueError("compress cannot be true when max-file is less than 2 or max-size is not set")
        found["compress"] = "1" if on else "0"
    return found
