"""The names that services and tasks have on a network of the swarm."""

from collections.abc import Iterable, Mapping, Sequence

from server.networks.overlay.model import ServiceAddresses


def names(network: str, services: Iterable[ServiceAddresses]) -> tuple[Mapping[str, Sequence[str]], Mapping[str, str]]:
    """The addresses of each name, in lower case; and the name of each task's address. ``network``: its name."""
    found: dict[str, list[str]] = {}
    pointers: dict[str, str] = {}
    for service in services:
        backends = [backend.address for backend in service.backends]
        for name in service.names:
            _add(found, name, [service.virtual_ip] if service.virtual_ip else backends)
            _add(found, f"tasks.{name}", backends)
        for backend in service.backends:
            _add(found, backend.name, [backend.address])
            pointers[backend.address] = f"{backend.name}.{network}"
    return found, pointers


def _add(found: dict[str, list[str]], name: str, addresses: Iterable[str]) -> None:
    """Several services may have the same alias."""
    for address in addresses:
        known = found.setdefault(name.lower(), [])
        if address not in known:
            known.append(address)
