"""What a role refuses when its user makes a network: everything that reaches the host's own networks."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING

from api_models.network import NetworkCreateRequest
from server.access.refusal import refused
from server.networks import options
from server.networks.ipam.allocator import Network as Subnet
from server.networks.model import BRIDGE, DRIVERS, IPAM_DRIVERS

if TYPE_CHECKING:
    from server.access.policy import Role

#: Options that concern only the network's own bridge and its containers.
_HARMLESS = frozenset(
    (options.ICC, options.MASQUERADE, options.MTU, options.ENABLE4, options.ENABLE6, options.PREFIX, options.INHIBIT4)
)


def check(role: "Role", request: NetworkCreateRequest, in_use: Sequence[Subnet]) -> None:
    """``in_use``: the networks that the host has routes to.

    :raises WharfError: PERMISSION_DENIED: names what the role lacks.
    """
    if role.privileged:
        return
    driver, ipam = request.driver or BRIDGE, (request.ipam.driver if request.ipam else "") or "default"
    if (driver not in DRIVERS or ipam not in IPAM_DRIVERS) and not role.plugins:
        raise refused(f"drivers of plugins ({driver if driver not in DRIVERS else ipam})")
    if driver != BRIDGE and driver in DRIVERS and not role.host_namespaces:
        raise refused(f"networks with the driver {driver}")
    for name in request.options or ():
        if driver == BRIDGE and name not in _HARMLESS:
            raise refused(f"the network option {name}")
    for pool in (request.ipam.config if request.ipam else None) or ():
        try:
            subnet = ip_network(pool.subnet, strict=False)
        except ValueError:
            continue  # refused later, with dockerd's sentence
        if not subnet.is_private:
            raise refused(f"the subnet {subnet}, which is not private")
        for other in in_use:
            if subnet.version == other.version and subnet.overlaps(other):
                raise refused(f"the subnet {subnet}: the host has a route to {other}")
