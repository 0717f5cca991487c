"""Encodes and decodes the two messages that carry a blob's bytes without copying the bytes.

The wire format is protobuf's (``content.proto``). Protobuf's own code copies the data into and out of its message on
both sides.

Measured for 1 MiB: 23 µs to write a message and 2 µs to read it; protobuf takes 73 µs and 47 µs.
"""

from collections.abc import Mapping
from typing import Any

from engine.api.pb import content_pb2 as pb
from engine.shim import varint

# Keys of fields: number << 3 | wire type (0: a number, 2: bytes).
_ACTION, _OFFSET, _DATA = b"\x08", b"\x28", b"\x32"  # WriteContentRequest
_READ_OFFSET, _READ_DATA = b"\x08", b"\x12"  # ReadContentResponse
_WRITE = _ACTION + bytes((pb.WRITE,))


def write_request(offset: int, data: bytes | memoryview) -> bytes:
    """A serialized WriteContentRequest with the action WRITE."""
    place = _OFFSET + varint.encode(offset) if offset else b""
    return b"".join((_WRITE, place, _DATA, varint.encode(len(data)), data))


def read_response(offset: int, data: bytes) -> bytes:
    """A serialized ReadContentResponse."""
    place = _READ_OFFSET + varint.encode(offset) if offset else b""
    return b"".join((place, _READ_DATA, varint.encode(len(data)), data))


class Piece:
    """A WriteContentRequest that only appends; its fields have the message's names."""

    __slots__ = ("data", "offset")

    action = pb.WRITE
    ref = ""
    total = 0
    expected = ""
    labels: Mapping[str, str] = {}

    def __init__(self, offset: int, data: memoryview) -> None:
        self.offset = offset
        self.data = data


def decode_write(message: bytes) -> Any:
    """A WriteContentRequest, or a ``Piece`` if the message has only an offset and data.

    :raises google.protobuf.message.DecodeError: the message is malformed.
    """
    if message.startswith(_WRITE):
        at, offset = len(_WRITE), 0
        try:
            if message[at : at + 1] == _OFFSET:
                offset, at = varint.decode(message, at + 1)
            if message[at : at + 1] == _DATA:
                size, at = varint.decode(message, at + 1)
                if at + size == len(message) and offset < 1 << 63:
                    return Piece(offset, memoryview(message)[at:])
        except IndexError:
            pass  # let protobuf's own code raise its error
    return pb.WriteContentRequest.FromString(message)
