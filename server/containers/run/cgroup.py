"""The cgroup of a container."""

from engine.common.system.cgroups import scope_path
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.spec.build import cgroups_path


def cgroup_of(context: ContainerContext, container: Container) -> str:
    """The path of a running container's cgroup in every hierarchy, by the present configuration."""
    parent = container.host_config.cgroup_parent
    if not parent and context.shares is not None:
        parent = context.shares.cgroup_parent(container.owner)
    driver = context.facts.cgroup_driver
    return scope_path(cgroups_path(container.id, parent or context.config.cgroup_parent, driver))
