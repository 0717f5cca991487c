"""Variable-length integers, compared with protobuf's own library."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import UInt64Value

from engine.shim import varint


@pytest.mark.parametrize("value", [1, 127, 128, 300, 16383, 16384, 2**32 - 1, 2**63, 2**64 - 1])
def test_as_protobuf_writes_and_reads_it(value: int) -> None:
    message = UInt64Value(value=value).SerializeToString()
    assert b"\x08" + varint.encode(value) == message
    assert varint.decode(message, 1) == (value, len(message))


def test_an_integer_that_is_cut_off() -> None:
    with pytest.raises(IndexError):
        varint.decode(b"\x80\x80", 0)
