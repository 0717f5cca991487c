"""Addresses on the swarm's networks. Those in use are read from the services and tasks that have them; an address is
free when its task has ended."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from server.swarm.controllers.draft import Draft
from server.swarm.model.objects import Network


class Exhausted(Exception):
    """A network has no free address, or no subnet."""


class Addresses:
    """The addresses of one draft. ``cursors``: the last address that was given on a subnet; the next one is searched
    behind it, so that an address is not used again at once, while other nodes still know its former owner."""

    def __init__(self, draft: Draft, cursors: dict[str, int]) -> None:
        self._draft = draft
        self._cursors = cursors
        self._used: dict[str, set[int]] | None = None

    def allocate(self, network: Network) -> str:
        """A free address of the network's first IPv4 subnet with one, in CIDR notation.

        :raises Exhausted:
        """
        for subnet, reserved in _subnets(network):
            used = self._in_use().setdefault(network.id, set())
            if (address := self._next(network, subnet, used | reserved)) is not None:
                used.add(int(address))
                return f"{address}/{subnet.prefixlen}"
        raise Exhausted(f"no available addresses on network {network.name}")

    def check(self, network: Network, address: str) -> None:
        """Checks that only one has this address, which was requested, in CIDR notation.

        :raises Exhausted: another one has it.
        """
        reserved = any(
            ip_interface(address).ip in subnet and int(ip_interface(address).ip) in numbers
            for subnet, numbers in _subnets(network)
        )
        if reserved or sum(each == (network.id, address) for each in _given(self._draft)) > 1:
            raise Exhausted("Address already in use")

    def _next(self, network: Network, subnet: IPv4Network, used: set[int]) -> IPv4Address | None:
        first, last = int(subnet.network_address) + 1, int(subnet.broadcast_address) - 1
        key = f"{network.id}/{subnet}"
        begin = self._cursors.get(key, first - 1) + 1
        if begin > last:
            begin = first
        for number in (*range(begin, min(last + 1, begin + len(used) + 1)), *range(first, begin)):
            if number not in used:
                self._cursors[key] = number
                return IPv4Address(number)
        return None

    def _in_use(self) -> dict[str, set[int]]:
        if self._used is None:
            self._used = {}
            for network_id, address in _given(self._draft):
                self._used.setdefault(network_id, set()).add(int(ip_interface(address).ip))
        return self._used


def _given(draft: Draft) -> Iterator[tuple[str, str]]:
    for service in draft.services():
        for virtual in service.endpoint.virtual_ips or ():
            if virtual.addr:
                yield virtual.network_id, virtual.addr
    for task in draft.all_tasks():
        if not task.state.ended:
            for attachment in task.attachments:
                for address in attachment.addresses:
                    yield attachment.network_id, address


def _subnets(network: Network) -> Iterator[tuple[IPv4Network, set[int]]]:
    """The IPv4 subnets with what is reserved there."""
    for pool in network.ipam.config or ():
        try:
            subnet: IPv4Network | IPv6Network = ip_network(pool.ip_range or pool.subnet, strict=False)
        except ValueError:
            continue
        if not isinstance(subnet, IPv4Network):
            continue
        reserved = {int(ip_address(each)) for each in (pool.auxiliary_addresses or {}).values()}
        reserved.add(int(IPv4Interface(pool.gateway).ip) if pool.gateway else int(subnet.network_address) + 1)
        yield subnet, reserved
