"""The host ports that this engine has allocated. A bind shows whether another program has one."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.common.errors import Kind, WharfError

_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
_CANDIDATES = 64
"""The number of ports tried for one request when other programs have the earlier ones."""


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports ``first`` to ``last`` of one protocol at one host address (``0.0.0.0`` and ``::``: all)."""

    protocol: str
    address: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def overlaps(self, other: "PortRange") -> bool:
        """Whether both have a port of an address in common."""
        if self.protocol != other.protocol or self.last < other.first or other.last < self.first:
            return False
        if (":" in self.address) != (":" in other.address):
            return False
        return self.address == other.address or {self.address, other.address} & {"0.0.0.0", "::"} != set()


def allocated(address: str, port: int) -> WharfError:
    """dockerd's sentence for a port that one of its own containers has."""
    host = f"[{address}]" if ":" in address else address
    return WharfError(Kind.INTERNAL, f"Bind for {host}:{port} failed: port is already allocated")


@dataclass(slots=True)
class PortAllocator:
    """The allocated ports, by owner (an endpoint's id). One for the engine; call it from one thread."""

    taken: dict[str, list[PortRange]] = field(default_factory=dict)
    _by_port: dict[tuple[str, int], list[PortRange]] = field(default_factory=dict)
    _ranges: list[PortRange] = field(default_factory=list)
    # By range of ports: where the next search for a free one begins.
    _next: dict[tuple[int, int], int] = field(default_factory=dict)

    def conflict(self, requested: PortRange) -> PortRange | None:
        """The allocated range that conflicts with ``requested``, if any."""
        if len(requested) == 1:
            near = self._by_port.get((requested.protocol, requested.first), ())
            found = next((other for other in near if other.overlaps(requested)), None)
            return found or next((other for other in self._ranges if other.overlaps(requested)), None)
        for other in self._ranges:
            if other.overlaps(requested):
                return other
        for (protocol, port), singles in self._by_port.items():
            if protocol == requested.protocol and requested.first <= port <= requested.last:
                for other in singles:
                    if other.overlaps(requested):
                        return other
        return None

    def allocate(self, owner: str, requested: PortRange) -> None:
        """Allocates a range.

        :raises WharfError: in use, with dockerd's sentence.
        """
        other = self.conflict(requested)
        if other:
            raise allocated(requested.address, max(other.first, requested.first))
        self.taken.setdefault(owner, []).append(requested)
        if len(requested) == 1:
            self._by_port.setdefault((requested.protocol, requested.first), []).append(requested)
        else:
            self._ranges.append(requested)

    def _free(self, other: PortRange) -> None:
        if len(other) == 1:
            near = self._by_port[other.protocol, other.first]
            near.remove(other)
            if not near:
                del self._by_port[other.protocol, other.first]
        else:
            self._ranges.remove(other)

    def release(self, owner: str) -> None:
        """Releases all ranges of ``owner``."""
        for other in self.taken.pop(owner, ()):
            self._free(other)

    def free(self, protocol: str, addresses: list[str], first: int, last: int) -> Iterator[int]:
        """Free ports of a range to try in turn, at most ``_CANDIDATES``. Searches lazily: usually the first one
        succeeds, and a container may need thousands.

        The search begins after the last port that was marked as used in the range. So a port is not allocated again
        before the whole range was: a client of a stopped container's port then doesn't reach another container.
        """
        size = last - first + 1
        start = self._next.get((first, last), first)
        found = 0
        for step in range(size):
            port = first + (start - first + step) % size
            if all(self.conflict(PortRange(protocol, address, port, port)) is None for address in addresses):
                yield port
                found += 1
                if found == _CANDIDATES:
                    return

    def mark_used(self, port: int, first: int, last: int) -> None:
        """Records that a port of a range was allocated: the search continues after it."""
        self._next[first, last] = port + 1 if port < last else first


def ephemeral_range() -> tuple[int, int]:
    """The kernel's range of ports for outgoing connections, from which dockerd publishes random ports too."""
    try:
        with open(_EPHEMERAL, encoding="ascii") as file:
            first, last = file.read().split()
            return int(first), int(last)
    except (OSError, ValueError):
        return 49153, 65535
