"""The shim's settings for log drivers that send lines to a server or a plugin."""

from collections.abc import Mapping
from functools import partial

import orjson

from api_models.times import rfc3339
from server.containers.logs.fields import DEFAULT_TAG, command, log_attributes, render_tag
from server.containers.model import Container
from server.logdrivers.driver import Info
from server.logdrivers.drivers import DRIVERS
from server.units import parse_size

#: Bytes of the buffer with ``mode=non-blocking`` and no ``max-buffer-size``, as in dockerd.
DEFAULT_BUFFER = 1 << 20


def remote_options(container: Container, fifo: str) -> dict[str, str]:
    """The options ``remote``, ``mode`` and ``buffer`` of the stdio URI, and ``driver`` for a plugin. ``fifo``: the
    plugin's FIFO.

    :raises WharfError: INVALID_ARGUMENT: a bad address; INTERNAL: a bad tag or regex.
    :raises ValueError: a bad size or other value.
    """
    config = container.host_config.log_config
    options = config.config or {}
    driver = DRIVERS.get(config.type)
    if driver is None or driver.settings is None:
        found = {"driver": "plugin", "remote": orjson.dumps({"path": fifo}).decode()}
    else:
        found = {"remote": orjson.dumps(driver.settings(_info(container, options))).decode()}
    if options.get("mode") == "non-blocking":
        found["mode"] = "non-blocking"
        found["buffer"] = str(
            parse_size(options["max-buffer-size"]) if "max-buffer-size" in options else DEFAULT_BUFFER
        )
    return found


def _info(container: Container, options: Mapping[str, str]) -> Info:
    return Info(
        container_id=container.id,
        container_name=container.name,
        image_id=container.image_id,
        image_name=container.config.image,
        command=command(container),
        created=rfc3339(container.created_ns),
        tag=render_tag(container, options.get("tag") or DEFAULT_TAG),
        options=options,
        attributes=partial(log_attributes, container),
    )
