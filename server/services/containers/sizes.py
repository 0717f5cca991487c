"""How much a container takes: its own layer, and with its image's."""

from engine.errors import WharfError
from server.services.containers.model import Container
from server.services.containers.room import Room


async def of(room: Room, container: Container) -> tuple[int, int]:
    """``SizeRw`` and ``SizeRootFs`` in bytes."""
    usage = await room.engine.snapshots.usage(container.id)
    own = usage.size
    total = own
    try:
        parent = (await room.engine.snapshots.stat(container.id)).parent
        while parent:
            total += (await room.engine.snapshots.usage(parent)).size
            parent = (await room.engine.snapshots.stat(parent)).parent
    except WharfError:
        # The image is being removed under us: what was counted so far is the answer.
        return own, total
    return own, total
