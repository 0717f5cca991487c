"""All containers in memory: look-ups by id, by name, and by an unambiguous prefix of the id."""

from collections.abc import Iterator

from engine.common.errors import Kind, WharfError, conflict, invalid, not_found
from server.access.caller import EVERYONE, Caller
from server.containers.model import Container
from server.containers.values import names


class Registry:
    """The containers of all owners, by id.

    Each owner has its own names. A name is reserved before its container is added, so that concurrent creates can't
    use the same name. Look-ups for a client or for another container are made by a view: ``seen_by`` and ``of``.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        # Name → owner → id.
        self._names: dict[str, dict[str, str]] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def by_id(self, id: str) -> Container | None:
        return self._by_id.get(id)

    def seen_by(self, caller: Caller) -> "View":
        """The containers that exist for a caller."""
        return View(self, caller)

    def of(self, owner: str) -> "View":
        """The containers that a container of this owner may refer to."""
        return View(self, Caller(owner, administrator=not owner))

    def reserve(self, name: str, id: str, owner: str = "") -> str:
        """Reserves ``name`` for the container ``id`` and returns it without a leading slash. "": generates a name.

        :raises WharfError: INVALID_ARGUMENT: a malformed name; CONFLICT: another container of the owner has it.
        """
        if not name:
            name = names.generate(id, lambda each: owner in self._names.get(each, ()))
        bare = names.canonical(name)
        holder = self._names.setdefault(bare, {}).setdefault(owner, id)
        if holder != id:
            raise conflict(names.in_use(bare, holder))
        return bare

    def release(self, name: str, owner: str = "") -> None:
        """Makes a name free again. A name that nobody has is no error."""
        holders = self._names.get(name, {})
        holders.pop(owner, None)
        if not holders:
            self._names.pop(name, None)

    def add(self, container: Container) -> None:
        """Adds the container. Its name must be reserved for it, or unused."""
        self._names.setdefault(container.name, {}).setdefault(container.owner, container.id)
        self._by_id[container.id] = container

    def remove(self, container: Container) -> None:
        self._by_id.pop(container.id, None)
        if self._names.get(container.name, {}).get(container.owner) == container.id:
            self.release(container.name, container.owner)

    def holders(self, name: str) -> dict[str, str]:
        """The ids of the containers with a name, by owner."""
        return self._names.get(name, {})


class View:
    """The containers that exist for one caller. A look-up by prefix iterates over all ids; for one by name see
    ``Caller.choose``."""

    def __init__(self, registry: Registry, caller: Caller = EVERYONE) -> None:
        self._registry = registry
        self._caller = caller

    @property
    def caller(self) -> Caller:
        return self._caller

    def __iter__(self) -> Iterator[Container]:
        if self._caller.unrestricted:
            return iter(self._registry)
        return (each for each in self._registry if self._caller.sees(each.owner, each.labels))

    def get(self, key: str) -> Container:
        """The container with this id, name or prefix of an id.

        :raises WharfError: NOT_FOUND ``No such container: x``; INVALID_ARGUMENT: an ambiguous prefix or name.
        """
        if not key:
            raise invalid('invalid name or ID supplied: ""')
        found = self.by_id(key) or self.by_name(key)
        if found is not None:
            return found
        matches = [each for each in self if each.id.startswith(key)]
        if len(matches) > 1:
            raise invalid(f"multiple IDs found with provided prefix: {key}")
        if not matches:
            if self._caller.administrator and len(self._registry.holders(key.removeprefix("/"))) > 1:
                raise invalid(f"containers of several owners have the name {key}: use an ID")
            raise not_found(f"No such container: {key}")
        return matches[0]

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
        found = self._registry.by_id(id)
        return found if found is not None and self._caller.sees(found.owner, found.labels) else None

    def by_name(self, name: str) -> Container | None:
        id = self._caller.choose(self._registry.holders(name.removeprefix("/")))
        return self.by_id(id) if id is not None else None
