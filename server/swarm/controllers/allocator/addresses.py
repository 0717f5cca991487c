"""Addresses on the swarm's networks. Those in use are read from the services, tasks and nodes that have them; an
address is free when its task has ended."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import chain

from server.swarm.controllers.draft import Draft
from server.swarm.model.addresses import assigned
from server.swarm.model.objects import Network, Task


class Exhausted(Exception):
    """A network has no free address, or no subnet."""


class Addresses:
    """The addresses of one draft. ``cursors``: the last address that was given on a subnet; the next one is searched
    behind it, so that an address is not used again at once, while other nodes still know its former owner."""

    def __init__(self, draft: Draft, cursors: dict[str, int]) -> None:
        self._draft = draft
        self._cursors = cursors
        # Those that are given by this draft, or are of services or nodes, by network.
        self._used: dict[str, set[str]] | None = None
        self._full: set[str] = set()
        self._pools: dict[str, Sequence[_Pool]] = {}

    def allocate(self, network: Network) -> str:
        """A free address of the network's first IPv4 subnet with one, in CIDR notation.

        :raises Exhausted:
        """
        if network.id not in self._full:
            used = self._in_use().setdefault(network.id, set())
            for pool in self._pools_of(network):
                address = self._next(network, pool, used)
                if address is not None:
                    used.add(address)
                    return address
            self._full.add(network.id)
        raise Exhausted(f"no available addresses on network {network.name}")

    def _pools_of(self, network: Network) -> Sequence["_Pool"]:
        pools = self._pools.get(network.id)
        if pools is None:
            pools = self._pools[network.id] = list(_pools(network))
        return pools

    def check(self, network: Network, address: str) -> None:
        """Checks that only one has this address, which was requested, in CIDR notation.

        :raises Exhausted: another one has it.
        """
        number = int(IPv4Interface(address).ip)
        reserved = any(number in pool.reserved for pool in _pools(network))
        if reserved or sum(each == (network.id, address) for each in self._assigned()) > 1:
            raise Exhausted("Address already in use")

    def _next(self, network: Network, pool: "_Pool", used: set[str]) -> str | None:
        key = f"{network.id}/{pool.subnet}"
        tasks = self._draft.tables.tasks
        begin = self._cursors.get(key, pool.first - 1) + 1
        if not pool.first <= begin <= pool.last:
            begin = pool.first
        for number in chain(range(begin, pool.last + 1), range(pool.first, begin)):
            address = f"{IPv4Address(number)}/{pool.subnet.prefixlen}"
            if address not in used and number not in pool.reserved and not tasks.has_address(network.id, address):
                self._cursors[key] = number
                return address
        return None

    def _assigned(self) -> Iterator[tuple[str, str]]:
        return self._all(self._draft.all_tasks())

    def _all(self, tasks: Iterable[Task]) -> Iterator[tuple[str, str]]:
        tables = self._draft.tables
        return assigned(self._draft.services(), tasks, tables.nodes, tables.ingress)

    def _in_use(self) -> dict[str, set[str]]:
        """What the tables of tasks don't show. An address that this draft releases is free for the next one."""
        if self._used is None:
            self._used = {}
            changed = (new for _, new in self._draft.changed_tasks() if new is not None)
            for network_id, address in self._all(changed):
                self._used.setdefault(network_id, set()).add(address)
        return self._used


def usable(network: Network, address: str) -> bool:
    """Whether an address in CIDR notation may belong to a node or a task of the network."""
    interface = IPv4Interface(address)
    pools = [pool for pool in _pools(network) if pool.subnet == interface.network]
    return any(int(interface.ip) not in pool.reserved for pool in pools)


@dataclass(frozen=True, slots=True)
class _Pool:
    """The addresses from ``first`` to ``last`` of a subnet, without those that are reserved."""

    subnet: IPv4Network
    first: int
    last: int
    reserved: set[int]


def _pools(network: Network) -> Iterator[_Pool]:
    for config in network.ipam.config or ():
        subnet = _parse(config.subnet)
        part = _parse(config.ip_range) if config.ip_range else subnet
        if subnet is None or part is None:
            continue
        reserved = {int(IPv4Address(each)) for each in (config.auxiliary_addresses or {}).values()}
        reserved |= {int(subnet.network_address), int(subnet.broadcast_address)}
        reserved.add(int(IPv4Interface(config.gateway).ip) if config.gateway else int(subnet.network_address) + 1)
        yield _Pool(subnet, int(part.network_address), int(part.broadcast_address), reserved)


def _parse(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        return None  # IPv6
