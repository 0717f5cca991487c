"""Allocates subnets for networks, and addresses in them.

Accesses neither the kernel nor the disk. The owner of a network rebuilds its pools from its stored endpoints; a pool
never allocates an address twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from engine.common.errors import Kind, WharfError, invalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class AddressInUse(WharfError):
    def __init__(self, message: str = "Address already in use") -> None:
        super().__init__(Kind.PERMISSION_DENIED, message)


class PoolExhausted(WharfError):
    def __init__(self, message: str = "no available addresses in the pool") -> None:
        super().__init__(Kind.INTERNAL, message)


@dataclass(frozen=True, slots=True)
class DefaultPool:
    """A range from which networks without a given subnet get subnets of ``size`` bits."""

    base: Network
    size: int

    def free(self, near: Iterable[Network]) -> Network | None:
        """Return the first subnet that overlaps none of ``near``."""
        step = 1 << (self.base.max_prefixlen - self.size)
        at = int(self.base.network_address)
        for network in sorted(near, key=lambda item: int(item.network_address)):
            if int(network.network_address) >= at + step:
                break
            if int(network.broadcast_address) >= at:
                at = (int(network.broadcast_address) // step + 1) * step
        return type(self.base)((at, self.size)) if at <= int(self.base.broadcast_address) else None


#: dockerd's own defaults for local networks.
LOCAL_DEFAULTS: tuple[DefaultPool, ...] = (
    *(DefaultPool(IPv4Network(f"172.{part}.0.0/16"), 16) for part in (17, 18, 19)),
    *(DefaultPool(IPv4Network(f"172.{part}.0.0/14"), 16) for part in (20, 24, 28)),
    DefaultPool(IPv4Network("192.168.0.0/16"), 20),
)


def default_pool(base: str, size: str | int) -> DefaultPool:
    """A default pool.

    :raises WharfError: INVALID, with dockerd's sentence.
    """
    try:
        network = ip_network(base, strict=False)
    except ValueError:
        raise invalid(f"failed to parse pool request: invalid CIDR address: {base}") from None
    try:
        bits = int(size)
    except ValueError:
        raise invalid(f"invalid pool size {size!r}") from None
    if not network.prefixlen <= bits <= network.max_prefixlen:
        raise invalid(f"the pool size {bits} is not between the base's {network.prefixlen} bits and an address")
    return DefaultPool(network, bits)


def choose_subnet(pools: Sequence[DefaultPool], taken: Iterable[Network], *, version: int) -> Network:
    """The first subnet of the pools that overlaps nothing in ``taken`` (networks, routes of the host).

    :raises WharfError: all are in use.
    """
    used = [network for network in taken if network.version == version and network.prefixlen]
    for pool in pools:
        if pool.base.version != version:
            continue
        near = [network for network in used if network.overlaps(pool.base)]
        subnet = pool.free(near)
        if subnet is not None:
            return subnet
    raise PoolExhausted(
        f"could not find an available, non-overlapping IPv{version} address pool among the defaults "
        "to assign to the network"
    )


def of_size(pools: Iterable[DefaultPool], size: int) -> list[DefaultPool]:
    """Return the pools, for subnets of ``size`` bits (0: of their own size).

    :raises WharfError: INVALID_ARGUMENT: no pool is that large.
    """
    found = [replace(pool, size=size or pool.size) for pool in pools if not size or pool.base.prefixlen <= size]
    if not found:
        raise invalid("invalid address pool")
    return found


@dataclass(slots=True)
class AddressPool:
    """One subnet of one network. Addresses outside ``range`` are only allocated on request.

    ``reserved`` (gateway, auxiliary addresses) are never allocated to an endpoint.
    """

    subnet: Network
    range: Network | None = None
    reserved: set[Address] = field(default_factory=set)
    taken: dict[Address, str] = field(default_factory=dict)
    _hint: int = 0

    def __contains__(self, address: Address) -> bool:
        return address in self.subnet

    def _bounds(self) -> tuple[int, int]:
        area = self.range or self.subnet
        first, last = int(area.network_address), int(area.broadcast_address)
        if self.subnet.num_addresses > 2:
            first = max(first, int(self.subnet.network_address) + 1)
            if self.subnet.version == 4:
                last = min(last, int(self.subnet.broadcast_address) - 1)
        return first, last

    def counts(self) -> tuple[int, int]:
        """How many addresses are allocated or reserved, and how many of the range are left.

        The network's own address and an IPv4 subnet's broadcast address are reserved, except in subnets of one or two
        addresses (RFC 3021).
        """
        used = self.taken.keys() | self.reserved
        if self.subnet.num_addresses > 2:
            used |= {self.subnet.network_address}
            if self.subnet.version == 4:
                used |= {self.subnet.broadcast_address}
        area = self.range or self.subnet
        return len(used), area.num_addresses - sum(address in area for address in used)

    def first_usable(self) -> Address:
        """The default gateway's address: the first free one of the range."""
        return self._lowest()

    def _lowest(self) -> Address:
        first, last = self._bounds()
        kind = IPv4Address if self.subnet.version == 4 else IPv6Address
        number = max(first, self._hint)
        while number <= last:
            address = kind(number)
            if address not in self.taken and address not in self.reserved:
                return address
            number += 1
        raise PoolExhausted

    def allocate(self, owner: str, *, requested: Address | None = None, prefer: Address | None = None) -> Address:
        """An address for ``owner``: exactly ``requested``; else ``prefer`` if it is free; else the lowest free one.

        :raises AddressInUse, PoolExhausted: there is none.
        """
        if requested is not None:
            if requested not in self.subnet:
                raise invalid(f"Invalid address {requested}: It does not belong to any of this network's subnets")
            network_or_broadcast = (
                self.subnet.version == 4
                and self.subnet.num_addresses > 2
                and requested
                in (
                    self.subnet.network_address,
                    self.subnet.broadcast_address,
                )
            )
            if requested in self.taken or requested in self.reserved or network_or_broadcast:
                raise AddressInUse
            self.taken[requested] = owner
            return requested
        if prefer is not None and prefer not in self.taken and prefer not in self.reserved:
            first, last = self._bounds()
            if prefer.version == self.subnet.version and first <= int(prefer) <= last:
                self.taken[prefer] = owner
                return prefer
        address = self._lowest()
        self.taken[address] = owner
        self._hint = int(address) + 1
        return address

    def release(self, address: Address, owner: str) -> None:
        """Releases an address; does nothing if ``owner`` doesn't have it."""
        if self.taken.get(address) == owner:
            del self.taken[address]
            self._hint = min(self._hint, int(address))


def mac_from_address(address: Address) -> str:
    """A MAC derived from the last four bytes of the address, so that a reused address has the same MAC and no stale
    neighbour entry."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed[-4:])
