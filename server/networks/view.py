"""The networks that exist for one caller, or for one container."""

from collections.abc import Iterator, Mapping

from engine.common.errors import invalid, not_found
from server.access.caller import Caller
from server.networks.model import HOST, NULL, Network


class View:
    """Look-ups among all networks. Each owner has its own names and its own network ``bridge``; ``host`` and ``none``
    exist for all. For a look-up by name see ``Caller.choose``.
    """

    def __init__(
        self, networks: Mapping[str, Network], names: Mapping[str, Mapping[str, Network]], caller: Caller
    ) -> None:
        """``networks``: all, by id; ``names``: by name and owner."""
        self._networks = networks
        self._names = names
        self._caller = caller

    @property
    def caller(self) -> Caller:
        return self._caller

    def sees(self, network: Network) -> bool:
        if network.predefined and network.driver in (HOST, NULL):
            return True
        return self._caller.sees(network.owner, network.labels)

    def __iter__(self) -> Iterator[Network]:
        return iter([network for network in self._networks.values() if self.sees(network)])

    def by_name(self, name: str) -> Network | None:
        holders = self._names.get(name, {})
        found = self._caller.choose(holders) or holders.get("")
        return found if found is not None and self.sees(found) else None

    def find(self, key: str) -> Network | None:
        """A network by its id, its name, or a unique prefix of its id.

        :raises WharfError: INVALID: several ids have the prefix, or several owners have the name.
        """
        by_id = self._networks.get(key)
        found = by_id if by_id is not None and self.sees(by_id) else self.by_name(key)
        if found or not key:
            return found
        matches = [network for network in self if network.id.startswith(key)]
        if len(matches) > 1:
            raise invalid(f"network {key} is ambiguous ({len(matches)} matches found based on ID prefix)")
        if not matches and self._caller.administrator and len(self._names.get(key, {})) > 1:
            raise invalid(f"networks of several owners have the name {key}: use an ID")
        return matches[0] if matches else None

    def get(self, key: str) -> Network:
        """As ``find``.

        :raises WharfError: NOT_FOUND.
        """
        found = self.find(key)
        if found is None:
            raise not_found(f"network {key} not found")
        return found
