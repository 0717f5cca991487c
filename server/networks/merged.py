"""The networks of this node and those of the swarm, in one answer. ``swarm`` None: this node manages none, or the
caller may not see it."""

import contextlib
from typing import Any

from api_models.filters import Filters
from api_models.network import NetworkCreateRequest
from engine.common.errors import WharfError, invalid, not_found
from server.networks import checks, query
from server.networks.context import NetworkContext
from server.networks.model import BRIDGE, DRIVERS, OVERLAY, Network
from server.networks.swarmnetworks import SwarmNetworks
from server.networks.view import View


def of_swarm(request: NetworkCreateRequest) -> bool:
    """Whether the request is for a network of the swarm. Those of plugins are refused by ``create.create``, which
    looks for the plugin first."""
    if request.driver == OVERLAY or request.ingress:
        return True
    return request.scope == "swarm" and (request.driver or BRIDGE) in DRIVERS


async def create_in(context: NetworkContext, swarm: SwarmNetworks, request: NetworkCreateRequest) -> Network:
    """Creates a network of the swarm, after the checks that the request for one of this node has, too.

    :raises WharfError: with dockerd's sentence.
    """
    checks.check_form(request.name)
    local = context.by_name(request.name)
    # The swarm knows the names of its own networks. One that it has removed may still be on this node.
    if local is not None and not local.of_swarm:
        raise checks.exists(request.name)
    if request.config_only:
        raise invalid(checks.CONFIG_ONLY)
    checks.check_config(request)
    return await swarm.create(request, checks.pools(request, ipv6=bool(request.enable_ipv6)))


def check_name(swarm: SwarmNetworks, name: str) -> None:
    """A network of this node has no name of one of the swarm.

    :raises WharfError: CONFLICT.
    """
    if any(network.name == name for network in swarm.networks()):
        raise checks.exists(name)


def get(view: View, swarm: SwarmNetworks | None, key: str, *, scope: str = "") -> Network:
    """A network by its id, its name, or a unique prefix of its id. ``scope``: of which it must be; "": of any.

    :raises WharfError: NOT_FOUND; INVALID_ARGUMENT: several ids have the prefix.
    """
    remote = swarm.find(key) if swarm is not None and scope in ("", "swarm") else None
    if remote is not None and key in (remote.id, remote.name):
        return view.find(remote.id) or remote
    local = view.find(key)
    if local is not None and local.of_swarm and swarm is not None and (remote is None or remote.id != local.id):
        local = None  # the swarm has removed it, and its agent will
    if local is not None and scope and local.scope != scope and not _shared(swarm, local, scope):
        local = None
    if local is None or remote is None or local.id == remote.id or key in (local.id, local.name):
        found = local or remote
        if found is None:
            raise not_found(f"network {key} not found")
        return found
    raise invalid(f"network {key} is ambiguous (2 matches found based on ID prefix)")


def _shared(swarm: SwarmNetworks | None, network: Network, scope: str) -> bool:
    """Whether a node's own network is one of the swarm, too: services may use ``host`` and ``bridge`` of each node."""
    return swarm is not None and scope == "swarm" and network.name in ("host", "bridge")


async def inspect(
    context: NetworkContext, view: View, swarm: SwarmNetworks | None, key: str, *, scope: str, verbose: bool
) -> dict[str, Any]:
    """inspect's response. A removed container's addresses are free in it, as they are in dockerd's.

    :raises WharfError: as ``get``.
    """
    network = get(view, swarm, key, scope=scope)
    await query.wait_detached(context, network)
    shown = query.show(context, network)
    if swarm is None or not network.overlay:
        return {**shown, "Status": query.status(network)}
    if network.id in context.networks:
        shown.update(swarm.details(network, verbose=verbose))
    # Only the swarm knows the addresses on all nodes.
    return {**shown, "Status": query.status(swarm.find(network.id) or network)}


async def listing(
    context: NetworkContext, view: View, swarm: SwarmNetworks | None, filters: Filters, *, containers: bool
) -> list[dict[str, Any]]:
    """The list's response: the networks of the swarm, then those of this node.

    :raises WharfError: INVALID: an invalid filter.
    """
    shared = swarm.networks() if swarm is not None else ()
    own = [network for network in view if swarm is None or not network.of_swarm]
    own.sort(key=lambda network: network.name)
    return await query.listing(context, [*shared, *own], filters, containers=containers)


async def remove(context: NetworkContext, view: View, swarm: SwarmNetworks | None, key: str) -> None:
    """Removes a network. On this node, the agent removes one of the swarm.

    :raises WharfError: as ``get`` and ``query.remove``; INVALID_ARGUMENT: a service or a task uses it.
    """
    network = get(view, swarm, key)
    if swarm is not None and network.of_swarm:
        await swarm.remove(network.id)
    else:
        await query.remove(context, network)


async def prune(context: NetworkContext, view: View, swarm: SwarmNetworks | None, filters: Filters) -> list[str]:
    """Removes unused networks; returns their names. The ingress network stays."""
    matches = query.prunable(filters)
    removed = []
    if swarm is not None:
        for network in swarm.networks():
            if not network.ingress and matches(network):
                with contextlib.suppress(WharfError):
                    await swarm.remove(network.id)
                    removed.append(network.name)
    return removed + await query.prune(context, view, matches)
