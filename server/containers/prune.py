"""``docker container prune``: removes stopped containers."""

import logging
from collections.abc import Iterable
from typing import Any

from api_models.filters import Filters
from api_models.until import until_ns
from engine.common.errors import WharfError, conflict
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.remove import remove

log = logging.getLogger(__name__)

ACCEPTED = ("label", "label!", "until")


async def prune(
    context: ContainerContext, containers: Iterable[Container], filters: Filters, *, owner: str
) -> dict[str, Any]:
    """Removes those of ``containers``, the containers of ``owner``, that are stopped and match the filters and returns
    the API's answer. A container that can't be removed is logged and stays.

    :raises WharfError: CONFLICT: another prune of this owner runs; INVALID_ARGUMENT: a bad filter.
    """
    if owner in context.pruning:
        raise conflict("a prune operation is already running")
    filters.validate(ACCEPTED)
    until = until_ns(filters)
    context.pruning.add(owner)
    deleted: list[str] = []
    reclaimed = 0
    try:
        chosen = [
            container
            for container in containers
            if not (container.state.running or (until and container.created_ns > until))
            and filters.labelled(container.labels)
        ]
        layer_sizes = await context.sizes.get_all(chosen)
        for container in chosen:
            if container.state.running:  # started while the sizes were measured
                continue
            try:
                await remove(context, container)
            except WharfError as error:
                log.warning("container=%s is not pruned: %s", container.id, error)
                continue
            deleted.append(container.id)
            reclaimed += layer_sizes[container.id][0]
    finally:
        context.pruning.discard(owner)
    context.bus.publish("container", "prune", "", {"reclaimed": str(reclaimed)}, owner=owner)
    return {"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed}
