"""``docker network ls``, ``inspect`` and ``prune``."""

from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any

from api_models.filters import Filters
from api_models.times import rfc3339
from api_models.until import until_ns
from engine.common.errors import Kind, WharfError, invalid, not_found
from server.networks.bridges import devices
from server.networks.context import NetworkContext
from server.networks.model import Network
from server.networks.view import View

_MOST = 2**64 - 1

ACCEPTED = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type", "idOrName"))


def show(context: NetworkContext, network: Network, *, containers: bool = True) -> dict[str, Any]:
    """A network in inspect's answers, with or without its ``containers``."""
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_ns),
        "Scope": network.scope,
        "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": network.ipam_options,
            "Config": _config(network),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": network.ingress,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": _containers(context, network) if containers else {},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }
    return shown


def status(network: Network) -> dict[str, Any]:
    """``Status``: how many addresses each subnet has in use, and how many are free. Networks whose driver assigns no
    addresses have no subnets, nor have those of an IPAM plugin, whose protocol has no such request. The numbers end at
    2**64 - 1."""
    subnets = {}
    for pool in () if network.remote_ipam else network.pools:
        used, free = pool.counts()
        subnets[str(pool.subnet)] = {"IPsInUse": min(used, _MOST), "DynamicIPsAvailable": min(free, _MOST)}
    return {"IPAM": {"Subnets": subnets} if subnets else {}}


def _config(network: Network) -> list[dict[str, Any]] | None:
    """The subnets in the order of dockerd 29: the given ones first, of both IPv4 before IPv6. A given subnet of a
    family that is not enabled is shown by a configuration-only network."""
    if network.ipam is None:
        return None
    if network.remote and network.ipam_driver == "null":  # as the plugin was told
        return [{"Subnet": pool} for version, pool in ((4, "0.0.0.0/0"), (6, "::/0")) if network.enables(version)]
    found: list[tuple[tuple[bool, int], dict[str, Any]]] = []
    for config in network.ipam:
        version = ip_network(config.subnet).version
        if not (network.enables(version) or network.config_only):
            continue
        entry: dict[str, Any] = {"Subnet": config.subnet}
        if config.ip_range:
            entry["IPRange"] = config.ip_range
        if config.gateway:
            entry["Gateway"] = config.gateway
        if config.aux:
            entry["AuxiliaryAddresses"] = dict(config.aux)
        found.append(((not config.configured, version), entry))
    return [entry for _, entry in sorted(found, key=lambda item: item[0])]


def _containers(context: NetworkContext, network: Network) -> dict[str, dict[str, str]]:
    return {
        container: {
            "Name": endpoint.name,
            "EndpointID": endpoint.id,
            "MacAddress": endpoint.mac,
            "IPv4Address": endpoint.address4,
            "IPv6Address": endpoint.address6,
        }
        for container, endpoint in network.endpoints.items()
        if container in context.sandboxes
    }


async def listing(
    context: NetworkContext, networks: Sequence[Network], filters: Filters, *, containers: bool
) -> list[dict[str, Any]]:
    """Those of ``networks`` that match the filters, with or without their ``containers``.

    :raises WharfError: INVALID: an unknown filter or value.
    """
    filters.validate(ACCEPTED)
    await filters.search_ahead("name", [network.name for network in networks])
    await filters.search_ahead("id", [network.id for network in networks])
    test = matcher(context, filters)
    return [show(context, network, containers=containers) for network in networks if test(network)]


def matcher(context: NetworkContext, filters: Filters) -> Callable[[Network], bool]:
    """A predicate of the filters.

    :raises WharfError: INVALID.
    """
    for value in filters.get("type"):
        if value not in ("builtin", "custom"):
            raise invalid(f"invalid filter: 'type'='{value}'")
    dangling = None
    if "dangling" in filters:
        try:
            dangling = filters.flag("dangling", default=False)
        except WharfError:
            words = 'must be "true" (or "1"), or "false" (or "0")'
            raise invalid(f"invalid value for filter 'dangling', {words}") from None

    def test(network: Network) -> bool:
        return (
            filters.exact("driver", network.driver)
            and filters.match("name", network.name)
            and filters.match("id", network.id)
            and (filters.fuzzy("idOrName", network.id) or filters.exact("idOrName", network.name))
            and filters.exact("scope", network.scope)
            and filters.exact("type", "builtin" if network.predefined else "custom")
            and filters.labels("label", network.labels)
            and (dangling is None or dangling == (not network.predefined and not used(context, network)))
        )

    return test


def used(context: NetworkContext, network: Network) -> bool:
    """Whether a running or starting container uses it; a stopped one may still be being detached."""
    return any(container not in context.ending for container in network.endpoints)


async def remove(context: NetworkContext, network: Network) -> None:
    """``docker network rm``. The device is removed in the background.

    :raises WharfError: PERMISSION_DENIED: predefined, or in use.
    """
    if network.predefined:
        raise WharfError(Kind.PERMISSION_DENIED, f"{network.name} is a pre-defined network and cannot be removed")
    await _remove(context, network)


async def remove_owned(context: NetworkContext, owner: str) -> list[str]:
    """Removes all networks of an owner, its default bridge too; returns a sentence for each that is left."""
    left = []
    # Those that only hold a configuration are in use until the others are gone.
    for network in sorted(context, key=lambda each: each.config_only):
        if network.owner == owner:
            await wait_detached(context, network)
            try:
                await _remove(context, network)
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    left.append(f"network {network.name}: {error.message}")
    return left


async def _remove(context: NetworkContext, network: Network) -> None:
    """:raises WharfError: PERMISSION_DENIED: in use."""
    if network.config_only and any(
        other.config_from == network.name and other.owner == network.owner for other in context
    ):
        raise WharfError(
            Kind.PERMISSION_DENIED,
            f'error while removing network: configuration network "{network.name}" is in use',
        )
    if context.networks.get(network.id) is not network:
        raise not_found(f"network {network.name} not found")
    if used(context, network):
        active = [item for item in network.endpoints.values() if item.container not in context.ending]
        those = ", ".join(f'name:"{item.name}" id:"{item.id[:12]}"' for item in active)
        raise WharfError(
            Kind.PERMISSION_DENIED,
            f"error while removing network: network {network.name} has active endpoints ({those})",
        )
    if network.uses_plugins:
        await _delete_at_plugins(context, network)
    context.discard(network)
    await context.store.delete(network)
    await context.forwarder.drop_zone(network.id)
    if network.bridge or network.parent:
        task = context.spawn(_remove_device(context, network), f"network device {network.name}")
        key = devices.removal_key(network)
        context.ending[key] = task
        task.add_done_callback(lambda _: context.ending.pop(key, None))
    context.bus.publish(
        "network", "destroy", network.id, {"name": network.name, "type": network.driver}, owner=network.owner
    )


async def _delete_at_plugins(context: NetworkContext, network: Network) -> None:
    await wait_detached(context, network)
    try:
        await context.remote.delete_network(network)
    except WharfError as error:
        raise error.worded(f"error while removing network: {error.message}") from error
    if context.networks.get(network.id) is not network:
        raise not_found(f"network {network.name} not found")  # another request has removed it


async def wait_detached(context: NetworkContext, network: Network) -> None:
    """Containers that have just stopped may still be attached."""
    for task in [context.ending[key] for key in network.endpoints if key in context.ending]:
        await task


async def _remove_device(context: NetworkContext, network: Network) -> None:
    await wait_detached(context, network)
    await context.run_in_background(devices.remove_device, context, network)


def prunable(filters: Filters) -> Callable[[Network], bool]:
    """A predicate of prune's filters.

    :raises WharfError: INVALID.
    """
    filters.validate(("label", "label!", "until"))
    before = until_ns(filters)

    def test(network: Network) -> bool:
        return not (before and network.created_ns > before) and filters.labelled(network.labels)

    return test


async def prune(context: NetworkContext, networks: View, matches: Callable[[Network], bool]) -> list[str]:
    """Removes those of ``networks`` that match, are unused and not predefined; returns their names. The swarm removes
    its own."""
    removed = []
    for network in sorted(networks, key=lambda item: item.name):
        if network.predefined or network.config_only or network.of_swarm or used(context, network):
            continue
        if not matches(network):
            continue
        try:
            await remove(context, network)
        except WharfError:
            continue
        removed.append(network.name)
    context.bus.publish("network", "prune", "", {"reclaimed": "0"}, owner=networks.caller.owner)
    return removed
