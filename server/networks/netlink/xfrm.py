"""IPsec in the kernel: policies, which say what must be encrypted, and security associations (SA), which have the keys
(the kernel's include/uapi/linux/xfrm.h, ip-xfrm(8); ESP is RFC 4303, AES-GCM in it RFC 4106).

All of it is IPv4, and in transport mode: the payload of a packet between two hosts is encrypted. Policies and SAs
belong together by ``_REQUEST_ID``, which is this engine's mark on them, too.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from server.networks.netlink.channel import CREATE, NETLINK_XFRM, Channel, Packed

_NEW_SA, _DELETE_SA, _GET_SA, _DELETE_POLICY, _GET_POLICY, _UPDATE_POLICY = 0x10, 0x11, 0x12, 0x14, 0x15, 0x19
_TEMPLATE, _AEAD = 5, 18  # XFRMA_TMPL, XFRMA_ALG_AEAD
_IN, _OUT = 0, 1  # XFRM_POLICY_…
_UDP, _ESP = 17, 50
_UNLIMITED = (1 << 64) - 1  # XFRM_INF
_ALL = (1 << 32) - 1
_REQUEST_ID = 0x57480001
_ALGORITHM = b"rfc4106(gcm(aes))"
#: Bytes of the key of AES-128 with the salt of the nonces (RFC 4106, section 4), and of the check value at the end.
KEY_BYTES, CHECK_BYTES = 20, 16

# struct xfrm_selector: destination, source, ports with their masks, family, prefix lengths, protocol, device, user.
_SELECTOR = struct.Struct("=16s16s2s2s2s2sHBBB3xiI")
# struct xfrm_lifetime_cfg (bytes and packets, soft and hard; four times), xfrm_lifetime_cur, xfrm_stats.
_LIMITS = struct.pack("=8Q", *(_UNLIMITED,) * 4, *(0,) * 4)
_CURRENT, _STATISTICS = bytes(32), bytes(12)
# struct xfrm_id: destination, SPI, protocol.
_ID = struct.Struct("=16s4sB3x")
# What follows the limits in struct xfrm_usersa_info: sequence, request, family, mode, replay window, flags.
_SA_END = struct.Struct("=IIHBBB7x")
# struct xfrm_usersa_id.
_SA_ID = struct.Struct("=16s4sHBx")
# What follows the limits in struct xfrm_userpolicy_info: priority, index, direction, action, flags, share.
_POLICY_END = struct.Struct("=IIBBBB4x")
# What follows the selector in struct xfrm_userpolicy_id: index, direction.
_POLICY_ID_END = struct.Struct("=IB3x")
# What follows the id in struct xfrm_user_tmpl: family, source, request, mode, share, optional, algorithms.
_TEMPLATE_END = struct.Struct("=H2x16sIBBBxIII")
_ATTRIBUTE = struct.Struct("=HH")

#: Where the lists of a kernel's modules are, and its loaded ones.
_MODULES, _LOADED = Path("/lib/modules"), Path("/sys/module")


@dataclass(frozen=True, slots=True)
class Association:
    """One direction between two hosts. ``spi``: the number that its packets have. ``key``: ``KEY_BYTES``; no part of
    the identity, as ``spi`` follows from it."""

    source: str
    destination: str
    spi: int
    key: bytes = field(repr=False, compare=False, default=b"")


def open_channel() -> Channel:
    """:raises OSError: the kernel lacks IPsec."""
    return Channel(NETLINK_XFRM)


def supported(release: str = "", modules: Path = _MODULES, loaded: Path = _LOADED) -> bool:
    """Whether the kernel has ESP for IPv4, or a module with it, which the first association loads. Blocks.

    The lists of the kernel's modules decide, so that a node without encrypted networks loads none. Without these lists
    no module can be loaded, and an association is tried. ``release``: the kernel's; "": the running one's.
    """
    if (loaded / "esp4").exists():
        return True
    directory = modules / (release or os.uname().release)
    try:
        lists = [(directory / name).read_text() for name in ("modules.builtin", "modules.dep")]
    except OSError:
        return _try()
    return any("/esp4.ko" in text for text in lists)


def _try() -> bool:
    probe = Association("127.0.0.1", "127.0.0.1", _REQUEST_ID, bytes(KEY_BYTES))
    try:
        with open_channel() as channel:
            add(channel, [probe])
            remove(channel, [probe])
    except OSError:
        return False
    return True


def require_encryption(channel: Channel, address: str, port: int) -> None:
    """From now on all UDP packets from ``address`` to ``port``, and from anywhere to both, must be encrypted. Those
    that are not, or for which there is no association, are dropped. Idempotent.

    :raises OSError: the kernel refused.
    """
    channel.run_packed(
        [
            (_UPDATE_POLICY, 0, _policy(direction, address, port) + _attribute(_TEMPLATE, _template()))
            for direction in (_IN, _OUT)
        ]
    )


def requires_encryption(channel: Channel, address: str, port: int) -> bool:
    """Whether both policies of :func:`require_encryption` are there."""
    at = _SELECTOR.size + len(_LIMITS) + len(_CURRENT)
    present = {
        (body[: _SELECTOR.size], _POLICY_END.unpack_from(body, at)[2]) for body in channel.dump_packed(_GET_POLICY, b"")
    }
    return all((_selector(direction, address, port), direction) in present for direction in (_IN, _OUT))


def release_encryption(channel: Channel, address: str, port: int) -> None:
    """Undoes :func:`require_encryption`. Idempotent."""
    requests: list[Packed] = [
        (_DELETE_POLICY, 0, _selector(direction, address, port) + _POLICY_ID_END.pack(0, direction))
        for direction in (_IN, _OUT)
    ]
    channel.run_packed(requests, ignore=errno.ENOENT)


def add(channel: Channel, associations: Iterable[Association]) -> None:
    """:raises OSError: EPROTONOSUPPORT: the kernel lacks ESP; ENOSYS: AES-GCM; EEXIST: two have the same SPI. The other
    ones are added."""
    channel.run_packed([(_NEW_SA, CREATE, _association(each)) for each in associations])


def remove(channel: Channel, associations: Iterable[Association]) -> None:
    """A missing one is fine."""
    requests: list[Packed] = [
        (_DELETE_SA, 0, _SA_ID.pack(_address(each.destination), _spi(each), socket.AF_INET, _ESP))
        for each in associations
    ]
    channel.run_packed(requests, ignore=errno.ESRCH)


def associations(channel: Channel, address: str) -> set[Association]:
    """Those of this engine from and to ``address``, without their keys."""
    found = set()
    at = _SELECTOR.size + _ID.size + 16 + len(_LIMITS) + len(_CURRENT) + len(_STATISTICS)
    for body in channel.dump_packed(_GET_SA, b""):
        destination, spi, protocol = _ID.unpack_from(body, _SELECTOR.size)
        source = body[_SELECTOR.size + _ID.size :][:16]
        _, request, family, _, _, _ = _SA_END.unpack_from(body, at)
        if (request, family, protocol) != (_REQUEST_ID, socket.AF_INET, _ESP):
            continue
        one, other = (socket.inet_ntoa(each[:4]) for each in (source, destination))
        if address in (one, other):
            found.add(Association(one, other, int.from_bytes(spi, "big")))
    return found


def _address(text: str) -> bytes:
    return socket.inet_aton(text) if text else bytes(4)


def _spi(association: Association) -> bytes:
    return association.spi.to_bytes(4, "big")


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _selector(direction: int, address: str, port: int) -> bytes:
    ends = (address, "") if direction == _IN else ("", address)
    to, source = map(_address, ends)
    lengths = (32, 0) if direction == _IN else (0, 32)
    number = port.to_bytes(2, "big")
    return _SELECTOR.pack(to, source, number, b"\xff\xff", bytes(2), bytes(2), socket.AF_INET, *lengths, _UDP, 0, 0)


def _policy(direction: int, address: str, port: int) -> bytes:
    end = _POLICY_END.pack(0, 0, direction, 0, 0, 0)
    return _selector(direction, address, port) + _LIMITS + _CURRENT + end


def _template() -> bytes:
    """ESP in transport mode by an association of this engine, with any SPI and algorithm."""
    end = _TEMPLATE_END.pack(socket.AF_INET, bytes(16), _REQUEST_ID, 0, 0, 0, _ALL, _ALL, _ALL)
    return _ID.pack(bytes(16), bytes(4), _ESP) + end


def _association(each: Association) -> bytes:
    """Without a replay window: a host that has restarted begins again with the first sequence number, while its peers
    know the former ones. What is inside has TCP's own."""
    head = (
        _SELECTOR.pack(*(bytes(16),) * 2, *(bytes(2),) * 4, socket.AF_INET, 0, 0, 0, 0, 0)
        + _ID.pack(_address(each.destination), _spi(each), _ESP)
        + _address(each.source).ljust(16, b"\0")
    )
    end = _SA_END.pack(0, _REQUEST_ID, socket.AF_INET, 0, 0, 0)
    aead = struct.pack("=64sII", _ALGORITHM, len(each.key) * 8, CHECK_BYTES * 8) + each.key
    return head + _LIMITS + _CURRENT + _STATISTICS + end + _attribute(_AEAD, aead)
