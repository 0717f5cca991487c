"""The subnet of the default bridge, from the flags and from the existing addresses of its device."""

import logging
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface, ip_network

from engine.common.errors import Kind, WharfError
from server.networks.context import NetworkContext
from server.networks.model import PoolConfig
from server.networks.netlink.rtnetlink import Interface

log = logging.getLogger(__name__)

#: The kernel assigns every interface an address of it.
_LINK_LOCAL = ip_network("fe80::/64")


def address(
    context: NetworkContext,
    known: PoolConfig | None,
    device: Sequence[Interface],
    fixed: Interface | None,
    version: int,
) -> Interface | None:
    """The bridge's address if no flag gives it: its device's, or that of the last run. None: any.

    :param fixed: ``--fixed-cidr`` as it is written: the address of an interface.
    """
    present = [item for item in device if item.version == version]
    if version == 6 and (fixed is None or fixed.ip not in _LINK_LOCAL):
        present = [item for item in present if item.ip not in _LINK_LOCAL]
    if not present and known is not None:
        present = [ip_interface(f"{known.gateway}/{ip_network(known.subnet).prefixlen}")]
    return choose(present, fixed, adopted=bool(context.config.bridge))


def choose(present: Sequence[Interface], fixed: Interface | None, *, adopted: bool) -> Interface | None:
    """The relevant one of a bridge's addresses. ``adopted``: the bridge is an administrator's, whose subnets are not
    changed."""
    if not present:
        return None
    if fixed is None:
        return present[0]
    chosen = present[0]
    for item in present:
        if fixed.ip in item.network:
            chosen = item
            break
        if item.ip in fixed.network and chosen.ip not in fixed.network:
            chosen = item
    if adopted:
        return chosen
    if fixed.ip not in chosen.network:
        return None  # the flag has changed: the old address is invalid
    if fixed.network.prefixlen < chosen.network.prefixlen:
        return ip_interface(f"{chosen.ip}/{fixed.network.prefixlen}")
    return chosen


def pool(context: NetworkContext, found: Interface, fixed: Interface | None, gateway: str) -> PoolConfig:
    """The bridge's subnet with its options.

    :raises WharfError: INVALID_ARGUMENT: a flag doesn't match the subnet.
    """
    config = PoolConfig(str(found.network), gateway=str(found.ip))
    if fixed is not None:
        if fixed.ip in found.network and fixed.network.prefixlen >= found.network.prefixlen:
            config.ip_range = str(fixed.network)
        elif found.version == 6:
            raise WharfError(
                Kind.INVALID_ARGUMENT,
                f"fixed-cidr-v6={fixed} is outside any subnet implied by addresses on the user-managed default bridge",
            )
        else:
            log.warning(
                "fixed-cidr %s is outside of bridge %s's network %s", fixed, context.config.bridge, found.network
            )
    if gateway:
        if ip_address(gateway) not in found.network:
            raise WharfError(Kind.INVALID_ARGUMENT, f"default gateway {gateway} is not in {found.network}")
        # The host's own address stays on the bridge; containers use the other gateway.
        config.aux[f"DefaultGatewayIPv{found.version}"] = gateway
    return config
