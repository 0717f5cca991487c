"""The settings of log drivers that send lines away, as the shim reads them (``engine.shim.logs.remote``)."""

import os
import re
from collections.abc import Callable, Mapping

import orjson

from api_models.times import rfc3339
from server.containers.logs.fields import DEFAULT_TAG, command, log_attributes, render_tag
from server.containers.model import Container
from server.logdrivers.address import fluentd_address, gelf_address, syslog_address
from server.logdrivers.options import parse_bool, parse_facility, parse_milliseconds, parse_unsigned
from server.units import parse_size

#: dockerd's, for all drivers (``mode=non-blocking`` without a size).
DEFAULT_BUFFER = 1 << 20

_NOT_IN_A_FIELD = re.compile(r"[^A-Z0-9]")


def remote_options(container: Container, fifo: str) -> dict[str, str]:
    """``remote``, and how the container waits for it. ``fifo``: where a plugin listens.

    :raises WharfError: INVALID_ARGUMENT for an address, INTERNAL for a tag.
    """
    config = container.host_config.log_config
    options = config.config or {}
    make = _SETTINGS.get(config.type)
    if make is None:
        found = {"driver": "plugin", "remote": orjson.dumps({"path": fifo}).decode()}
    else:
        tag = render_tag(container, options.get("tag") or DEFAULT_TAG)
        found = {"remote": orjson.dumps(make(container, options, tag)).decode()}
    if options.get("mode") == "non-blocking":
        found["mode"] = "non-blocking"
        found["buffer"] = str(
            parse_size(options["max-buffer-size"]) if "max-buffer-size" in options else DEFAULT_BUFFER
        )
    return found


def _syslog(container: Container, options: Mapping[str, str], tag: str) -> dict[str, object]:
    return {
        **syslog_address(options.get("syslog-address", "")).wire(),
        "facility": parse_facility(options.get("syslog-facility", "")),
        "format": options.get("syslog-format", ""),
        "tag": tag,
        "hostname": os.uname().nodename,
        "ca": options.get("syslog-tls-ca-cert", ""),
        "cert": options.get("syslog-tls-cert", ""),
        "key": options.get("syslog-tls-key", ""),
        # dockerd takes the option's mere presence for a yes.
        "skip-verify": "syslog-tls-skip-verify" in options,
    }


def _gelf(container: Container, options: Mapping[str, str], tag: str) -> dict[str, object]:
    fields = {
        "_container_id": container.id,
        "_container_name": container.name,
        "_image_id": container.image_id,
        "_image_name": container.config.image,
        "_command": command(container),
        "_tag": tag,
        "_created": rfc3339(container.created_ns),
    }
    for key, value in log_attributes(container).items():
        fields[key if key.startswith("_") else f"_{key}"] = value
    return {
        **gelf_address(options.get("gelf-address", "")).wire(),
        "hostname": os.uname().nodename,
        "fields": fields,
        "compression": options.get("gelf-compression-type", "gzip"),
        "level": int(options.get("gelf-compression-level", "1")),
        "attempts": int(options.get("gelf-tcp-max-reconnect", "3")),
        "delay": int(options.get("gelf-tcp-reconnect-delay", "1")),
    }


def _fluentd(container: Container, options: Mapping[str, str], tag: str) -> dict[str, object]:
    def given(name: str) -> bool:
        return parse_bool(options.get(f"fluentd-{name}") or "false")

    retry = options.get("fluentd-retry-wait") or options.get("fluentd-async-reconnect-interval") or "1s"
    found: dict[str, object] = {
        **fluentd_address(options.get("fluentd-address", "")).wire(),
        "tag": tag,
        "record": {
            "container_id": container.id,
            "container_name": f"/{container.name}",
            **log_attributes(container),
        },
        "precise": given("sub-second-precision"),
        "receipts": given("request-ack"),
        "asynchronous": given("async") or given("async-connect"),
        "retry": parse_milliseconds(retry),
        "attempts": parse_unsigned(options.get("fluentd-max-retries") or "0"),
    }
    if options.get("fluentd-buffer-limit"):
        found["limit"] = parse_size(options["fluentd-buffer-limit"])
    return found


def _journald(container: Container, options: Mapping[str, str], tag: str) -> dict[str, object]:
    fields = {
        "CONTAINER_ID": container.id[:12],
        "CONTAINER_ID_FULL": container.id,
        "CONTAINER_NAME": container.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": container.config.image,
        "SYSLOG_IDENTIFIER": tag,
    }
    for key, value in log_attributes(container).items():
        # The journal takes capitals, digits and underscores, and keeps names that begin with one for itself.
        fields[_NOT_IN_A_FIELD.sub("_", key.upper()).lstrip("_")] = value
    return {"fields": fields}


_SETTINGS: Mapping[str, Callable[[Container, Mapping[str, str], str], dict[str, object]]] = {
    "syslog": _syslog,
    "gelf": _gelf,
    "fluentd": _fluentd,
    "journald": _journald,
}
