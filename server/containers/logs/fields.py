"""The fields of a container in its log records: the tag, and the attributes that log options select."""

import os
import time

from engine.common import regex
from engine.common.errors import internal
from server.containers.model import Container
from server.gotemplate.parse import TemplateError
from server.gotemplate.template import render

#: The default tag of drivers that send lines to a server. File drivers have no default tag.
DEFAULT_TAG = "{{.ID}}"


def log_attributes(container: Container) -> dict[str, str]:
    """The labels and environment variables that the options ``labels``, ``env`` and their regexes select.

    :raises WharfError: INTERNAL, as in dockerd at start: a malformed regex.
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
                compiled = regex.compiled(pattern)
            except regex.RegexError as error:
                raise internal(f"failed to initialize logging driver: {error}") from None
            found.update({name: value for name, value in source.items() if compiled.search(name)})
    return found


def render_tag(container: Container, template: str) -> str:
    """The tag from a Go template such as ``{{.Name}}/{{.ID}}``, with the fields and methods of dockerd's
    ``logger.Info``.

    :raises WharfError: INTERNAL, in Go's words: a malformed template, or an unknown field.
    """
    config = container.host_config.log_config.config or {}
    created, nanoseconds = divmod(container.created_ns, 1_000_000_000)
    fraction = f".{nanoseconds:09d}".rstrip("0.")
    fields = {
        "Config": dict(config),
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerEntrypoint": container.path,
        "ContainerArgs": list(container.args),
        "ContainerImageID": container.image_id,
        "ContainerImageName": container.config.image,
        "ContainerCreated": time.strftime(f"%Y-%m-%d %H:%M:%S{fraction} +0000 UTC", time.gmtime(created)),
        "ContainerEnv": list(container.config.env or ()),
        "ContainerLabels": dict(container.labels),
        "LogPath": container.log_path,
        "DaemonName": "docker",
        "ID": lambda: container.id[:12],
        "FullID": lambda: container.id,
        "Name": lambda: container.name,
        "ImageID": lambda: container.image_id[:12],
        "ImageFullID": lambda: container.image_id,
        "ImageName": lambda: container.config.image,
        "Command": lambda: command(container),
        "Hostname": lambda: os.uname().nodename,
        "ExtraAttributes": lambda _modify: log_attributes(container),
    }
    try:
        return render("log-tag", template, fields, "logger.Info")
    except TemplateError as error:
        raise internal(f"failed to initialize logging driver: {error}") from None


def command(container: Container) -> str:
    """The command line: program and arguments."""
    return " ".join([container.path, *container.args])
