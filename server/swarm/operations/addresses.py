"""The addresses of a node: checks, and the choice where the client leaves it open. Sentences are dockerd's
(daemon/cluster/listen_addr.go)."""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address

from engine.common.errors import WharfError, invalid
from engine.common.sockets import join_host_port
from server.swarm.interfaces import Address, Interface, Interfaces

_DEFAULT_HOST, _DEFAULT_PORT = "0.0.0.0", "2377"
_NOT_RECOGNIZED = (
    "must specify a listening address because the address to advertise is not recognized as a system address, and a"
    " system's IP address to use could not be uniquely identified"
)
#: As Go's url.Parse reads a host, and as its net.SplitHostPort does.
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^\[\]/]*?)(?::(?P<port>\d*))?")
_HOST_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]/]*):(?P<port>[^:\[\]/]*)")


def complete(text: str) -> str:
    """An address with its host and its port, for which defaults are used. What is no address is returned as it is.

    :raises WharfError: INVALID_ARGUMENT: it is empty.
    """
    if not text:
        raise invalid("invalid empty address")
    found = _AUTHORITY.fullmatch(text.removeprefix("tcp://"))
    if found is None or (found["port"] and not int(found["port"])):
        return text
    return join_host_port(found["host"].strip("[]") or _DEFAULT_HOST, found["port"] or _DEFAULT_PORT)


def listen_addr(text: str) -> str:
    """As ``complete``, for the field of a request."""
    try:
        return complete(text)
    except WharfError as error:
        raise invalid(f'invalid ListenAddr "{text}": {error.message}') from None


def split(text: str) -> tuple[str, str] | None:
    """Host and port; None: the text has no port."""
    found = _HOST_PORT.fullmatch(text)
    return None if found is None else (found["host"].strip("[]"), found["port"])


def listen(text: str, interfaces: Interfaces) -> tuple[str, str]:
    """The host and the port of a listen address with its port.

    :raises WharfError: INVALID_ARGUMENT.
    """
    parts = split(text)
    if parts is None:
        raise invalid(f"could not parse listen address {text}")
    sentence = "listen address must be an IP address or network interface (with optional port number)"
    return str(_resolve(parts[0], interfaces, sentence, unspecified=True)), parts[1]


def advertise(text: str, port: str, interfaces: Interfaces) -> tuple[str, str]:
    """The host and the port to advertise; "": the configured one, or the machine's only address. ``port``: used if the
    text has none.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if not text and interfaces.advertised:
        sentence = (
            "default advertise address must be a non-zero IP address or network interface (without a port number)"
        )
        return str(_resolve(interfaces.advertised, interfaces, sentence, unspecified=False)), port
    if not text:
        return str(system_address(interfaces)), port
    host, port = split(text) or (text, port)
    sentence = "advertise address must be a non-zero IP address or network interface (with optional port number)"
    return str(_resolve(host, interfaces, sentence, unspecified=False)), port


def data_path(text: str, interfaces: Interfaces) -> str:
    """:raises WharfError: INVALID_ARGUMENT."""
    if not text:
        return ""
    sentence = "data path address must be a non-zero IP address or network interface (without a port number)"
    return str(_resolve(text, interfaces, sentence, unspecified=False))


def local(listening: str, advertised: str, interfaces: Interfaces) -> str:
    """An address of this machine: that on which it listens, or else the advertised one if it is of this machine.

    :raises WharfError: INVALID_ARGUMENT: no address can be chosen.
    """
    if not ip_address(listening).is_unspecified:
        return listening
    if any(str(address) == advertised for each in interfaces.all for address in each.addresses):
        return advertised
    try:
        return str(system_address(interfaces))
    except WharfError:
        raise invalid(_NOT_RECOGNIZED) from None


def system_address(interfaces: Interfaces) -> Address:
    """The only address of the machine's hardware interfaces; without such an address, the only one of all interfaces
    that are not of the engine's own networks. IPv4 is preferred.

    :raises WharfError: INVALID_ARGUMENT: none, or several.
    """
    hardware = [each for each in interfaces.all if each.up and not each.kind]
    if not any(_is_global(address) for each in hardware for address in each.addresses):
        return _only(interfaces.all, lambda each: _outside(each, interfaces))
    return _only(hardware, lambda each: [address for address in each.addresses if _is_global(address)])


def _outside(interface: Interface, interfaces: Interfaces) -> Sequence[Address]:
    if not interface.up:
        return ()
    found = [address for address in interface.addresses if _is_global(address)]
    own = any(address in subnet for address in found for subnet in interfaces.own if subnet.version == address.version)
    return () if own else found


def _only(interfaces: Sequence[Interface], usable: Callable[[Interface], Sequence[Address]]) -> Address:
    chosen: tuple[Address, str] | None = None
    for interface in interfaces:
        mine: Address | None = None
        for version in (6, 4):
            found = [address for address in usable(interface) if address.version == version]
            if len(found) > 1:
                raise _several(found[0], interface.name, found[1], interface.name)
            mine = found[0] if found else mine
        if mine is None:
            continue
        if chosen is not None:
            raise _several(chosen[0], chosen[1], mine, interface.name)
        chosen = mine, interface.name
    if chosen is None:
        raise invalid("could not find the system's IP address")
    return chosen[0]


def _several(first: Address, name: str, second: Address, other: str) -> WharfError:
    begin = "could not choose an IP address to advertise since this system has multiple addresses on"
    if name == other:
        return invalid(f"{begin} interface {name} ({first} and {second})")
    return invalid(f"{begin} different interfaces ({first} on {name} and {second} on {other})")


def _is_global(address: Address) -> bool:
    """Go's ``IsGlobalUnicast``, which is true for private addresses."""
    special = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not special and address != IPv4Address("255.255.255.255")


def _resolve(text: str, interfaces: Interfaces, sentence: str, *, unspecified: bool) -> Address:
    """The address of the interface with this name, or the address that the text is.

    :raises WharfError: INVALID_ARGUMENT: ``sentence``; or the interface has not exactly one address.
    """
    for interface in interfaces.all:
        if interface.name == text:
            return _of_interface(interface)
    try:
        address = ip_address(text)
    except ValueError:
        raise invalid(sentence) from None
    if address.is_unspecified and not unspecified:
        raise invalid(sentence)
    return address


def _of_interface(interface: Interface) -> Address:
    chosen: Address | None = None
    for version in (6, 4):
        found = [address for address in interface.addresses if address.version == version]
        if len(found) > 1:
            raise invalid(
                f"interface {interface.name} has more than one IPv{version} address ({found[0]} and {found[1]})"
            )
        chosen = found[0] if found else chosen
    if chosen is None:
        raise invalid(f"interface {interface.name} has no usable IPv4 or IPv6 address")
    return chosen
