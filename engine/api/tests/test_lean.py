"""The lean messages equal protobuf's, byte by byte, and protobuf decodes all other messages."""

import random

import pytest
from google.protobuf.message import DecodeError

from engine.api import lean
from engine.api.pb import content_pb2 as pb

OFFSETS = (0, 1, 127, 128, 300, 1 << 20, (1 << 32) + 5, (1 << 62) + 1)
SIZES = (1, 127, 128, 16384, 1 << 20)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("size", SIZES)
def test_as_protobuf_writes_them(offset: int, size: int) -> None:
    data = random.Random(size).randbytes(size)
    request = pb.WriteContentRequest(action=pb.WRITE, offset=offset, data=data)
    assert lean.write_request(offset, data) == request.SerializeToString()
    assert lean.write_request(offset, memoryview(data)) == request.SerializeToString()
    response = pb.ReadContentResponse(offset=offset, data=data)
    assert lean.read_response(offset, data) == response.SerializeToString()
    piece = lean.decode_write(request.SerializeToString())
    assert isinstance(piece, lean.Piece)
    assert (piece.action, piece.offset, bytes(piece.data)) == (pb.WRITE, offset, data)
    assert (piece.ref, piece.total, piece.expected, dict(piece.labels)) == ("", 0, "", {})


def test_other_messages_are_decoded_by_protobuf() -> None:
    for request in (
        pb.WriteContentRequest(action=pb.STAT, ref="r", total=5, expected="e"),
        pb.WriteContentRequest(action=pb.WRITE, ref="r", data=b"x"),
        pb.WriteContentRequest(action=pb.COMMIT, total=3, offset=3, labels={"a": "b"}),
        pb.WriteContentRequest(action=pb.WRITE, offset=3),
        pb.WriteContentRequest(action=pb.WRITE, data=b"x", labels={"a": "b"}),
    ):
        assert lean.decode_write(request.SerializeToString()) == request


def test_damaged_messages() -> None:
    """The decoder accepts nothing that protobuf would decode differently."""
    source = random.Random(7)
    whole = lean.write_request(70_000, b"some bytes of a blob")
    for _ in range(3000):
        message = bytearray(whole)
        for _ in range(source.randrange(1, 4)):
            message[source.randrange(len(message))] = source.randrange(256)
        data = bytes(message[: source.randrange(1, len(message) + 1)])
        try:
            wanted = pb.WriteContentRequest.FromString(data)
        except DecodeError:
            continue
        found = lean.decode_write(data)
        assert (found.action, found.offset, bytes(found.data)) == (wanted.action, wanted.offset, wanted.data), data
