"""Validates a driver's ``-o`` options. An unknown option is kept and shown, as in dockerd."""

import re
from collections.abc import Mapping
from ipaddress import ip_address

from engine.common.errors import invalid
from server.networks.model import BRIDGE, IPVLAN, MACVLAN, Network
from server.networks.nftables.rules import BridgeRules

_BRIDGE = "com.docker.network.bridge."
NAME = _BRIDGE + "name"
ICC = _BRIDGE + "enable_icc"
MASQUERADE = _BRIDGE + "enable_ip_masquerade"
BINDING4 = _BRIDGE + "host_binding_ipv4"
BINDING6 = _BRIDGE + "host_binding_ipv6"
MODE4 = _BRIDGE + "gateway_mode_ipv4"
MODE6 = _BRIDGE + "gateway_mode_ipv6"
TRUSTED = _BRIDGE + "trusted_host_interfaces"
INHIBIT4 = _BRIDGE + "inhibit_ipv4"
DEFAULT = _BRIDGE + "default_bridge"
#: The VXLAN network identifiers of a network of the swarm.
VNI = "com.docker.network.driver.overlay.vxlanid_list"
MTU = "com.docker.network.driver.mtu"
ENABLE4 = "com.docker.network.enable_ipv4"
ENABLE6 = "com.docker.network.enable_ipv6"
HOST4 = "com.docker.network.host_ipv4"
HOST6 = "com.docker.network.host_ipv6"
PREFIX = "com.docker.network.container_iface_prefix"
ANNOUNCEMENTS = "com.docker.network.advertise_addr_nmsgs"
ANNOUNCEMENT_PAUSE = "com.docker.network.advertise_addr_ms"
MODES = ("nat", "nat-unprotected", "routed", "isolated")

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
#: Options of an endpoint (``--network name=…,driver-opt=…``).
ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"
ENDPOINT_IFNAME = "com.docker.network.endpoint.ifname"


def flag(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """A boolean option.

    :raises WharfError: INVALID, with the sentence of Go's strconv.
    """
    value = options.get(name)
    if value is None:
        return default
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise invalid(f'failed to parse {name} value: {value} (strconv.ParseBool: parsing "{value}": invalid syntax)')


def family(options: dict[str, str], name: str, requested: bool | None, *, default: bool) -> bool:  # noqa: FBT001
    """Whether a network has a family of addresses (``ENABLE4``, ``ENABLE6``). The request's field precedes the option,
    which is then removed, as it may differ.

    :raises WharfError: INVALID: the option is neither true nor false.
    """
    if requested is not None:
        options.pop(name, None)
        return requested
    value = options.get(name)
    if value is not None and value not in _TRUE | _FALSE:
        raise invalid(f'driver-opt "{name}" is not a valid bool')
    return default if value is None else value in _TRUE


def mtu(options: Mapping[str, str]) -> int:
    """The MTU option; 0: not given."""
    value = options.get(MTU, "")
    if not value:
        return 0
    try:
        number = int(value)
    except ValueError:
        raise invalid(
            f'failed to parse {MTU} value: {value} (strconv.Atoi: parsing "{value}": invalid syntax)'
        ) from None
    if number < 0:
        raise invalid(f"invalid MTU number: {number}")
    return number


def announcements(options: Mapping[str, str]) -> int:
    """How many ARP and NA messages announce a new interface; 0: none.

    :raises WharfError: INVALID, with dockerd's sentence.
    """
    number = _integer(options, ANNOUNCEMENTS, "must be an integer")
    if number is not None and not 0 <= number <= 3:
        raise invalid(f"{ANNOUNCEMENTS} must be in the range 0 to 3")
    return 3 if number is None else number


def announcement_pause(options: Mapping[str, str]) -> float:
    """The seconds between these messages.

    :raises WharfError: INVALID, with dockerd's sentence.
    """
    number = _integer(options, ANNOUNCEMENT_PAUSE, "must be integer milliseconds")
    if number is not None and not 100 <= number <= 2000:
        raise invalid(f"{ANNOUNCEMENT_PAUSE} must be in the range 100 to 2000")
    return 1.0 if number is None else number / 1000


def _integer(options: Mapping[str, str], name: str, what: str) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    if not re.fullmatch(r"[+-]?[0-9]+", value):
        raise invalid(f'value for option {name} "{value}" {what}')
    return int(value)


def check(network: Network) -> None:
    """Checks the driver's options.

    :raises WharfError: INVALID: an option has an invalid value.
    """
    mtu(network.options)
    announcements(network.options)
    announcement_pause(network.options)
    if network.driver == BRIDGE:
        _check_bridge(network)
    elif network.driver == MACVLAN:
        mode = network.options.get("macvlan_mode") or "bridge"
        if mode not in MACVLAN_MODES:
            raise invalid(f"requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default")
    elif network.driver == IPVLAN:
        mode = network.options.get("ipvlan_mode") or "l2"
        if mode not in IPVLAN_MODES:
            raise invalid(f"requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default")
        given = network.options.get("ipvlan_flag") or "bridge"
        if given not in IPVLAN_FLAGS:
            raise invalid(f"requested ipvlan flag '{given}' is not valid, 'bridge' is the ipvlan driver default")
    _check_prefix(network)


def _check_prefix(network: Network) -> None:
    prefix = network.options.get(PREFIX, "")
    if prefix and (not prefix.isascii() or not prefix.replace("_", "").replace("-", "").isalnum() or len(prefix) > 12):
        raise invalid(f"invalid interface prefix: {prefix}")


def _check_bridge(network: Network) -> None:
    options = network.options
    for name in (ICC, MASQUERADE, INHIBIT4, DEFAULT):
        flag(options, name, default=True)
    if flag(options, DEFAULT, default=False) and not network.predefined:
        raise invalid("default bridge is already there: a network cannot be made the default bridge")
    for name, version in ((BINDING4, 4), (BINDING6, 6), (HOST4, 4), (HOST6, 6)):
        _check_address(options, name, version)
    for name in (MODE4, MODE6):
        mode = options.get(name)
        if mode is not None and mode not in MODES:
            raise invalid(f"unknown gateway mode {mode}")
        if mode == "isolated" and not network.internal:
            raise invalid(f"gateway mode 'isolated' can only be used for an internal network ({name})")
    device = options.get(NAME, "")
    if len(device) > 15:
        raise invalid("numerical result out of range")
    if device and (device in (".", "..") or any(part in device for part in "/: \t\n\0")):
        raise invalid(f"invalid bridge name: {device}")


def _check_address(options: Mapping[str, str], name: str, version: int) -> None:
    value = options.get(name)
    if not value:
        return
    try:
        address = ip_address(value)
    except ValueError:
        raise invalid(f"failed to parse {name} value: {value} (nil ip)") from None
    # As in dockerd, an IPv6 address as binding of a v4 option means all addresses of both.
    if address.version != version and not (name == BINDING4 and value == "::"):
        raise invalid(f"failed to parse {name} value: {value} (not an IPv{version} address)")


def rules(network: Network) -> BridgeRules:
    """The firewall's rules for a network with a bridge. Nothing is routed to or from an overlay network, except what
    reaches published ports."""
    options = network.options
    if network.overlay:
        node = network.node_address.partition("/")[0]
        return BridgeRules(network.bridge, tuple(network.subnets), internal=True, ingress=network.ingress, node=node)
    return BridgeRules(
        bridge=network.bridge,
        subnets=tuple(network.subnets),
        internal=network.internal,
        icc=flag(options, ICC, default=True),
        masquerade4=flag(options, MASQUERADE, default=True),
        masquerade6=flag(options, MASQUERADE, default=True),
        mode4=options.get(MODE4) or "nat",
        mode6=options.get(MODE6) or "nat",
        trusted=tuple(item.strip() for item in options.get(TRUSTED, "").split(":") if item.strip()),
        source4=options.get(HOST4, ""),
        source6=options.get(HOST6, ""),
    )


def _check_interface(name: str) -> None:
    """The kernel's rule for names (dev_valid_name), and names that the container has already."""
    odd = any(char in "/:" or char.isspace() for char in name)
    if odd or name in (".", "..", "lo") or len(name.encode(errors="replace")) > 15:
        raise invalid(f"invalid endpoint settings:\ninvalid interface name {name!r}")


def endpoint_sysctls(driver_opts: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """The ``net.*.IFNAME.*`` settings of an endpoint, still with IFNAME, which the docker CLI writes in lower case.

    :raises WharfError: INVALID: a malformed or foreign sysctl, or an invalid interface name.
    """
    found = []
    for name, value in (driver_opts or {}).items():
        if name == ENDPOINT_IFNAME:
            _check_interface(value)
            continue
        if name != ENDPOINT_SYSCTLS:
            continue
        for item in filter(None, (part.strip() for part in value.split(","))):
            key, equals, setting = item.partition("=")
            if not equals:
                raise invalid(f"invalid endpoint settings:\ninvalid sysctl setting '{item}'")
            parts = key.split(".")
            if (
                len(parts) != 5
                or "/" in key
                or (parts[0], parts[3].upper()) != ("net", "IFNAME")
                or parts[1] not in ("ipv4", "ipv6", "mpls")
                or parts[2] not in ("conf", "neigh")
            ):
                raise invalid(
                    f"invalid endpoint settings:\nunrecognised network interface sysctl '{item}'; represent "
                    "'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
                )
            key = ".".join((*parts[:3], "IFNAME", parts[4]))
            found.append((key, setting))
    return tuple(found)
