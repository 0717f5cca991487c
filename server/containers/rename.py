"""``docker rename``."""

from engine.common.errors import WharfError, conflict, invalid
from server.containers.context import ContainerContext
from server.containers.model import Container


async def rename(context: ContainerContext, container: Container, name: str) -> None:
    """Renames a container and its DNS names. ``name`` may have a leading slash.

    :raises WharfError: INVALID_ARGUMENT: an empty or malformed name, or the current one; CONFLICT: the name is in use,
        or the container is being removed.
    """
    if not name:
        raise invalid("Neither old nor new names may be empty")
    async with container.lock:
        if container.state.removing or container.state.dead:
            raise conflict("container is marked for removal and cannot be renamed")
        old = container.name
        if name.removeprefix("/") == old:
            raise invalid("Renaming a container with the same name as its current name")
        try:
            new = context.registry.reserve("/" + name.removeprefix("/"), container.id, container.owner)
        except WharfError as error:
            raise WharfError(error.kind, f"Error when allocating new name: {error.message}") from error
        container.name = new
        try:
            await context.save(container)
            await context.networks.rename(container, old)
        except BaseException:
            container.name = old
            await context.save(container)
            context.registry.release(new, container.owner)
            raise
        context.registry.release(old, container.owner)
        context.publish(container, "rename", {"oldName": "/" + old})
