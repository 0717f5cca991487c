"""A container's log settings: its own, completed by the daemon's."""

from api_models.container import LogConfig
from server.containers.logs.plugin import is_plugin
from server.containers.model import Container
from server.logdrivers.options import check_common, check_log_options
from server.logdrivers.values import parse_bool


def merge_log_config(own: LogConfig, default: LogConfig) -> LogConfig:
    """The container's log settings with the daemon's defaults filled in, checked.

    :raises WharfError: INVALID_ARGUMENT naming the driver or option.
    """
    kind = own.type or default.type
    options = dict(own.config or {})
    if kind == default.type:
        for key, value in (default.config or {}).items():
            options.setdefault(key, value)
    if is_plugin(kind):
        # What else it understands is the plugin's own affair.
        check_common(options)
    else:
        check_log_options(kind, options)
    return LogConfig(type=kind, config=options)


def log_file(container: Container) -> str:
    """The log's path, ``""`` for a driver that keeps none here; for one that sends lines away, its copy's."""
    config = container.host_config.log_config
    match config.type:
        case "json-file":
            return container.log_path
        case "local":
            return f"{container.directory}/local-logs/container.log"
        case "none":
            return ""
    if parse_bool((config.config or {}).get("cache-disabled") or "false"):
        return ""
    return f"{container.directory}/container-cached.log"
