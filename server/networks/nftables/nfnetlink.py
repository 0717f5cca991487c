"""Transactions and listings of nf_tables by netlink messages (``linux/netfilter/nf_tables.h``).

For what nft's language cannot write: the expressions ``match`` and ``target`` of iptables-nft. Everything works in the
network namespace of the calling thread.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from itertools import count
from typing import NamedTuple

NLM_F_EXCL = 0x200
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_APPEND, _NLM_F_DUMP = 0x1, 0x4, 0x400, 0x800, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _NEWCHAIN, _NEWRULE, _GETRULE, _DELRULE = 0, 3, 6, 7, 8
_NESTED = 0x8000  # NLA_F_NESTED
_IPV4 = 2  # NFPROTO_IPV4
_HEADERS = 20  # bytes of struct nlmsghdr and struct nfgenmsg


class Hook(NamedTuple):
    """Where a base chain of the type nat is called. ``number``: NF_INET_…; lower priorities are called first."""

    number: int
    priority: int


class Expression(NamedTuple):
    """One expression of a rule: its name, and its attributes as the kernel encodes them."""

    name: str
    data: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network byte order."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *values: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(values))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message or of a nested attribute: numbers without flags, and values."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


class Transaction:
    """Changes to one table of the family ip, committed completely or not at all."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._sequence = count(2)
        self._messages = [_message(_BATCH_BEGIN, 0, 1, resource=_SUBSYSTEM, family=0)]
        self._add(_NEWTABLE, _NLM_F_CREATE, text(1, table), number(2, 0))  # NFTA_TABLE_NAME, _FLAGS

    def _add(self, kind: int, flags: int, *values: bytes) -> None:
        sequence = next(self._sequence)
        self._messages.append(_message(_SUBSYSTEM << 8 | kind, _NLM_F_ACK | flags, sequence, *values))

    def add_chain(self, name: str, hook: Hook | None = None, *, exclusive: bool = False) -> None:
        """Creates a chain. ``exclusive``: the commit fails with EEXIST if the chain exists."""
        values = [text(1, self._table), text(3, name)]  # NFTA_CHAIN_TABLE, _NAME
        if hook is not None:
            # NFTA_CHAIN_HOOK with NFTA_HOOK_HOOKNUM and _PRIORITY, NFTA_CHAIN_POLICY (NF_ACCEPT), NFTA_CHAIN_TYPE
            values += [nested(4, number(1, hook.number), number(2, hook.priority)), number(5, 1), text(7, "nat")]
        self._add(_NEWCHAIN, _NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0), *values)

    def add_rule(self, chain: str, expressions: Iterable[Expression], *, protocol: int = 0) -> None:
        """Appends a rule. ``protocol``: the IP protocol that its xtables matches require (0: none)."""
        # NFTA_LIST_ELEM with NFTA_EXPR_NAME and _DATA
        listed = (nested(1, text(1, item.name), nested(2, item.data)) for item in expressions)
        values = [text(1, self._table), text(2, chain), nested(4, *listed)]  # NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS
        if protocol:
            values.append(nested(5, number(1, protocol), number(2, 0)))  # NFTA_RULE_COMPAT with _PROTO and _FLAGS
        self._add(_NEWRULE, _NLM_F_CREATE | _NLM_F_APPEND, *values)

    def clear_chain(self, name: str) -> None:
        """Deletes all rules of a chain. A chain without rules is fine."""
        self._add(_DELRULE, 0, text(1, self._table), text(2, name))

    def commit(self) -> None:
        """:raises OSError: the kernel refused it; nothing has changed."""
        self._messages.append(_message(_BATCH_END, 0, next(self._sequence), resource=_SUBSYSTEM, family=0))
        with _socket() as sock:
            sock.send(b"".join(self._messages))
            # The kernel has processed the batch when send returns: all answers are there.
            for kind, body in _received(sock):
                if kind == _NLMSG_ERROR:
                    _check(body)


class TooManyRules(Exception):
    """A listing ended at its bound."""


def rules(table: str, chain: str, most: int) -> list[list[Expression]]:
    """The rules of a chain of the family ip. Empty if the chain is missing.

    :raises TooManyRules: the kernel lists more than ``most`` rules; only so many are read.
    :raises OSError: the kernel refused the listing.
    """
    found: list[list[Expression]] = []
    with _socket() as sock:
        sock.send(_message(_SUBSYSTEM << 8 | _GETRULE, _NLM_F_DUMP, 1, text(1, table), text(2, chain)))
        sock.settimeout(None)
        read = 0
        while True:
            for kind, body in _split(sock.recv(1 << 16)):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    _check(body)
                read += 1
                if read > most:
                    raise TooManyRules
                # Kernels before 5.10 filter a listing by neither table nor chain, so it is done here.
                fields = dict(attributes(body[4:]))
                if fields.get(1, b"").rstrip(b"\0") == table.encode() and fields.get(2, b"") == chain.encode() + b"\0":
                    found.append([_expression(value) for _, value in attributes(fields.get(4, b""))])


def _expression(data: bytes) -> Expression:
    fields = dict(attributes(data))
    return Expression(fields.get(1, b"").rstrip(b"\0").decode(), fields.get(2, b""))


def _message(kind: int, flags: int, sequence: int, *values: bytes, resource: int = 0, family: int = _IPV4) -> bytes:
    body = b"".join(values)
    header = struct.pack("=IHHII", _HEADERS + len(body), kind, _NLM_F_REQUEST | flags, sequence, 0)
    return header + struct.pack(">BBH", family, 0, resource) + body


def _socket() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    return socket.socket(socket.AF_NETLINK, kind, 12)  # NETLINK_NETFILTER


def _received(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    while True:
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        yield from _split(data)


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The types and bodies of the messages of a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _check(body: bytes) -> None:
    code = -int(struct.unpack_from("=i", body)[0])
    if code:
        raise OSError(code, f"nf_tables: {errno.errorcode.get(code, code)}: {os.strerror(code)}")
