"""The answers of network and IPAM plugins, checked. A wrong type or an invalid address is an error that names the
method; an absent or null field is empty."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Any

from engine.common import limits
from engine.common.errors import WharfError, internal
from server.networks.netlink.rtnetlink import Interface

NEXT_HOP = 0
"""``RouteType`` of a route with a next hop; any other is a route directly through the interface."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object that ``method`` answered. As in Go, names of fields match in any case."""

    method: str
    fields: Mapping[str, Any]

    def get(self, name: str) -> Any:
        if name in self.fields:
            return self.fields[name]
        return next((value for key, value in self.fields.items() if key.lower() == name.lower()), None)

    def text(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.malformed(name, "a string")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.malformed(name, "a boolean")
        return value

    def inner(self, name: str) -> "Answer | None":
        """An object; None: it is absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.malformed(name, "an object")
        return Answer(self.method, value)

    def texts(self, name: str) -> dict[str, str]:
        """An object of strings."""
        found = self.inner(name)
        if found is None:
            return {}
        return {key: found.text(key) for key in found.fields}

    def interface(self, name: str, version: int = 0) -> Interface | None:
        """An address with its prefix length; ``version`` 0: of any family. None: it is empty."""
        text = self.text(name)
        if not text:
            return None
        try:
            if "/" not in text or "%" in text:
                raise ValueError
            found = ip_interface(text)
        except ValueError:
            raise internal(f"{self.method}: invalid CIDR address: {text}") from None
        if version and found.version != version:
            raise internal(f"{self.method}: {name} {text} is no IPv{version} address")
        return found

    def address(self, name: str, version: int) -> str:
        """An address without a prefix length; "": it is empty."""
        text = self.text(name)
        if text and not is_address(text, version):
            raise internal(f'unable to parse {name} "{text}"')
        return text

    def malformed(self, name: str, kind: str) -> WharfError:
        return internal(f"{self.method}: the plugin's answer is malformed: {name} is not {kind}")


def is_address(text: str, version: int = 0) -> bool:
    try:
        return "%" not in text and ip_address(text).version in (version or 4, version or 6)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer to ``Join``. ``routes``: (destination, next hop or "")."""

    source: str
    prefix: str
    gateway4: str
    gateway6: str
    routes: tuple[tuple[str, str], ...]
    without_gateway: bool


def parse_join(answer: Answer) -> Joined:
    """:raises WharfError: INTERNAL: the answer is malformed."""
    name = answer.inner("InterfaceName")
    source, prefix = (name.text("SrcName"), name.text("DstPrefix")) if name else ("", "")
    if source:
        _check_name(answer.method, source, 15)
        # The engine appends a number.
        _check_name(answer.method, prefix or "0", 12)
    return Joined(
        source,
        prefix,
        answer.address("Gateway", 4),
        answer.address("GatewayIPv6", 6),
        _routes(answer),
        answer.flag("DisableGatewayService"),
    )


def _check_name(method: str, name: str, most: int) -> None:
    """The kernel's rule for the names of devices (``dev_valid_name``)."""
    if name in (".", "..") or any(char in "/:" or char.isspace() for char in name) or len(name.encode()) > most:
        raise internal(f"{method}: invalid interface name {name!r}")


def _routes(answer: Answer) -> tuple[tuple[str, str], ...]:
    listed = answer.get("StaticRoutes")
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise answer.malformed("StaticRoutes", "an array")
    if len(listed) > limits.NETWORK_ROUTES:
        raise internal(limits.exceeded("NETWORK_ROUTES", f"{answer.method}: the number of static routes").message)
    found = []
    for raw in listed:
        if not isinstance(raw, dict):
            raise answer.malformed("StaticRoutes", "an array of objects")
        route = Answer(answer.method, raw)
        destination, hop, kind = (
            route.interface("Destination"),
            route.text("NextHop"),
            route.get("RouteType") or NEXT_HOP,
        )
        if destination is None:
            raise internal(f"{answer.method}: a static route has no destination")
        if hop and not is_address(hop, destination.version):
            raise internal(f"failed to parse nexthop IP {hop}")
        if kind == NEXT_HOP and not hop:
            raise internal(f"{answer.method}: the static route to {destination} has no next hop")
        found.append((str(destination.network), hop if kind == NEXT_HOP else ""))
    return tuple(found)
