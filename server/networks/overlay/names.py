"""The names that services and tasks have on a network of the swarm."""

from collections.abc import Iterable, Mapping, Sequence

from server.networks.overlay.model import ServiceAddresses


def names(network: str, services: Iterable[ServiceAddresses]) -> tuple[Mapping[str, Sequence[str]], Mapping[str, str]]:
    """The addresses of each name, in lower case; and the name of each task's address. ``network``: its name."""
    # Dictionaries: several services may have the same alias, and an address is named once.
    found: dict[str, dict[str, None]] = {}
    pointers: dict[str, str] = {}
    for service in services:
        backends = [backend.address for backend in service.backends]
        for name in service.names:
            addresses = [service.virtual_ip] if service.virtual_ip else backends
            found.setdefault(name.lower(), {}).update(dict.fromkeys(addresses))
            found.setdefault(f"tasks.{name}".lower(), {}).update(dict.fromkeys(backends))
        for backend in service.backends:
            found.setdefault(backend.name.lower(), {})[backend.address] = None
            pointers[backend.address] = f"{backend.name}.{network}"
    return {name: list(addresses) for name, addresses in found.items()}, pointers
