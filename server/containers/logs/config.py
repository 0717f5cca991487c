"""The log configuration of a container: the request's, completed by the daemon's."""

from api_models.container import LogConfig
from server.containers.logs.plugin import is_plugin
from server.containers.model import Container
from server.logdrivers.options import check_common, check_log_options
from server.logdrivers.values import parse_bool


def merge_log_config(own: LogConfig, default: LogConfig) -> LogConfig:
    """The container's log configuration, completed by the daemon's, and checked.

    :raises WharfError: INVALID_ARGUMENT with the name of the driver or the option.
    """
    kind = own.type or default.type
    options = dict(own.config or {})
    if kind == default.type:
        for key, value in (default.config or {}).items():
            options.setdefault(key, value)
    if is_plugin(kind):
        check_common(options)  # the plugin checks the other options
    else:
        check_log_options(kind, options)
    return LogConfig(type=kind, config=options)


def log_file(container: Container) -> str:
    """The path of the log file, ``""`` if there is none. Drivers that send lines to a server have a local copy."""
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
