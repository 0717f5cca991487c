"""Which ids of the host the ids of a user namespace are (user_namespaces(7))."""

from collections.abc import Sequence
from dataclasses import dataclass

#: What a file shows whose owner has no id on the other side.
OVERFLOW = 65534


@dataclass(frozen=True, slots=True)
class IdMapping:
    """``size`` ids from ``container_id`` on are the host's from ``host_id`` on."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True)
class IdMaps:
    """Users and groups of one kind of user namespace."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]

    @property
    def root(self) -> tuple[int, int]:
        """uid and gid on the host of the container's root."""
        return self.to_host(0, 0)

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """:raises ValueError: an id that the namespace does not have."""
        found = _host(self.uids, uid), _host(self.gids, gid)
        if None in found:
            raise ValueError(f"container ids {uid}:{gid} cannot be mapped to a host id")
        return found[0] or 0, found[1] or 0

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """Ids of the host as they look inside; :data:`OVERFLOW` for those that are nobody's there."""
        return _container(self.uids, uid), _container(self.gids, gid)


def _host(mappings: Sequence[IdMapping], wanted: int) -> int | None:
    for item in mappings:
        if item.container_id <= wanted < item.container_id + item.size:
            return item.host_id + wanted - item.container_id
    return None


def _container(mappings: Sequence[IdMapping], wanted: int) -> int:
    for item in mappings:
        if item.host_id <= wanted < item.host_id + item.size:
            return item.container_id + wanted - item.host_id
    return OVERFLOW
