"""The checks that refuse fields which this engine doesn't support, with the field's name.

The tests of ``compat_tests`` list the fields by ``@refuses``; some are refused by other checks of a create request.
"""

from api_models.container import ContainerConfig, HostConfig
from engine.common.errors import invalid


def refuse_unsupported(config: ContainerConfig, host: HostConfig) -> None:
    """:raises WharfError: INVALID_ARGUMENT with the field's name: the request sets an unsupported field."""
    if config.args_escaped:
        raise invalid("invalid field ArgsEscaped: command lines are escaped on Windows only")
    if host.cgroup:
        raise invalid(f"invalid cgroup mode: {host.cgroup}")
