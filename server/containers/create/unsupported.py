"""Fields of the API that this engine cannot honour: each is refused by name, none is silently dropped.

What a test of ``compat_tests`` names with ``@refuses`` is refused here, or by the check that owns the field.
"""

from api_models.container import ContainerConfig, HostConfig
from engine.common.errors import invalid
from server.containers.context import ContainerContext


def refuse_unsupported(config: ContainerConfig, host: HostConfig, context: ContainerContext) -> None:
    """
    :raises WharfError: INVALID_ARGUMENT or NOT_IMPLEMENTED naming the field.
    """
    if config.args_escaped:
        raise invalid("invalid field ArgsEscaped: command lines are escaped on Windows only")
    if host.cgroup:
        raise invalid(f"invalid cgroup mode: {host.cgroup}")
