"""All containers in memory: look-ups by id, by name, and by an unambiguous prefix of the id."""

from collections.abc import Iterator

from engine.common.errors import Kind, WharfError, conflict, invalid, not_found
from server.containers.model import Container
from server.containers.values import names


class Registry:
    """The containers by id and by name. A look-up by prefix iterates over all ids.

    A name is reserved before its container is added, so that concurrent creates can't use the same name.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, key: str) -> Container:
        """The container with this id, name or prefix of an id.

        :raises WharfError: NOT_FOUND ``No such container: x``; INVALID_ARGUMENT: an ambiguous prefix.
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

    def get_namespace_owner(self, key: str, kind: str) -> Container:
        """The running container whose namespace another container joins. ``kind`` is for the error's sentence.

        :raises WharfError: INVALID_ARGUMENT: no such container; CONFLICT: it doesn't run, or waits for its restart.
        """
        failed = f"failed to join {kind} namespace: "
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
        """As ``get``; None instead of an error."""
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
        """Reserves ``name`` for the container ``id`` and returns it without a leading slash. "": generates a name.

        :raises WharfError: INVALID_ARGUMENT: a malformed name; CONFLICT: another container has it.
        """
        if not name:
            name = names.generate(id, self._names.__contains__)
        bare = names.canonical(name)
        owner = self._names.setdefault(bare, id)
        if owner != id:
            raise conflict(names.in_use(bare, owner))
        return bare

    def release(self, name: str) -> None:
        self._names.pop(name, None)

    def add(self, container: Container) -> None:
        """Adds the container. Its name must be reserved for it, or unused."""
        self._names.setdefault(container.name, container.id)
        self._by_id[container.id] = container

    def remove(self, container: Container) -> None:
        self._by_id.pop(container.id, None)
        if self._names.get(container.name) == container.id:
            del self._names[container.name]
