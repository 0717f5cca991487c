"""Converts a container's port settings to rules, bound ports, and their form in inspect."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from api_models.container import ContainerConfig, HostConfig, PortBinding
from engine.common import limits
from engine.common.errors import Kind, WharfError, invalid
from engine.proxy.forward import Listen
from server.networks.model import PortSpan
from server.networks.nftables.rules import Publication
from server.networks.ports.allocator import PortAllocator, PortRange, allocated, ephemeral_range

_PORT = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?(?:/(?P<protocol>\w+))?", re.ASCII)
_PROTOCOLS = ("tcp", "udp", "sctp")


class PortRequest(NamedTuple):
    """One container port to publish. ``first`` 0: any port; ``last``: the last one of the allowed range.

    A tuple, as a range of ports temporarily creates thousands of these.
    """

    protocol: str
    port: int
    hosts: tuple[str, ...]
    first: int = 0
    last: int = 0

    @property
    def exact(self) -> bool:
        return self.first > 0 and self.first == self.last


@dataclass(slots=True)
class Published:
    """The setup of a container's ports. ``random``: the (protocol, port) of host ports that no request names."""

    publications: list[Publication] = field(default_factory=list)
    listens: list[Listen] = field(default_factory=list)
    ports: list[PortSpan] = field(default_factory=list)
    random: set[tuple[str, int]] = field(default_factory=set)


def parse_port(text: str) -> tuple[int, int, str]:
    """``80/tcp``, ``80`` or ``8000-8010/udp`` → first, last, protocol.

    :raises WharfError: INVALID.
    """
    number, _, plain = text.partition("/")
    if plain in _PROTOCOLS and number.isdecimal() and number.isascii() and 0 < int(number) <= 65535:
        return int(number), int(number), plain
    match = _PORT.fullmatch(text)
    protocol = (match["protocol"] or "tcp").lower() if match else ""
    if not match or protocol not in _PROTOCOLS:
        raise invalid(f"invalid port specification: {text!r}".replace("'", '"'))
    first = int(match["first"])
    last = int(match["last"] or first)
    if not 0 < first <= last <= 65535:
        raise invalid(f"invalid port specification: {text!r}".replace("'", '"'))
    return first, last, protocol


def exposed(config: ContainerConfig, host: HostConfig) -> list[tuple[int, str]]:
    """Every port in the container's settings, in order."""
    ranges = sorted(parse_port(text) for text in (*(config.exposed_ports or {}), *(host.port_bindings or {})))
    found: list[tuple[int, str]] = []
    after = dict.fromkeys(_PROTOCOLS, 0)
    for first, last, protocol in ranges:
        # Thousands of ranges may overlap: visit each port once.
        found += ((port, protocol) for port in range(max(first, after[protocol]), last + 1))
        after[protocol] = max(after[protocol], last + 1)
    return sorted(found)


def port_requests(config: ContainerConfig, host: HostConfig, default_hosts: Sequence[str]) -> list[PortRequest]:
    """The ports to publish. ``default_hosts``: the addresses for a binding without one.

    :raises WharfError: INVALID; more than ``limits.CONTAINER_PORTS``.
    """
    found: list[PortRequest] = []
    bound = set()
    total = 0
    for text, bindings in (host.port_bindings or {}).items():
        first, last, protocol = parse_port(text)
        total += (last - first + 1) * max(1, len(bindings or ()))
        if total > limits.CONTAINER_PORTS:
            raise limits.exceeded("CONTAINER_PORTS", "the number of published ports")
        for port in range(first, last + 1):
            bound.add((port, protocol))
            for binding in bindings or ():
                hosts = (binding.host_ip,) if _is_address(binding.host_ip) else tuple(default_hosts)
                low, high = _host_ports(binding.host_port)
                if first != last and low:
                    # A range mapped to a range: one to one.
                    low = high = low + port - first
                found.append(PortRequest(protocol, port, hosts, low, high))
            if not bindings:
                found.append(PortRequest(protocol, port, tuple(default_hosts)))
    if host.publish_all_ports:
        for port, protocol in exposed(config, host):
            if (port, protocol) not in bound:
                found.append(PortRequest(protocol, port, tuple(default_hosts)))
    return found


def _is_address(text: str) -> bool:
    """Whether an address was given: an invalid one (Go's net.ParseIP) counts as none, as in dockerd."""
    try:
        return bool(text) and "%" not in text and bool(ip_address(text))
    except ValueError:
        return False


def _host_ports(text: str) -> tuple[int, int]:
    if not text or text == "0":
        return 0, 0
    if text.isdecimal() and text.isascii() and int(text) <= 65535:
        return int(text), int(text)
    first, dash, last = text.partition("-")
    try:
        low, high = int(first), int(last if dash else first)
    except ValueError:
        raise invalid(f"invalid port specification: {text!r}".replace("'", '"')) from None
    if not 0 < low <= high <= 65535:
        raise invalid(f"invalid port specification: {text!r}".replace("'", '"'))
    return low, high


@dataclass(frozen=True, slots=True)
class Target:
    """The destination of the ports: a bridge's container. ``nat4``/``nat6``: whether the host's ports are
    translated."""

    bridge: str
    ip4: str
    ip6: str
    nat4: bool = True
    nat6: bool = True
    carry: bool = True
    v6_host: bool = True


def allocate(
    allocator: PortAllocator,
    owner: str,
    requests: Sequence[PortRequest],
    target: Target,
    refused: Callable[[str, int], bool],
    own: tuple[int, int] | None = None,
) -> Published:
    """Allocates host ports for ``owner`` and returns the setup for them. All or nothing.

    :param refused: whether another program was found to have that (protocol, port).
    :param own: the first and the last host port that the user's role allows; None: random ports are ephemeral ones.
    :raises WharfError: a port is in use, or none is free; PERMISSION_DENIED: none of the role is free.
    """
    done = Published()
    if sum(not request.exact for request in requests) > limits.RANDOM_PORTS:
        raise limits.exceeded("RANDOM_PORTS", "the number of ports to publish at random")
    try:
        for first, request in _runs(sorted(requests, key=_order)):
            count = request.port - first.port + 1
            hosts = [host for host in first.hosts if _served(host, target) and _translated(host, target)]
            if hosts:
                port = _allocate_host_port(allocator, owner, first, count, hosts, refused, done, own)
                _publish(done, first, port, count, hosts, target)
            _open(done, first, count, target)
    except BaseException:
        allocator.release(owner)
        raise
    return done


def open_routed(requests: Sequence[PortRequest], target: Target) -> Published:
    """The setup of an endpoint by which the container's traffic doesn't leave: it has no host ports, but its ports are
    open to those who reach a routed network."""
    done = Published()
    for first, request in _runs(sorted(requests, key=_order)):
        _open(done, first, request.port - first.port + 1, target)
    return done


def _order(request: PortRequest) -> tuple[bool, str, tuple[str, ...], int, int]:
    # Fixed ports first: a random one must not take a port that another request names.
    return (not request.exact, request.protocol, request.hosts, request.port, request.first)


def _runs(requests: Sequence[PortRequest]) -> Iterator[tuple[PortRequest, PortRequest]]:
    """Groups adjacent exact requests, as (first, last): a range of ports costs as much as one port."""
    start = end = None
    for request in requests:
        if (
            start is not None
            and end is not None
            and request.exact
            and end.exact
            and (request.protocol, request.hosts) == (end.protocol, end.hosts)
            and (request.port, request.first) == (end.port + 1, end.first + 1)
        ):
            end = request
            continue
        if start is not None and end is not None:
            yield start, end
        start = end = request
    if start is not None and end is not None:
        yield start, end


def _served(host: str, target: Target) -> bool:
    """Whether a host address can be forwarded to the target."""
    if ":" not in host:
        return bool(target.ip4) or target.carry
    return target.v6_host and (bool(target.ip6) or (target.carry and bool(target.ip4)))


def _translated(host: str, target: Target) -> bool:
    return target.nat6 if ":" in host else target.nat4


def _allocate_host_port(
    allocator: PortAllocator,
    owner: str,
    request: PortRequest,
    count: int,
    hosts: Sequence[str],
    refused: Callable[[str, int], bool],
    done: Published,
    own: tuple[int, int] | None,
) -> int:
    if request.exact:
        for host in hosts:
            allocator.allocate(owner, PortRange(request.protocol, host, request.first, request.first + count - 1))
        return request.first
    low, high = (request.first, request.last) if request.first else own or ephemeral_range()
    for port in allocator.free(request.protocol, list(hosts), low, high):
        if refused(request.protocol, port):
            continue
        for host in hosts:
            allocator.allocate(owner, PortRange(request.protocol, host, port, port))
        if not request.first:
            allocator.mark_used(port, low, high)
        done.random.add((request.protocol, port))
        return port
    host = hosts[0] if hosts else "0.0.0.0"
    if request.first:
        raise allocated(host, request.first)
    if own:
        sentence = f"the policy allows you the host ports {low}-{high}, and none of them is free"
        raise WharfError(Kind.PERMISSION_DENIED, sentence)
    raise WharfError(Kind.INTERNAL, "all ports are allocated")


def _publish(
    done: Published, request: PortRequest, port: int, count: int, hosts: Sequence[str], target: Target
) -> None:
    both = "0.0.0.0" in hosts and "::" in hosts
    for host in hosts:
        v6 = ":" in host
        to = target.ip6 if v6 else target.ip4
        if to:
            done.publications.append(Publication(target.bridge, request.protocol, host, port, to, request.port, count))
        if both and not v6:
            continue
        done.listens.append(
            Listen(
                request.protocol, host, port, to or target.ip4 or target.ip6, request.port, count,
                both=both and host == "::", carry=target.carry,
            )
        )  # fmt: skip
    done.ports.append(PortSpan(request.port, request.protocol, tuple(hosts), port, count))


def _open(done: Published, request: PortRequest, count: int, target: Target) -> None:
    """Opens the ports at the addresses of routed families, which have no address of the host."""
    hosts = []
    for to, nat, any_host in ((target.ip4, target.nat4, "0.0.0.0"), (target.ip6, target.nat6, "::")):
        if to and not nat and any((":" in host) == (":" in any_host) for host in request.hosts):
            done.publications.append(
                Publication(target.bridge, request.protocol, "", 0, to, request.port, count, translate=False)
            )
            hosts.append(any_host)
    if hosts:
        done.ports.append(PortSpan(request.port, request.protocol, tuple(hosts), 0, count))


def in_use_sentence(protocol: str, host: str, port: int, text: str) -> str:
    """dockerd's sentence if another program has the port."""
    shown = f"[{host}]" if ":" in host else host
    family = "6" if ":" in host else "4"
    return f"Error starting userland proxy: listen {protocol}{family} {shown}:{port}: bind: {text.lower()}"


def inspect_ports(
    spans: Iterable[PortSpan], config: ContainerConfig, host: HostConfig
) -> dict[str, tuple[PortBinding, ...] | None]:
    """inspect's ``Ports``: published ones, and None for only exposed ones."""
    found: dict[str, list[PortBinding] | None] = {
        f"{port}/{protocol}": None for port, protocol in exposed(config, host)
    }
    for span in spans:
        for step in range(span.count):
            key, outer = f"{span.port + step}/{span.protocol}", str(span.host_port + step) if span.host_port else ""
            bindings = found.get(key)
            if bindings is None:
                bindings = found[key] = []
            bindings += [PortBinding(host_ip=host_ip, host_port=outer) for host_ip in span.hosts]
    return {key: None if bindings is None else tuple(bindings) for key, bindings in found.items()}
