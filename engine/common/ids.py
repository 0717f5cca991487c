"""The mapping of a user namespace's ids to the host's ids (user_namespaces(7))."""

from collections.abc import Sequence
from dataclasses import dataclass

#: The owner that a file has if its owner's id is not mapped.
OVERFLOW = 65534


@dataclass(frozen=True, slots=True)
class IdMapping:
    """``size`` ids from ``container_id`` on map to the host's from ``host_id`` on."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True)
class IdMaps:
    """The users and groups of one user namespace."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]

    @property
    def root(self) -> tuple[int, int]:
        """The host's uid and gid of the container's root."""
        return self.to_host(0, 0)

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """:raises ValueError: an id that the namespace does not have."""
        found = _host(self.uids, uid), _host(self.gids, gid)
        if None in found:
            raise ValueError(f"container ids {uid}:{gid} cannot be mapped to a host id")
        return found[0] or 0, found[1] or 0

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """The namespace's ids of a host uid and gid; :data:`OVERFLOW` for an id that is not mapped."""
        return _container(self.uids, uid), _container(self.gids, gid)


def _host(mappings: Sequence[IdMapping], id: int) -> int | None:
    for item in mappings:
        if item.container_id <= id < item.container_id + item.size:
            return item.host_id + id - item.container_id
    return None


def _container(mappings: Sequence[IdMapping], id: int) -> int:
    for item in mappings:
        if item.host_id <= id < item.host_id + item.size:
            return item.container_id + id - item.host_id
    return OVERFLOW
