"""The bridges and the table of this engine: it changes and removes only what it has a claim on.

Two engines on one bridge would allocate the same addresses, and each would remove the other's devices and rules. All
functions block: call them in a thread.
"""

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.networks.claims import ClaimConflict
from server.networks.context import NetworkContext
from server.networks.model import Network

_WAIT = timeouts.seconds("network.claim")


def claim_engine(context: NetworkContext) -> None:
    """At start: claims the name of the engine's table and links, and its default bridge.

    :raises WharfError: INVALID_ARGUMENT: a running engine in this network namespace has one of them.
    """
    config = context.config
    try:
        context.claims.claim(_table(context), wait=_WAIT)
        if config.bridge != "none":
            # An administrator's bridge (--bridge) may serve several engines, our own (--bridge-name) only one.
            sharer = config.network_name if config.bridge else ""
            context.claims.claim(_bridge(config.bridge_device), sharer=sharer, wait=_WAIT)
    except ClaimConflict as error:
        raise WharfError(
            Kind.INVALID_ARGUMENT,
            f"bridge {config.bridge_device} is managed by another engine in this network namespace ({error.holder}): "
            "choose another bridge with --bridge-name and another subnet with --bip",
        ) from None


def claim_bridge(context: NetworkContext, network: Network) -> None:
    """Claims a network's bridge.

    :raises WharfError: PERMISSION_DENIED: a running engine in this network namespace manages the bridge.
    """
    try:
        context.claims.claim(_bridge(network.bridge))
    except ClaimConflict as error:
        raise WharfError(
            Kind.PERMISSION_DENIED,
            f"bridge {network.bridge} of network {network.name} is managed by another engine in this network namespace "
            f"({error.holder})",
        ) from None


def owns_bridge(context: NetworkContext, network: Network) -> bool:
    return network.bridged and context.claims.owns(_bridge(network.bridge))


def release_bridge(context: NetworkContext, network: Network) -> None:
    context.claims.release(_bridge(network.bridge))


def _table(context: NetworkContext) -> str:
    return f"network/{context.config.network_name}"


def _bridge(device: str) -> str:
    return f"bridge/{device}"
