"""All containers in memory: found by id, by name, or by a prefix of the id that fits only one."""

from collections.abc import Iterator

from engine.common.errors import Kind, WharfError, conflict, invalid, not_found
from server.containers.model import Container
from server.containers.values import names


class Registry:
    """Lookups cost a dict access; a prefix costs a walk over the ids.

    A name is reserved for an id before the container is added, so that two creates at once can't share one.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, key: str) -> Container:
        """The container that ``key`` names.

        :raises WharfError: NOT_FOUND ``No such container: x``; INVALID_ARGUMENT for an ambiguous prefix.
        """
        if not key:
            raise invalid('invalid name or ID supplied: ""')
        found = self._by_id.get(key) or self.by_name(key)
        if found is not None:
            return found
        matches = [id for id in self._by_id if id.startswith(key)]
        if len(matches) > 1:
            raise invalid(f"multiple IDs found with provided prefix: {key}")
        if not matches:
            raise not_found(f"No such container: {key}")
        return self._by_id[matches[0]]

    def partner(self, key: str, what: str) -> Container:
        """The running container whose ``what`` namespace is joined.

        :raises WharfError: it isn't there, doesn't run, or is about to run again.
        """
        failed = f"failed to join {what} namespace: "
        try:
            other = self.get(key)
        except WharfError as error:
            if error.kind in (Kind.NOT_FOUND, Kind.INVALID_ARGUMENT):
                raise invalid(failed + error.message) from None
            raise
        if not other.state.running:
            raise conflict(f"{failed}container {key} is not running")
        if other.state.restarting:
            raise conflict(f"{failed}Container {key} is restarting, wait until the container is running")
        return other

    def find(self, key: str) -> Container | None:
        """As ``get``, but None instead of an error."""
        try:
            return self.get(key)
        except WharfError as error:
            if error.kind in (Kind.NOT_FOUND, Kind.INVALID_ARGUMENT):
                return None
            raise

    def by_id(self, id: str) -> Container | None:
        return self._by_id.get(id)

    def by_name(self, name: str) -> Container | None:
        return self._by_id.get(self._names.get(name.removeprefix("/"), ""))

    def reserve(self, name: str, id: str) -> str:
        """Takes ``name`` for the container (an empty one is invented); returns it without slash.

        :raises WharfError: INVALID_ARGUMENT for a bad name, CONFLICT with the holder's id.
        """
        if not name:
            name = names.invent(id, self._names.__contains__)
        bare = names.canonical(name)
        holder = self._names.setdefault(bare, id)
        if holder != id:
            raise conflict(names.in_use(bare, holder))
        return bare

    def release(self, name: str) -> None:
        self._names.pop(name, None)

    def add(self, container: Container) -> None:
        """Makes the container visible. Its name must be reserved, or free."""
        self._names.setdefault(container.name, container.id)
        self._by_id[container.id] = container

    def remove(self, container: Container) -> None:
        self._by_id.pop(container.id, None)
        if self._names.get(container.name) == container.id:
            del self._names[container.name]
