"""What a container adds to each of its log records: its tag, and the labels and variables that were chosen."""

import re

from engine.errors import internal
from server.services.containers.model import Container

_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
#: The tag of drivers that send lines away; files have one only where it is asked for.
DEFAULT_TAG = "{{.ID}}"


def log_attributes(container: Container) -> dict[str, str]:
    """What ``labels``, ``env`` and their regexes choose.

    :raises WharfError: INTERNAL (dockerd's 500 at start) for a bad pattern.
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
                raise internal(
                    f"failed to initialize logging driver: error parsing regexp: {error}: `{pattern}`"
                ) from None
            found.update({name: value for name, value in source.items() if compiled.search(name)})
    return found


def render_tag(container: Container, template: str) -> str:
    """``{{.Name}}/{{.ID}}`` and its like.

    :raises WharfError: INTERNAL for a field that isn't known, or another template construct.
    """
    fields = {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageName": container.config.image,
        "ImageID": image_id(container)[:12],
        "ImageFullID": container.image_id,
        "DaemonName": "docker",
        "Command": command(container),
        "Hostname": container.config.hostname,
    }

    def value(match: re.Match[str]) -> str:
        if match[1] not in fields:
            at = match.start(1) - 1
            raise internal(
                f'failed to initialize logging driver: template: log-tag:1:{at}: executing "log-tag" at <.{match[1]}>: '
                f"can't evaluate field {match[1]} in type *logger.Info"
            )
        return fields[match[1]]

    rendered = _FIELD.sub(value, template)
    if "{{" in rendered:
        raise internal(
            "failed to initialize logging driver: template: log-tag: "
            f"{template} uses a construct that is not supported in log tags"
        )
    return rendered


def image_id(container: Container) -> str:
    """Without the name of the hash."""
    return container.image_id.rpartition(":")[2]


def command(container: Container) -> str:
    """The whole command line."""
    return " ".join([container.path, *container.args])
