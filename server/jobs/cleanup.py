"""Removes everything that an owner has, through the services bound to a caller who is that owner."""

from typing import Protocol

from engine.common.errors import Kind, WharfError
from server.builder.facade import BuilderFacade
from server.containers.service import Containers
from server.images.service import Images
from server.networks.service import Networks
from server.volumes.service import Volumes


class Bound(Protocol):
    """The services of one owner."""

    @property
    def containers(self) -> Containers: ...
    @property
    def networks(self) -> Networks: ...
    @property
    def volumes(self) -> Volumes: ...
    @property
    def images(self) -> Images: ...
    @property
    def build(self) -> BuilderFacade: ...


async def remove_all(services: Bound, owner: str) -> list[str]:
    """Removes the containers of ``owner`` with their volumes, then its networks, volumes, builds and images.

    Idempotent. Returns one sentence for each object that is left.
    """
    left: list[str] = []
    for container in list(services.containers.visible):
        try:
            await services.containers.remove(container.id, force=True, volumes=True)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                left.append(f"container {container.name}: {error.message}")
    left += await services.networks.remove_owned()
    for volume in list(services.volumes.all()):
        try:
            await services.volumes.remove(volume.own_name, force=True)
        except WharfError as error:
            left.append(f"volume {volume.own_name}: {error.message}")
    await services.build.remove_owned()
    await services.images.remove_owned()
    return left
