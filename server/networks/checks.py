"""What is checked of a request to create a network before anything else is known, with dockerd's sentences."""

from ipaddress import ip_address, ip_network

from api_models.network import IPAMPool, NetworkCreateRequest
from engine.common import limits
from engine.common.errors import Kind, WharfError, conflict, invalid
from server.networks.model import PoolConfig

_PREDEFINED = ("bridge", "host", "none", "default")
CONFIG_ONLY = (
    "configuration network can only contain network specific fields. Network operator fields like "
    "[ ingress | internal | attachable | scope ] are not supported."
)


def exists(name: str) -> WharfError:
    return conflict(f"network with name {name} already exists")


def check_form(name: str) -> None:
    """:raises WharfError: INVALID_ARGUMENT, PERMISSION_DENIED: no new network can have this name."""
    if name in _PREDEFINED:
        raise WharfError(Kind.PERMISSION_DENIED, f"operation is not permitted on predefined {name} network")
    if not name.strip():
        raise invalid(f"invalid name: {name}")
    if "/" in name or "\\" in name or any(not char.isprintable() for char in name):
        raise invalid(f"invalid name: {name}")
    if name.startswith("container:"):
        raise invalid(f"invalid network name: {name}")


def check_config(request: NetworkCreateRequest) -> None:
    """:raises WharfError: PERMISSION_DENIED: it names a configuration network, and has what only such a network may."""
    if request.config_from is None or not request.config_from.network:
        return
    depends = "are not supported if the network depends on a configuration network"
    if request.config_only:
        raise WharfError(
            Kind.PERMISSION_DENIED, "a configuration network cannot depend on another configuration network"
        )
    own_ipam = request.ipam and (request.ipam.config or request.ipam.options)
    if own_ipam or request.labels or request.enable_ipv6:
        raise WharfError(Kind.PERMISSION_DENIED, f"user specified configurations {depends}")
    if request.options:
        raise WharfError(Kind.PERMISSION_DENIED, f"network driver options {depends}")


def pools(request: NetworkCreateRequest, *, ipv6: bool) -> list[PoolConfig]:
    """The validated subnets of the request.

    :raises WharfError: INVALID, with all problems.
    """
    configs = list(request.ipam.config or ()) if request.ipam else []
    if len(configs) > limits.NETWORK_SUBNETS:
        raise limits.exceeded("NETWORK_SUBNETS", "the number of subnets")
    if sum(len(item.auxiliary_addresses or ()) for item in configs) > limits.NETWORK_AUXILIARY:
        raise limits.exceeded("NETWORK_AUXILIARY", "the number of auxiliary addresses")
    problems: list[str] = []
    found = []
    for item in configs:
        if not item.subnet:
            if item.gateway or item.ip_range or item.auxiliary_addresses:
                problems.append("every ip-range or gateway must have a corresponding subnet")
            continue
        found.append(_requested_pool(item, problems, ipv6=ipv6))
    if problems:
        raise invalid("invalid network config:\n" + "\n".join(problems))
    return [item for item in found if item is not None]


def _requested_pool(item: IPAMPool, problems: list[str], *, ipv6: bool) -> PoolConfig | None:
    try:
        loose = ip_network(item.subnet, strict=False)
        if "/" not in item.subnet:
            raise ValueError
    except ValueError:
        problems.append(f"invalid subnet {item.subnet}: invalid CIDR block notation")
        return None
    if loose.version == 6 and not ipv6:
        problems = []  # dockerd checks no more for a family that wasn't requested
    if loose.network_address.is_unspecified and (item.ip_range or item.gateway or item.auxiliary_addresses):
        problems.append(f"invalid subnet {item.subnet}: a size has no ip-range, gateway or auxiliary address")
    given = ip_address(item.subnet.partition("/")[0])
    if given != loose.network_address:
        problems.append(f"invalid subnet {item.subnet}: it should be {loose}")
    if item.ip_range:
        try:
            area = ip_network(item.ip_range, strict=False)
            if area.version != loose.version or not area.subnet_of(loose):  # type: ignore[arg-type]
                problems.append(f"invalid ip-range {item.ip_range}: parent subnet {loose} does not contain ip-range")
            elif ip_address(item.ip_range.partition("/")[0]) != area.network_address:
                problems.append(f"invalid ip-range {item.ip_range}: it should be {area}")
        except ValueError:
            problems.append(f"invalid ip-range {item.ip_range}: invalid CIDR block notation")
    for what, text in (("gateway", item.gateway), *(item.auxiliary_addresses or {}).items()):
        label = "gateway" if what == "gateway" and text == item.gateway else "auxiliary address"
        if not text:
            continue
        try:
            address = ip_address(text)
        except ValueError:
            problems.append(f"invalid {label} {text}: invalid address")
            continue
        if address.version != loose.version or address not in loose:
            problems.append(f"invalid {label} {text}: parent subnet {loose} does not contain this address")
    return PoolConfig(
        str(loose),
        item.ip_range,
        item.gateway,
        dict(item.auxiliary_addresses or {}),
        configured=True,
    )
