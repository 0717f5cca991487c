"""Protobuf's variable-length integers, for the few messages that are encoded without protobuf's library.

Standard library only: shims use it. See https://protobuf.dev/programming-guides/encoding/#varints.
"""

from __future__ import annotations


def encode(value: int) -> bytes:
    """Encodes an integer ≥ 0 in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def decode(data: bytes, at: int) -> tuple[int, int]:
    """Returns (the integer that starts at ``at``, the offset after it).

    :raises IndexError: the data ends inside the integer.
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
