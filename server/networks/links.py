"""Legacy links, which are those of ``--link`` on the default bridge: look-ups, and what clients and containers see.

On user networks the name service has the links; they have the same form.
"""

from collections.abc import Iterable

from engine.common.errors import internal, invalid, not_found
from server.containers.model import Container
from server.containers.plan import ContainerPlan
from server.containers.registry import View
from server.networks import endpoints
from server.networks.context import NetworkContext
from server.networks.ports import portmap


def parse(text: str) -> tuple[str, str]:
    """``name``, ``name:alias`` or the stored form ``/name:/container/alias``.

    :raises WharfError: INTERNAL, as in dockerd.
    """
    if not text:
        raise internal("empty string specified for links")
    parts = text.split(":")
    if len(parts) > 2:
        raise internal(f"bad format for links: {text}")
    name = parts[0].lstrip("/")
    if len(parts) == 1:
        return name, name
    alias = parts[1].rsplit("/", 1)[-1]
    return name, alias


def legacy(context: NetworkContext, container: ContainerPlan, *, strict: bool = True) -> list[tuple[Container, str]]:
    """The targets of a container's legacy links, each with its alias. Without ``strict``, links to missing containers
    are skipped.

    :raises WharfError: INVALID, NOT_FOUND: as dockerd at create.
    """
    if endpoints.network_key(container) != "bridge" or not container.host_config.links:
        return []
    found = []
    others = context.containers.of(container.owner) if context.containers else None
    for text in container.host_config.links:
        name, alias = parse(text)
        other = others.find(name) if others else None
        if other is None and not strict:
            continue
        if other is None:
            why = f"No such container: {name}" if name else 'invalid name or ID supplied: ""'
            raise invalid(f"could not get container for {name}: {why}")
        while other.host_config.network_mode.startswith("container:") and others:
            name = other.host_config.network_mode.partition(":")[2]
            other = others.get(name)
        if other.host_config.network_mode == "host":
            raise invalid("conflicting options: host type networking can't be used with links. "
                          "This would result in undefined behavior")  # fmt: skip
        found.append((other, alias))
    return found


def check(context: NetworkContext, container: ContainerPlan) -> None:
    """At create: the targets of legacy links exist and are on the default bridge.

    :raises WharfError: INVALID, NOT_FOUND: as dockerd.
    """
    default = context.of(container.owner).by_name("bridge")
    for other, _ in legacy(context, container):
        if default is None or default.name not in other.networking:
            raise invalid(f"Cannot link to /{other.name}, as it does not belong to the default network")


def find(context: NetworkContext, key: str, containers: View) -> tuple[Container, Container, str]:
    """The client, the server and the alias of the link ``/client/alias``.

    :raises WharfError: NOT_FOUND; INTERNAL for a container's own name.
    """
    name, _, alias = key.strip("/").rpartition("/")
    client = containers.find(name or alias)
    if client is None:
        raise not_found(f"No such container: {key}")
    if not name:
        raise internal("Conflict, cannot remove the default link name of the container")  # 500 in dockerd
    for server, known in legacy(context, client, strict=False):
        if known == alias:
            return client, server, alias
    raise not_found(f"No such container: {key}")


def names(context: NetworkContext, clients: Iterable[Container]) -> dict[str, list[str]]:
    """The names that the legacy links of ``clients`` give to containers (``/client/alias``, by container's id)."""
    found: dict[str, list[str]] = {}
    for client in (each for each in clients if each.host_config.links):
        for target, alias in legacy(context, client, strict=False):
            if target is not client:
                found.setdefault(target.id, []).append(f"/{client.name}/{alias}")
    return found


def shown(context: NetworkContext, container: Container) -> list[str] | None:
    """``HostConfig.Links`` in inspect: ``/target:/container/alias``."""
    linked = legacy(context, container, strict=False)
    return [f"/{target.name}:/{container.name}/{alias}" for target, alias in linked] or None


def environment(
    context: NetworkContext, container: ContainerPlan, linked: Iterable[tuple[Container, str]]
) -> list[str]:
    """The variables of legacy links (``ALIAS_PORT_80_TCP_ADDR`` …), as dockerd sets them."""
    found: list[str] = []
    for other, alias in linked:
        server = context.sandboxes.get(other.id)
        address = next((item.ip4 or item.ip6 for item in server.endpoints), "") if server else ""
        prefix = alias.upper().replace("-", "_")
        ports = portmap.exposed(other.config, other.host_config)
        ports.sort(key=lambda item: (item[0], item[1] != "tcp"))
        if ports:
            port, protocol = ports[0]
            found.append(f"{prefix}_PORT={protocol}://{address}:{port}")
        for port, protocol in ports:
            start = f"{prefix}_PORT_{port}_{protocol.upper()}"
            found += [
                f"{start}={protocol}://{address}:{port}",
                f"{start}_ADDR={address}",
                f"{start}_PORT={port}",
                f"{start}_PROTO={protocol}",
            ]
        found.append(f"{prefix}_NAME=/{container.name}/{alias}")
        for item in other.config.env or ():
            name, equals, value = item.partition("=")
            if equals and name not in ("HOME", "PATH"):
                found.append(f"{prefix}_ENV_{name}={value}")
    return found
