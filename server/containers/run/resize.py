"""``docker resize``: the size of a container's terminal."""

from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.stop import not_running


async def resize(context: ContainerContext, container: Container, height: int, width: int) -> None:
    """Sets the size in characters.

    :raises WharfError: CONFLICT: the container doesn't run.
    """
    if not container.state.running or container.state.restarting:
        raise not_running(container)
    await context.engine.tasks.resize_pty(container.id, width=width, height=height)
    context.publish(container, "resize", {"height": str(height), "width": str(width)})
