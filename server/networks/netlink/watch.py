"""Reports changes of links, addresses, nftables rules or IPsec of this host, by the kernel's netlink notifications.

The kernel announces every change, including this engine's own. Reports are small and gathered for a moment; the caller
compares the host with its records if a report is relevant (rtnetlink(7), the kernel's
``include/uapi/linux/netfilter/nf_tables.h`` and ``include/uapi/linux/xfrm.h``).
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from server.networks.netlink.rtnetlink import IFF_UP, RTM_DELADDR, RTM_DELLINK, RTM_NEWLINK

log = logging.getLogger(__name__)

_ROUTE, _XFRM, _NETFILTER = 0, 6, 12  # NETLINK_ROUTE, NETLINK_XFRM, NETLINK_NETFILTER
_SOL_NETLINK, _ADD_MEMBERSHIP, _NO_ENOBUFS = 270, 1, 5
_LINK, _IPV4_ADDRESS, _IPV6_ADDRESS = 1, 5, 9  # RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
_NFTABLES = 7  # NFNLGRP_NFTABLES
_ASSOCIATIONS, _POLICIES = 3, 4  # XFRMNLGRP_SA, XFRMNLGRP_POLICY
#: XFRM_MSG_DELSA, XFRM_MSG_DELPOLICY, XFRM_MSG_FLUSHSA, XFRM_MSG_FLUSHPOLICY.
_UNENCRYPTED = frozenset((0x11, 0x14, 0x1C, 0x1D))
_RCVBUFFORCE = 33
_MEMINFO, _DROPS = 55, 8  # SO_MEMINFO, SK_MEMINFO_DROPS
_BUFFER = 4 << 20
_AF_BRIDGE = 7
_IFNAME, _MASTER = 3, 10  # IFLA_IFNAME, IFLA_MASTER
_NEWGEN, _DELETED_ELEMENT = (10 << 8) | 15, (10 << 8) | 14  # NFT_MSG_NEWGEN, NFT_MSG_DELSETELEM
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg
#: Seconds to gather further changes: a firewall's loader may need several transactions.
_SETTLE = 0.25
#: With more changed links and addresses, the report only says that changes were lost.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The last announced state of a device. ``gone``: it was deleted."""

    index: int
    name: str
    master: int = 0
    up: bool = True
    gone: bool = False


@dataclass(slots=True)
class Changes:
    """The announcements since the last report."""

    links: dict[int, LinkChange] = field(default_factory=dict)  # by index
    addresses: set[int] = field(default_factory=set)  # indexes of devices that lost an address
    rules: bool = False  # whether an nftables transaction was committed
    deletions: set[int] = field(default_factory=set)  # generations of transactions that deleted elements of the table
    encryption: bool = False  # whether policies or associations of IPsec were removed
    lost: bool = False  # whether announcements were lost

    def __bool__(self) -> bool:
        return bool(self.links or self.addresses or self.rules or self.encryption or self.lost)


class Watch:
    """Calls ``changed`` in the loop a moment after a change in this thread's network namespace.

    :param table: the inet table whose deleted elements are reported; "": no nftables, as for ``--iptables=false``.
    :raises OSError: the kernel lacks such notifications (no nftables).
    """

    def __init__(self, changed: Callable[[Changes], object], table: str = "") -> None:
        self._changed = changed
        self._table = table.encode() + b"\0"
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._changes = Changes()
        self._deleting = False  # whether the transaction being announced deletes elements of the table
        self._encrypting = False
        self._sockets: list[_Socket] = []
        try:
            self._open(_ROUTE, (_LINK, _IPV4_ADDRESS, _IPV6_ADDRESS), self._link_changed)
            if table:
                self._open(_NETFILTER, (_NFTABLES,), self._rule_changed)
        except BaseException:
            self.close()
            raise

    def watch_encryption(self) -> None:
        """Also reports removals of IPsec from now on. A second call does nothing.

        :raises OSError: the kernel lacks IPsec.
        """
        if not self._encrypting:
            self._open(_XFRM, (_ASSOCIATIONS, _POLICIES), self._encryption_changed)
            self._encrypting = True

    def _encryption_changed(self, kind: int, body: memoryview) -> None:
        self._changes.encryption |= kind in _UNENCRYPTED

    def _open(self, protocol: int, groups: tuple[int, ...], received: "Callable[[int, memoryview], None]") -> None:
        self._sockets.append(_Socket(self._loop, protocol, groups, received, self._read))

    def _read(self, *, lost: bool) -> None:
        if lost or len(self._changes.links) + len(self._changes.addresses) > _MOST:
            self._changes = Changes(rules=True, encryption=self._encrypting, lost=True)
        if self._timer is None and self._changes:
            self._timer = self._loop.call_later(_SETTLE, self._settled)

    def _link_changed(self, kind: int, body: memoryview) -> None:
        if kind == RTM_DELADDR:
            self._changes.addresses.add(struct.unpack_from("=I", body, 4)[0])
            return
        if kind not in (RTM_NEWLINK, RTM_DELLINK):
            return
        family, _, index, flags, _ = _IFINFO.unpack_from(body)
        if family == _AF_BRIDGE:
            return  # of a bridge port; relevant changes are also announced for the device
        name, master = "", 0
        for number, value in _attributes(body, _IFINFO.size):
            if number == _IFNAME:
                name = bytes(value).rstrip(b"\0").decode(errors="replace")
            elif number == _MASTER:
                master = struct.unpack_from("=I", value)[0]
        self._changes.links[index] = LinkChange(index, name, master, bool(flags & IFF_UP), kind == RTM_DELLINK)

    def _rule_changed(self, kind: int, body: memoryview) -> None:
        if kind == _DELETED_ELEMENT:
            if not self._deleting:
                self._deleting = any(number == 1 and value == self._table for number, value in _attributes(body, 4))
        elif kind == _NEWGEN:  # the end of a transaction
            self._changes.rules = True
            if self._deleting:
                generation = next((value for number, value in _attributes(body, 4) if number == 1), None)
                self._changes.deletions.add(struct.unpack_from(">I", generation)[0] if generation else 0)
            self._deleting = False

    def _settled(self) -> None:
        self._timer = None
        changes, self._changes = self._changes, Changes()
        self._changed(changes)

    def close(self) -> None:
        """Stops watching; a second call does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for sock in self._sockets:
            sock.close()


class _Socket:
    """One netlink socket in the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: int,
        groups: tuple[int, ...],
        received: Callable[[int, memoryview], None],
        read: Callable[..., None],
    ) -> None:
        self._loop, self._received, self._read = loop, received, read
        self._buffer = memoryview(bytearray(1 << 16))
        self._drops = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        try:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
            except PermissionError:  # older kernels require the capability in the initial user namespace
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            # uvloop stops watching a socket with a pending error: use the count of drops instead.
            self._socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            loop.add_reader(self._socket, self._readable)
        except BaseException:
            self._socket.close()
            raise

    def _readable(self) -> None:
        for _ in range(16):  # limited, so that other callbacks run
            try:
                size, _, flags, _ = self._socket.recvmsg_into([self._buffer])
            except BlockingIOError:
                break
            for kind, body in _messages(self._buffer[:size]):
                try:
                    self._received(kind, body)
                except struct.error:
                    log.debug("a netlink message of kind %d is too short", kind)
            if flags & socket.MSG_TRUNC:
                self._read(lost=True)
        counters = self._socket.getsockopt(socket.SOL_SOCKET, _MEMINFO, 64)
        drops = struct.unpack_from("=I", counters, 4 * _DROPS)[0] if len(counters) > 4 * _DROPS else 0
        lost, self._drops = drops != self._drops, drops
        self._read(lost=lost)

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self._loop.remove_reader(self._socket)
        self._socket.close()


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(body: memoryview, offset: int) -> Iterator[tuple[int, memoryview]]:
    while offset + _ATTRIBUTE.size <= len(body):
        length, number = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            return
        yield number & 0x3FFF, body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
