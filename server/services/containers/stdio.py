"""A container's stdio and log as the task's ``stdout`` URI tells them to the shim."""

import os
import re
from collections.abc import Mapping

import orjson

from engine.api.stdio import StdioUri
from engine.errors import invalid
from server.services.containers.logopts import parse_size
from server.services.containers.model import Container
from server.services.containers.room import Room

#: An unbounded log fills disks, so json-file rotates unless told otherwise; ``max-size=-1`` switches it off.
#: The numbers are those of dockerd's own ``local`` driver.
DEFAULT_SIZE = 20 << 20
DEFAULT_FILES = 5


def socket_path(room: Room, container: Container) -> str:
    """Where the container's stdio is served while it has a task."""
    return f"{room.settings.exec_root}/containers/{container.id}/stdio.sock"


def log_file(container: Container) -> str:
    """The log's path, ``""`` for a driver that keeps none here."""
    match container.host_config.log_config.type:
        case "json-file":
            return container.log_path
        case "local":
            return f"{container.directory}/local-logs/container.log"
    return ""


def stdio_uri(room: Room, container: Container) -> StdioUri:
    """The URI; makes the directories it names.

    :raises WharfError: INVALID_ARGUMENT for a log option whose value makes no sense.
    """
    path = socket_path(room, container)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    options = {
        "stdin": "1" if container.config.open_stdin else "0",
        "stdin-once": "1" if container.config.stdin_once else "0",
        **_log_options(container),
    }
    return StdioUri(path, options)


def _log_options(container: Container) -> dict[str, str]:
    config = container.host_config.log_config
    options = config.config or {}
    if config.type == "none":
        return {"driver": "none"}
    file = log_file(container)
    os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
    found = {"driver": config.type, "path": file}
    size, files = _limits(config.type, options)
    found["max-size"], found["max-file"] = str(size), str(files)
    compress = options.get("compress", "")
    if compress:
        if compress.lower() not in ("1", "t", "true", "0", "f", "false"):
            raise invalid(f'strconv.ParseBool: parsing "{compress}": invalid syntax')
        on = compress.lower() in ("1", "t", "true")
        if on and config.type == "json-file" and (files == 1 or size <= 0):
            raise invalid("compress cannot be true when max-file is less than 2 or max-size is not set")
        found["compress"] = "1" if on else "0"
    if config.type == "json-file" and (attributes := log_attributes(container)):
        found["attrs"] = orjson.dumps(attributes).decode()
    return found


def _limits(kind: str, options: Mapping[str, str]) -> tuple[int, int]:
    files = DEFAULT_FILES
    if "max-file" in options:
        text = options["max-file"]
        if not text.lstrip("-").isdecimal():
            raise invalid(f'strconv.Atoi: parsing "{text}": invalid syntax')
        files = int(text)
        if files < 1:
            raise invalid("max-file cannot be less than 1")
    elif "max-size" in options and kind == "json-file":
        # With a size alone dockerd keeps one file.
        files = 1
    text = options.get("max-size", "")
    if text == "-1":
        return 0, files
    if not text:
        return DEFAULT_SIZE, files
    try:
        return parse_size(text), files
    except ValueError as error:
        raise invalid(f"invalid value for max-size: {text}: {error}") from None


def log_attributes(container: Container) -> dict[str, str]:
    """What ``labels``, ``env``, their regexes and ``tag`` add to each record.

    :raises WharfError: INVALID_ARGUMENT for a bad pattern or template.
    """
    options = container.host_config.log_config.config or {}
    variables = dict(entry.split("=", 1) for entry in container.config.env or () if "=" in entry)
    found: dict[str, str] = {}
    for names, pattern, source in (
        (options.get("labels", ""), options.get("labels-regex", ""), container.labels),
        (options.get("env", ""), options.get("env-regex", ""), variables),
    ):
        for name in filter(None, names.split(",")):
            if name in source:
                found[name] = source[name]
        if pattern:
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise invalid(f"error parsing regexp: {error}: `{pattern}`") from None
            found.update({name: value for name, value in source.items() if compiled.search(name)})
    if tag := options.get("tag", ""):
        found["tag"] = render_tag(container, tag)
    return found


_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


def render_tag(container: Container, template: str) -> str:
    """``{{.Name}}/{{.ID}}`` and its like.

    :raises WharfError: INVALID_ARGUMENT for a field that isn't known, or another template construct.
    """
    image = container.image_id
    fields = {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageName": container.config.image,
        "ImageID": image.partition(":")[2][:12] or image,
        "ImageFullID": image,
        "DaemonName": "docker",
        "Command": " ".join([container.path, *container.args]),
    }

    def value(match: re.Match[str]) -> str:
        if match[1] not in fields:
            raise invalid(f'template: log-tag: can\'t evaluate field "{match[1]}" of the log tag {template}')
        return fields[match[1]]

    rendered = _FIELD.sub(value, template)
    if "{{" in rendered:
        raise invalid(f"template: log-tag: {template} uses a construct that is not supported in log tags")
    return rendered
