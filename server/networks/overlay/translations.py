"""The translation of virtual addresses in a container's network namespace: a table of nftables with one rule for each
service. The namespace's conntrack keeps the backend of a connection.
"""

import errno
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from server.networks.netlink import conntrack, netns
from server.networks.nftables.libnftables import Nftables, NftError
from server.networks.nftables.mesh import in_turn
from server.networks.overlay.model import ServiceAddresses

_TABLE = "wharf-services"
_CHAIN = f"""
table ip {_TABLE} {{
	chain output {{
		type nat hook output priority dstnat; policy accept;
	}}
}}
flush chain ip {_TABLE} output
"""


@dataclass(frozen=True, slots=True)
class Translation:
    """``rules`` for the namespace at ``path``; "": none."""

    path: str
    rules: str


def rules(services: Iterable[ServiceAddresses], container: str) -> str:
    """The rules for a container. Containers begin with different backends: many have only one connection."""
    lines = []
    for service in services:
        if not service.virtual_ip:
            continue
        backends = [backend.address for backend in service.backends]
        match = f"add rule ip {_TABLE} output ip daddr {service.virtual_ip}"
        if not backends:
            lines.append(f"{match} reject\n")
            continue
        first = zlib.crc32(container.encode()) % len(backends)
        lines.append(f"{match} dnat to {in_turn([*backends[first:], *backends[:first]])}\n")
    return "".join(lines)


def write(translations: Sequence[Translation], gone: Collection[str]) -> dict[str, str]:
    """In a thread: replaces the rules in each namespace by one transaction, and forgets the UDP flows to the addresses
    ``gone``. A namespace that has ended meanwhile is fine.

    Returns what failed, by path.
    """
    failed = {}
    for each in translations:
        try:
            with netns.inside(each.path):
                with Nftables() as nft:
                    _replace(nft, each.rules)
                if gone:
                    conntrack.flush_udp(set(gone))
        except FileNotFoundError:
            continue
        except OSError as error:
            # The container has ended: its namespace is unmounted, and the path is an empty file.
            if error.errno == errno.EINVAL and not netns.exists(each.path):
                continue
            failed[each.path] = str(error)
    return failed


def _replace(nft: Nftables, text: str) -> None:
    if text:
        nft.run(_CHAIN + text)
        return
    try:
        nft.run(f"delete table ip {_TABLE}\n")
    except NftError as error:
        if error.errno != errno.ENOENT:
            raise
