"""Deletes tracked flows. UDP has no end of connection: without this, clients of a published UDP port would still reach
an address that now belongs to another container."""

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_UDP = 17


def flush_udp(addresses: set[str]) -> int:
    """Deletes the UDP flows whose answers come from one of ``addresses``; returns their number."""
    removed = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        sources = {ip_address(text).packed for text in addresses if (":" in text) == (family == socket.AF_INET6)}
        if not sources:
            continue
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            for original in list(_flows(sock, family, sources)):
                body = struct.pack("=BBH", family, 0, 0) + original
                sock.send(_HEADER.pack(_HEADER.size + len(body), _DELETE, _REQUEST | _ACK, 2, 0) + body)
                code = struct.unpack_from("=i", sock.recv(4096), _HEADER.size)[0]
                if code not in (0, -2):  # ENOENT: it has ended by itself
                    raise OSError(-code, os.strerror(-code))
                removed += not code
    return removed


def _flows(sock: socket.socket, family: int, sources: set[bytes]) -> Iterator[bytes]:
    """The original tuples (as attributes) of matching flows."""
    sock.send(_HEADER.pack(_HEADER.size + 4, _GET, _REQUEST | _DUMP, 1, 0) + struct.pack("=BBH", family, 0, 0))
    while True:
        data = sock.recv(1 << 18)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
            if kind == 3:  # NLMSG_DONE
                return
            if kind == 2:
                code = struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                if code:
                    raise OSError(-code, os.strerror(-code))
                return
            attributes = _attributes(data[offset + _HEADER.size + 4 : offset + length])
            reply = _attributes(attributes.get(_TUPLE_REPLY, b""))
            source = _attributes(reply.get(1, b""))  # CTA_TUPLE_IP
            protocol = _attributes(reply.get(2, b"")).get(1, b"\0")  # CTA_TUPLE_PROTO, CTA_PROTO_NUM
            address = source.get(1) or source.get(3)  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
            if protocol[0] == _UDP and address in sources:
                original = attributes[_TUPLE_ORIG]
                yield struct.pack("=HH", len(original) + 4, _TUPLE_ORIG | _NESTED) + original
            offset += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
