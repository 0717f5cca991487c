"""The redirect of port 53 of 127.0.0.11 to the sockets of wharf-proxy in a container's namespace.

The rules are those of dockerd with iptables: chains DOCKER_OUTPUT and DOCKER_POSTROUTING of the table nat, as
iptables-nft writes them. The entrypoints of kind's and k3d's node images pass ``iptables-save`` through sed to
``iptables-restore``: they replace 127.0.0.11 in these rules by the gateway, so that pods can ask there.
"""

import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence

from engine.common import limits
from engine.proxy.resolver import LISTEN
from server.networks.netlink import netns
from server.networks.nftables import nfnetlink, xtables
from server.networks.nftables.libnftables import Nftables
from server.networks.nftables.nfnetlink import Expression, Hook, Transaction, attributes

log = logging.getLogger(__name__)

_PORT = 53
_TABLE, _OUTPUT, _POSTROUTING = "nat", "DOCKER_OUTPUT", "DOCKER_POSTROUTING"
_HOOKS = {"OUTPUT": Hook(3, -100), "POSTROUTING": Hook(4, 100)}  # NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING
_NATIVE = "wharf-dns"  # the table on kernels without xtables' extensions
# nft_compat, or an extension that it loads, is missing: ENOENT, or EOPNOTSUPP for the table's type.
_WITHOUT_XTABLES = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


def redirect(path: str, udp: int, tcp: int) -> None:
    """In a thread: redirects port 53 of 127.0.0.11 to the proxy's ports, so that the container can use port 53 itself.

    Rules that already lead to these ports stay as they are. Others are replaced and match the address that
    the container's rules match: a node's entrypoint may have rewritten it. If the container has added more than
    ``DNS_RULES`` rules, all stay as they are.
    """
    with netns.inside(path):
        try:
            _create(udp, tcp)
        except FileExistsError:
            _bounded(path, _update, udp, tcp)
        except OSError as error:
            if error.errno not in _WITHOUT_XTABLES:
                raise
            log.debug("no rules of iptables-nft in %s: %s", path, error)
            _bounded(path, _native, udp, tcp)


def _bounded(path: str, change: Callable[[int, int], None], udp: int, tcp: int) -> None:
    try:
        change(udp, tcp)
    except nfnetlink.TooManyRules:
        log.warning("the DNS redirect in %s is not renewed: more than %s rules (DNS_RULES)", path, limits.DNS_RULES)


def _listed(table: str, chain: str) -> list[list[Expression]]:
    return nfnetlink.rules(table, chain, limits.DNS_RULES)


def _create(udp: int, tcp: int) -> None:
    """:raises FileExistsError: the chains exist."""
    transaction = Transaction(_TABLE)
    for chain, hook in _HOOKS.items():
        transaction.add_chain(chain, hook)
    for chain in (_OUTPUT, _POSTROUTING):
        transaction.add_chain(chain, exclusive=True)
    _add_jumps(transaction)
    _add_rules(transaction, LISTEN, udp, tcp)
    transaction.commit()


def _update(udp: int, tcp: int) -> None:
    present = _listed(_TABLE, _OUTPUT)
    if {(LISTEN, udp), (LISTEN, tcp)} <= {xtables.destination(rule) for rule in present}:
        return
    _listed(_TABLE, _POSTROUTING)  # the kernel's work to clear it is bounded, too
    transaction = Transaction(_TABLE)
    for chain in (_OUTPUT, _POSTROUTING):
        transaction.add_chain(chain)
        transaction.clear_chain(chain)
    if not present:  # the container has flushed the table: the jumps are gone, too
        for chain, hook in _HOOKS.items():
            transaction.add_chain(chain, hook)
        _add_jumps(transaction)
    matched = (xtables.matched_address(rule, xtables.DESTINATION) for rule in present)
    _add_rules(transaction, next((address for address in matched if address), LISTEN), udp, tcp)
    transaction.commit()


def _add_jumps(transaction: Transaction) -> None:
    for chain, own in (("OUTPUT", _OUTPUT), ("POSTROUTING", _POSTROUTING)):
        transaction.add_rule(
            chain, [*xtables.address(xtables.DESTINATION, LISTEN), xtables.counter(), xtables.jump(own)]
        )


def _add_rules(transaction: Transaction, address: str, udp: int, tcp: int) -> None:
    """Redirects port 53 of ``address``. The SNAT rules match no packet, as conntrack translates answers; entrypoints
    expect them."""
    for protocol, port in ((socket.IPPROTO_TCP, tcp), (socket.IPPROTO_UDP, udp)):
        rule = [
            *xtables.address(xtables.DESTINATION, address),
            *xtables.ports(protocol, destination=_PORT),
            xtables.counter(),
            xtables.translate_destination(LISTEN, port),
        ]
        transaction.add_rule(_OUTPUT, rule, protocol=protocol)
        rule = [
            *xtables.address(xtables.SOURCE, LISTEN),
            *xtables.ports(protocol, source=port),
            xtables.counter(),
            xtables.translate_source_port(_PORT),
        ]
        transaction.add_rule(_POSTROUTING, rule, protocol=protocol)


def _native(udp: int, tcp: int) -> None:
    """The redirect with nft's own expressions, in a table that iptables-nft doesn't read."""
    rules = f"""
table ip {_NATIVE} {{
	chain output {{
		type nat hook output priority dstnat; policy accept;
		ip daddr {LISTEN} udp dport {_PORT} dnat to {LISTEN}:{udp}
		ip daddr {LISTEN} tcp dport {_PORT} dnat to {LISTEN}:{tcp}
	}}
}}
"""
    # Check first: removing rules makes the kernel wait, and a new namespace has none.
    present = _listed(_NATIVE, "output")
    if {udp, tcp} <= {port for rule in present for port in _loaded_ports(rule)}:
        return
    with Nftables() as nft:
        nft.run(f"delete table ip {_NATIVE}\n{rules}" if present else rules)


def _loaded_ports(rule: Sequence[Expression]) -> Iterator[int]:
    """The ports that nft's expression ``dnat`` translates to: a rule loads them into a register."""
    for item in rule:
        fields = dict(attributes(item.data))
        if item.name == "immediate" and 2 in fields:  # NFTA_IMMEDIATE_DATA with NFTA_DATA_VALUE
            value = dict(attributes(fields[2])).get(1, b"")
            if len(value) == 2:
                yield int.from_bytes(value, "big")
