"""Expressions of nf_tables in the form of iptables-nft, so that ``iptables-save`` prints rules made of them.

Matches of ports and translations of addresses are xtables extensions (``match`` and ``target`` with the C structures of
``linux/netfilter/xt_tcpudp.h`` and ``linux/netfilter/nf_nat.h``), not nft's own expressions: iptables-nft reports
a table with nft's ``dnat`` as incompatible, and versions before 1.8.8 omit ports that nft's expressions match.
"""

import socket
import struct
from collections.abc import Sequence

from server.networks.nftables.nfnetlink import Expression, attribute, attributes, nested, number, text

DESTINATION, SOURCE = 16, 12  # offsets of the addresses in the IPv4 header
_PROTOCOL = 9  # offset of the protocol in the IPv4 header
_REGISTER = 1  # NFT_REG_1
_PORTS = (0, 0xFFFF)
_NAMES = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}
_BY_ADDRESS, _BY_PORT = 1, 2  # NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED


def header(offset: int, value: bytes) -> list[Expression]:
    """Matches bytes of the IPv4 header."""
    # NFTA_PAYLOAD_DREG, _BASE (NFT_PAYLOAD_NETWORK_HEADER), _OFFSET and _LEN
    load = number(1, _REGISTER) + number(2, 1) + number(3, offset) + number(4, len(value))
    # NFTA_CMP_SREG, _OP (NFT_CMP_EQ) and _DATA
    compare = number(1, _REGISTER) + number(2, 0) + nested(3, attribute(1, value))
    return [Expression("payload", load), Expression("cmp", compare)]


def address(offset: int, ip4: str) -> list[Expression]:
    """Matches the address at ``offset``."""
    return header(offset, socket.inet_aton(ip4))


def ports(protocol: int, *, source: int | None = None, destination: int | None = None) -> list[Expression]:
    """``-p tcp -m tcp --sport … --dport …``, or the same of UDP."""
    data = struct.pack("=4H", *_range(source), *_range(destination)) + bytes(8)
    match = text(1, _NAMES[protocol]) + number(2, 0) + attribute(3, data)  # NFTA_MATCH_NAME, _REV, _INFO
    return [*header(_PROTOCOL, bytes((protocol,))), Expression("match", match)]


def _range(port: int | None) -> tuple[int, int]:
    return _PORTS if port is None else (port, port)


def counter() -> Expression:
    return Expression("counter", attribute(1, bytes(8)) + attribute(2, bytes(8)))  # NFTA_COUNTER_BYTES, _PACKETS


def jump(chain: str) -> Expression:
    # NFTA_IMMEDIATE_DREG (NFT_REG_VERDICT) and _DATA: NFTA_DATA_VERDICT with NFTA_VERDICT_CODE (NFT_JUMP) and _CHAIN
    return Expression("immediate", number(1, 0) + nested(2, nested(2, number(1, -3), text(2, chain))))


def translate_destination(ip4: str, port: int) -> Expression:
    """``-j DNAT --to-destination ip4:port``."""
    host, at = socket.inet_aton(ip4).ljust(16, b"\0"), struct.pack(">H", port)
    data = struct.pack("=I", _BY_ADDRESS | _BY_PORT) + host + host + at + at  # struct nf_nat_range2
    return _target("DNAT", 2, data.ljust(48, b"\0"))


def translate_source_port(port: int) -> Expression:
    """``-j SNAT --to-source :port``."""
    data = struct.pack("=II8x", 1, _BY_PORT) + struct.pack(">HH", port, port)  # struct nf_nat_ipv4_multi_range_compat
    return _target("SNAT", 0, data.ljust(24, b"\0"))


def _target(name: str, revision: int, data: bytes) -> Expression:
    return Expression("target", text(1, name) + number(2, revision) + attribute(3, data))


def matched_address(rule: Sequence[Expression], offset: int) -> str | None:
    """The whole address at ``offset`` that a rule matches; None if it matches none there."""
    loads = False
    for item in rule:
        fields = dict(attributes(item.data))
        if item.name == "payload":
            values = [int.from_bytes(fields.get(kind, b""), "big") for kind in (2, 3, 4)]
            loads = values == [1, offset, 4]
        elif item.name == "cmp" and loads:
            return socket.inet_ntoa(dict(attributes(fields[3]))[1])
        else:
            loads = False
    return None


def destination(rule: Sequence[Expression]) -> tuple[str, int] | None:
    """The address and port of a rule's ``-j DNAT``; None for a rule without one."""
    for item in rule:
        fields = dict(attributes(item.data))
        if item.name == "target" and fields.get(1) == b"DNAT\0" and len(data := fields.get(3, b"")) >= 38:
            return socket.inet_ntoa(data[4:8]), int.from_bytes(data[36:38], "big")
    return None
