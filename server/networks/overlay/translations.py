"""The translation of virtual addresses in a container's network namespace: a table of nftables with a chain for each
virtual address and a map of its numbered backends. A change writes only the elements that change: nft needs 4 ms for
each thousand of them. The namespace's conntrack keeps the backend of a connection.
"""

import errno
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from server.networks.netlink import conntrack, netns
from server.networks.nftables.libnftables import Nftables, NftError
from server.networks.overlay.model import Backend, ServiceAddresses

_TABLE = "wharf-services"
#: Also replaces the table of an earlier daemon, in the same transaction.
_EMPTY = f"""
table ip {_TABLE}
delete table ip {_TABLE}
table ip {_TABLE} {{
	map services {{
		type ipv4_addr : verdict;
	}}
	chain output {{
		type nat hook output priority dstnat; policy accept;
		ip daddr vmap @services
	}}
}}
"""
_REMOVE = f"delete table ip {_TABLE}\n"


@dataclass(frozen=True, slots=True)
class Balanced:
    """A virtual address in one namespace: connections go to the first ``count`` of ``slots``. The other ones are what
    is left of more backends: an element that is removed together with a smaller ``count`` could be missed by a packet
    that is on its way."""

    backends: Sequence[Backend]
    slots: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Translation:
    """``services``: those that the container sees in the namespace at ``path``. ``written``: what the namespace has, by
    virtual address; None: it is not known."""

    path: str
    container: str
    services: tuple[ServiceAddresses, ...]
    written: Mapping[str, Balanced] | None


def write(
    translations: Sequence[Translation], gone: Collection[str]
) -> tuple[dict[str, Mapping[str, Balanced]], dict[str, str]]:
    """In a thread: changes each namespace by one transaction, and forgets the UDP flows to the addresses ``gone``. A
    namespace that has ended meanwhile is fine.

    Returns what each namespace has, and what failed, by path.
    """
    written, failed = {}, {}
    for each in translations:
        text, after = _change(each)
        try:
            with netns.inside(each.path):
                if text:
                    with Nftables() as nft:
                        _run(nft, text)
                if gone:
                    conntrack.flush_udp(set(gone))
        except FileNotFoundError:
            continue
        except OSError as error:
            # The container has ended: its namespace is unmounted, and the path is an empty file.
            if error.errno == errno.EINVAL and not netns.exists(each.path):
                continue
            failed[each.path] = str(error)
        else:
            written[each.path] = after
    return written, failed


def _run(nft: Nftables, text: str) -> None:
    try:
        nft.run(text)
    except NftError as error:
        if text != _REMOVE or error.errno != errno.ENOENT:
            raise


def _change(translation: Translation) -> tuple[str, Mapping[str, Balanced]]:
    """The transaction, and what the namespace has after it."""
    wanted: dict[str, Sequence[Backend]] = {}
    for service in translation.services:
        if service.virtual_ip:
            wanted.setdefault(service.virtual_ip, service.backends)
    if not wanted:
        return "" if translation.written == {} else _REMOVE, {}
    former = translation.written or {}
    lines = [] if former else [_EMPTY]
    after = {}
    for virtual, backends in wanted.items():
        before = former.get(virtual)
        if before is not None and before.backends == backends:
            after[virtual] = before
            continue
        after[virtual] = _balanced(before, backends, translation.container)
        lines += _lines(virtual, before, after[virtual])
    for virtual in former.keys() - wanted.keys():
        lines.append(_removed(virtual))
    return "".join(lines), after


def _balanced(before: Balanced | None, wanted: Sequence[Backend], container: str) -> Balanced:
    """Backends keep their slots; new ones, and then the last ones, get those that become free. Containers begin with
    different backends: many have only one connection."""
    backends = list(dict.fromkeys(backend.address for backend in wanted))
    if before is None:
        first = zlib.crc32(container.encode()) % max(len(backends), 1)
        return Balanced(wanted, (*backends[first:], *backends[:first]), len(backends))
    count, present = len(backends), set(backends)
    slots = list(before.slots)
    used = slots[: before.count]
    known = set(used)
    moved = [address for address in backends if address not in known]
    moved += [address for address in used[count:] if address in present]
    kept = used[:count]
    free = [at for at, address in enumerate(kept) if address not in present] + list(range(len(kept), count))
    for at, address in zip(free, moved, strict=True):
        slots[at : at + 1] = [address]
    return Balanced(wanted, tuple(slots), count)


def _lines(virtual: str, before: Balanced | None, after: Balanced) -> list[str]:
    """The commands for a virtual address."""
    chain, backends = f"ip {_TABLE} to-{virtual}", f"ip {_TABLE} of-{virtual}"
    lines = []
    if before is None:
        lines.append(f"add map {backends} {{ typeof numgen inc mod 2 : ip daddr; }}\n")
        lines.append(f"add chain {chain}\n")
    former = before.slots if before is not None else ()
    changed = [at for at, address in enumerate(after.slots) if at >= len(former) or former[at] != address]
    if stale := [at for at in changed if at < len(former)]:
        lines.append(f"delete element {backends} {{ {', '.join(map(str, stale))} }}\n")
    if changed:
        elements = ", ".join(f"{at} : {after.slots[at]}" for at in changed)
        lines.append(f"add element {backends} {{ {elements} }}\n")
    if before is None or before.count != after.count:
        action = f"dnat to numgen inc mod {after.count} map @of-{virtual}" if after.count else "reject"
        lines.append(f"flush chain {chain}\nadd rule {chain} {action}\n")
    if before is None:
        lines.append(f"add element ip {_TABLE} services {{ {virtual} : goto to-{virtual} }}\n")
    return lines


def _removed(virtual: str) -> str:
    chain = f"ip {_TABLE} to-{virtual}"
    return (
        f"delete element ip {_TABLE} services {{ {virtual} }}\nflush chain {chain}\ndelete chain {chain}\n"
        f"delete map ip {_TABLE} of-{virtual}\n"
    )
